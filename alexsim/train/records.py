"""What a run is asked for, what it reports on the way, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alexsim.data.loader import Order
from alexsim.execute.choices import Backend, Device, Precision
from alexsim.network.editions import load_network
from alexsim.plan.records import Plan
from alexsim.plan.spec import PlanChoices, PlanSpec, Policy, Schedule, TransportName
from alexsim.recipe.recipe import Recipe, Stage
from alexsim.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(PlanChoices):
    """What a run was asked to do; ``config.json`` holds exactly this and the versions."""

    network: str
    batch_size: int
    gpus: int
    policy: Policy
    schedule: Schedule
    budget_bytes: int
    data: str
    steps: int
    seed: int
    threads: int
    workers: int
    checkpoint_every: int
    recipe: Recipe
    device: Device = "cpu"
    backend: Backend = "aten"
    transport: TransportName = "peer"
    precision: Precision = "fp32"
    """Of products, with backend ``triton``."""
    graph: bool = False
    """Steps are replayed as a CUDA graph."""
    strict: bool = False
    """A process per device, whose allocator keeps the budget too."""
    order: Order = "shuffled"
    """The order in which training images come."""
    init_from: str = ""
    """Run or file whose weights it begins with."""
    new_head: bool = False
    """The last projection is drawn anew all the same."""

    def spec(self, stage: Stage) -> PlanSpec:
        """The plan of a step in a stage, in which some layers may be frozen."""
        network = load_network(self.network)
        return PlanSpec(
            network=network,
            trainable=frozenset(network.weighted_layers) - set(stage.frozen),
            optimizer=self.recipe.optimizer,
            **self.choices,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Means over images: negative log-likelihood, top-1 and top-5 error (0...1)."""

    loss: float
    """NaN where a probability is."""
    top1: float
    top5: float
    nan_images: int = 0
    """Images for which the network puts out NaN: they count as wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSize:
    """Mean magnitude of a layer's weights, and of what the last update added to them."""

    layer: str
    weight: float
    increment: float
    """0 where the layer is frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationReport:
    """A test on held-out images while training goes on."""

    step: int
    epoch: int
    images: int
    evaluation: Evaluation
    layers: tuple[LayerSize, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One training step, for whoever shows progress."""

    step: int
    """Steps done."""
    steps: int
    loss: float
    top1: float
    top5: float
    step_s: float
    data_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run did; losses and times are those of all its steps, also before a resume."""

    settings: TrainSettings
    steps: int
    losses: tuple[float, ...]
    held_out: Evaluation | None
    validations: tuple[ValidationReport, ...]
    images_per_s: float
    compute_images_per_s: float
    data_share: float
    """Share of the time that steps waited for data."""
    devices: tuple[tuple[str, int, int], ...]
    """Name, budget and peak bytes of each device."""
    process_bytes: Mapping[str, int]
    """On CUDA with a process per device: what the driver counts for each, context and all."""
    exchanged_bytes_per_step: int
    """Activations and their gradients, over all replicas."""
    reduced_bytes_per_step: int
    """Gradients of weights that were summed, over all devices."""
    trace: Trace
    """Some steps after the first, op by op; empty where steps were replayed as a graph."""
    timed_plan: Plan | None
    """The plan of those steps."""
    cards: tuple[str, ...]
    """Names of the cards that NVML watched."""
    joules_per_image: float | None
    """Of the cards, over the steps that this process trained."""
    broken: tuple[str, ...]
    interrupted: bool
    run_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Callbacks for whoever shows progress; each does nothing by default."""

    step: Callable[[StepReport], None] = lambda _: None
    validation: Callable[[ValidationReport], None] = lambda _: None
    note: Callable[[str], None] = lambda _: None
    preparing: Callable[[str, int, int], None] = lambda _what, _done, _total: None

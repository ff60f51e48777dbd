"""What a run is asked for, what it reports on the way, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge

from alexsim.data.choices import Order
from alexsim.editions.load import load_network
from alexsim.execute.choices import Backend, Device, Precision
from alexsim.names import name_of, name_text
from alexsim.plan.choices import Policy, Schedule, TransportName
from alexsim.plan.plan import Plan
from alexsim.plan.spec import PlanChoices, PlanSpec
from alexsim.recipe.file import recipe_table
from alexsim.recipe.recipe import Recipe, Stage
from alexsim.trace import Trace
from alexsim.typed import AnyFloat, Named

SCHEMA = 1
"""Of ``config.json``."""
Name = Annotated[str, Named(name_of)]
"""What may be a path: bytes, which a document holds as text."""
Positive = Annotated[int, Ge(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(PlanChoices):
    """What a run was asked to do; ``config.json`` holds exactly this and the versions."""

    network: Name
    batch_size: Positive
    gpus: Positive
    policy: Policy
    schedule: Schedule
    partition: Literal["columns", "hybrid"] = "columns"
    """Replicas of it have a number of their own."""
    budget_bytes: Positive
    data: Name
    steps: Positive
    seed: int
    threads: Positive
    workers: Positive
    checkpoint_every: Positive
    recipe: Recipe
    replicas: Positive = 1
    device: Device = "cpu"
    backend: Backend = "aten"
    transport: TransportName = "peer"
    precision: Precision = "fp32"
    """Of products, with backend ``triton``; with ``native``, ``bf16`` is of fully connected layers.
    """
    graph: bool = False
    """Steps are replayed as a CUDA graph."""
    strict: bool = False
    """A process per device, whose allocator keeps the budget too."""
    order: Order = "shuffled"
    """The order in which training images come."""
    init_from: Name = ""
    """Run or file whose weights it begins with."""
    new_head: bool = False
    """The last projection is drawn anew all the same."""

    def spec(self, stage: Stage) -> PlanSpec:
        """The plan of a step in a stage, in which some layers may be frozen."""
        network = load_network(self.network)
        native = self.backend == "native"
        return PlanSpec(
            network=network,
            products="bf16" if native and self.precision == "bf16" else "fp32",
            trainable=frozenset(network.weighted_layers) - set(stage.frozen),
            optimizer=self.recipe.optimizer,
            **self.choices,
        )

    @property
    def table(self) -> dict[str, Any]:
        """As ``config.json`` holds it."""
        names = {name: name_text(getattr(self, name)) for name in ("network", "data", "init_from")}
        return asdict(self) | names | {"recipe": recipe_table(self.recipe)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """``config.json``."""

    settings: TrainSettings
    data_fingerprint: str
    classes: tuple[str, ...]
    versions: Mapping[str, str]
    launch: str = ""
    """What torchrun calls the run's attempts."""

    @property
    def table(self) -> dict[str, Any]:
        """As the file holds it."""
        return {"schema": SCHEMA} | asdict(self) | {"settings": self.settings.table}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Means over images: negative log-likelihood, top-1 and top-5 error (0...1)."""

    loss: AnyFloat
    """NaN where a probability is."""
    top1: float
    top5: float
    nan_images: int = 0
    """Images for which the network puts out NaN: they count as wrong."""


class LayerSize(NamedTuple):
    """Mean magnitude of a layer's weights, and of what the last update added to them."""

    weight: AnyFloat
    increment: AnyFloat
    """0 where the layer is frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLine:
    """A training step, as a line of ``metrics.jsonl``."""

    step: int
    """Steps done."""
    loss: float
    top1: float
    top5: float
    step_s: float
    data_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport(StepLine):
    """The same for whoever shows progress."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEvaluation(Evaluation):
    """Some held-out images on the way."""

    epoch: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationLine:
    """A test while training goes on, as a line of ``metrics.jsonl``."""

    step: int
    validation: PartEvaluation
    layers: Mapping[str, LayerSize]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutLine:
    """The test at a run's end, as a line of ``metrics.jsonl``."""

    step: int
    held_out: Evaluation


MetricsLine = StepLine | ValidationLine | HeldOutLine


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run did; losses and times are those of all its steps, also before a resume."""

    settings: TrainSettings
    steps: int
    losses: tuple[float, ...]
    held_out: Evaluation | None
    validations: tuple[ValidationLine, ...]
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
    validation: Callable[[ValidationLine], None] = lambda _: None
    note: Callable[[str], None] = lambda _: None
    preparing: Callable[[str, int, int], None] = lambda _what, _done, _total: None

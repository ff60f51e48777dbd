"""``alexsim simulate --json``, and what other documents have of a simulated step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from alexsim.costs.precision import StepPrecision
from alexsim.documents.base import ABSENT, From, Interval, NetworkDocument, Part
from alexsim.documents.plan import NotRun
from alexsim.explore.sensitivity import Sensitivity
from alexsim.explore.what_if import Moved, WhatIf
from alexsim.network.not_run import unsupported
from alexsim.plan.spec import PlanSpec
from alexsim.recipe.stages import Training
from alexsim.report.tables import sharing_text
from alexsim.simulate.evidence import Evidence
from alexsim.simulate.simulation import DeviceTimes, LayerTimes, Simulation


class DataPath(Part):
    """What the hosts do beside a step: files are read, decoded and cropped."""

    side: int
    """Of the square JPEGs that are read, in pixels."""
    images_per_s: float
    seconds: float
    """The slowest stage: it sets the pace."""
    disk_s: float
    decode_s: float
    crop_s: float


class StepParts(Part):
    """What a simulated step's time is made of."""

    step_without_data_s: float
    """The same step where every image lies ready."""
    data_path: DataPath | None
    """null where images are ready."""
    bound: Annotated[
        Literal["data path", "GPUs"],
        From(lambda simulation: "data path" if simulation.data_bound else "GPUs"),
    ]
    """What sets the pace."""
    issue_s: float
    """Seconds in which the devices wait for the host to issue their ops, one by one."""


class ExchangeSeconds(Part):
    """An exchange of a step."""

    name: str
    source: str
    target: str
    bytes: Annotated[int, From("size_bytes")]
    seconds: float


class OpSeconds(Part):
    """An op that computes."""

    id: Annotated[str, From("name")]
    device: str
    kind: str
    seconds: float
    limit: str
    flop: int | float
    """Of the multiply-adds that are done."""


class PathSpan(Part):
    """A piece of the critical path."""

    id: Annotated[str, From("op_id")]
    device: str
    queue: str
    start_s: float
    end_s: float


class PartElasticity(Part):
    """How much shorter the step is where a part of its work takes 1 % less time."""

    part: str
    """A layer; ``exchange``, ``all_reduce``, ``upload``, ``barrier``; or a stage of the data path:
    ``disk``, ``decode``, ``crop``."""
    pass_: Annotated[str, From("pass_name"), Field(alias="pass")]
    """Of the layer; else empty."""
    share: float
    """Of the step, per share of the part's time; all parts' add up to 1."""


class ChangedStep(Part):
    """The step with one change."""

    change: str
    step_s: Annotated[float, From("simulation.step_s")]
    images_per_s: Annotated[float, From("simulation.images_per_s")]
    training_days: Annotated[float, From("days")]
    ratio: float
    """Of the training's days to those without the change."""
    fits: Annotated[bool, From("simulation.fits")]
    beyond_peaks_s: float
    """Seconds by which the first device's ops are shorter than its peaks allow."""
    moved: tuple[Moved, ...]
    """Parts of the first device's step that take another time, what changed most first."""


class Stage(Part):
    """A stage of a recipe on the machine."""

    from_epoch: Annotated[int, From("stage.from_epoch")]
    epochs: int
    frozen: Annotated[tuple[str, ...], From("stage.frozen")]
    weight_rate: Annotated[float, From("stage.weight_rate")]
    bias_rate: Annotated[float, From("stage.bias_rate")]
    step_s: Annotated[float, From("simulation.step_s")]
    days: float
    memory_bytes: Annotated[
        dict[str, int],
        From(lambda times: {d.name: d.memory_bytes for d in times.simulation.devices}),
    ]
    """By device."""


def _of_recipe(name: str) -> Callable[[Any], Any]:
    """What a training has that follows a recipe."""
    return lambda both: getattr(both.training, name) if both.training.stages else ABSENT


class BeforeGiven(Part):
    """The step by the shipped fit alone."""

    step_s: float
    step_s_interval: Annotated[Interval, From("step_interval")]


class SimulationDocument(StepParts, NetworkDocument):
    """``alexsim simulate --json``."""

    network: str
    machine: str
    library: str
    partition: str
    replicas: int
    gpus: Annotated[int, From("devices_count")]
    images_per_gpu: Annotated[int, From("spec.op_images")]
    """Of the images of a step."""
    sharing: Annotated[str, From(lambda both: sharing_text(both.spec))]
    """How several GPUs share a step, in words; empty for one."""
    step_s: float
    step_s_interval: Annotated[Interval, From("step_interval")]
    """It should hold nine steps in ten of such machines."""
    images_per_s: float
    forward_s: float
    backward_s: float
    training_days: Annotated[float, From("training.days")]
    training_days_interval: Annotated[Interval, From("training.days_interval")]
    ideal_forward_images_per_s: float
    """If every device did its multiply-adds at its peak."""
    ideal_training_images_per_s: float
    """Of one device at its peak."""
    utilisation: float
    """FLOP of the multiply-adds that are done, over those that the peak allows."""
    utilisation_counts: str
    """``direct`` or ``reduced`` multiply-adds (Winograd, FFT)."""
    multiply_adds_over_direct: Annotated[float, From("done_share")]
    host_s: float
    """The slowest stage of the data path."""
    all_reduce_s: float
    fits: bool
    energy_kwh: Annotated[float, From(lambda both: both.training.days * 24 * both.power_w / 1e3)]
    """Of the training, at the data sheets' power."""
    price_usd: float | None
    """Of all devices when they came out; null where a sheet states none."""
    precision: Annotated[StepPrecision, From("computed.precision")] = "fp32"
    half_type: Annotated[str, From("computed.half_type")] = ""
    """``bf16`` or ``fp16``; empty where nothing is half precision."""
    tensor_cores: Annotated[bool, From("computed.tensor_cores")] = False
    """Whether tensor cores do the products."""
    evidence: Evidence | None = None
    """What the prediction rests on: rows that the fit had, errors of predictions like it."""
    tf32_by_default: Annotated[bool, From("computed.tf32_by_default")] = False
    """Whether PyTorch itself would run these convolutions in TF32, as ``pytorch`` does."""
    devices: tuple[DeviceTimes, ...]
    exchanges: tuple[ExchangeSeconds, ...]
    layers: tuple[LayerTimes, ...]
    ops: tuple[OpSeconds, ...]
    critical_path: tuple[PathSpan, ...]
    not_run: tuple[NotRun, ...] = ()
    """Operators that are counted from their shapes, whose times are the roofline's."""
    recipe: Annotated[str, From(_of_recipe("recipe"))] = ""
    """With ``--recipe``."""
    stages: Annotated[tuple[Stage, ...], From(_of_recipe("stages"))] = ()
    """With ``--recipe``."""
    sensitivity: tuple[Sensitivity, ...] = ()
    """With ``--sensitivity``."""
    elasticities: tuple[PartElasticity, ...] = ()
    """With ``--elasticities``."""
    what_if: tuple[ChangedStep, ...] = ()
    before_given: BeforeGiven | None = None
    """With ``--given``: the step without."""
    """With ``--what-if``."""


def simulation_document(
    simulation: Simulation,
    spec: PlanSpec,
    training: Training,
    *,
    sensitivities: Sequence[Sensitivity] | None = None,
    elasticities: bool = False,
    what_ifs: Sequence[WhatIf] = (),
    before: Simulation | None = None,
) -> SimulationDocument:
    """``alexsim simulate --json``."""
    sensitivity = ABSENT if sensitivities is None else tuple(sensitivities)
    return SimulationDocument.of(
        simulation,
        spec=spec,
        training=training,
        sensitivity=sensitivity,
        elasticities=simulation.elasticities if elasticities else ABSENT,
        what_if=tuple(what_ifs) or ABSENT,
        before_given=BeforeGiven.of(before) if before else ABSENT,
        not_run=unsupported(spec.network),
    )

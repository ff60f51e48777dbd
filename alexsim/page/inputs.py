"""What a page is on: a run directory, a profile document, or a network that is only planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from alexsim.costs.cost import Precision
from alexsim.costs.gemm import peak_flop_per_s
from alexsim.documents.profile import PlanDocument, ProfileDocument, plan_document
from alexsim.documents.run import HeldOutMetrics, RunConfig, RunSettings, StepMetrics
from alexsim.documents.step import TelemetrySample
from alexsim.editions.load import as_written, load_network
from alexsim.errors import AlexsimError, RunError, reason_of
from alexsim.machine.defaults import MACHINE
from alexsim.machine.device import Device
from alexsim.machine.machine import machine_for
from alexsim.network.layers import Convolution
from alexsim.network.part import letter
from alexsim.network.update_rules import Optimizer
from alexsim.page.earlier import complete
from alexsim.plan.asked import gpus_and_partition
from alexsim.plan.choices import Partition, Policy, Schedule
from alexsim.plan.plan import Category, Plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.step_profile import Ceilings
from alexsim.report.pictures import Filters
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import enough_machines, on_machine, planned
from alexsim.strict_json import json_value
from alexsim.train.files import CHECKPOINTS, CONFIG, METRICS, PROFILE, TELEMETRY
from alexsim.typed import read

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from alexsim.page.figures.memory import Budget

_HELD_OUT = ("validation", "held_out")
"""Keys of lines that tell of images the run never trained on: on the way, and at its end."""
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Everything there is to show of one thing."""

    name: str
    kind: Literal["run", "profile", "plan"]
    document: PlanDocument
    """A ``ProfileDocument`` where its step was timed, op by op."""
    config: RunConfig | None = None
    metrics: tuple[StepMetrics, ...] = ()
    held_out: tuple[HeldOutMetrics, ...] = ()
    samples: tuple[TelemetrySample, ...] = ()
    """Of NVML, their time counted on over every resumption."""
    cards: tuple[str, ...] = ()
    filters: tuple[Filters, ...] = ()
    checkpoint: str = ""
    notes: tuple[str, ...] = ()
    """What is missing, and why."""

    @property
    def measured(self) -> ProfileDocument | None:
        """Its document, if its step was timed."""
        return self.document if isinstance(self.document, ProfileDocument) else None

    @property
    def budget(self) -> Budget | None:
        """Bytes that a GPU may use, and whose figure that is."""
        from alexsim.page.figures.memory import Budget, usable

        if self.config is not None:
            return Budget(self.config.settings.budget_bytes, "budget of the run")
        return usable(self.document)

    def figures(self) -> dict[str, Figure]:
        """By name: those of its step, its curves, and what its cards said."""
        from alexsim.page.figures import run_figures, step_figures

        return step_figures(self.document, self.budget) | run_figures(
            self.metrics, self.held_out, self.samples
        )

    def plot(self, name: str) -> Figure:
        """A figure as ``plotly.graph_objects.Figure``.

        Raises:
            AlexsimError: there is none of this name.
        """
        figures = self.figures()
        if name not in figures:
            raise AlexsimError(f"no figure {name!r}; there are {', '.join(figures)}")
        return figures[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A network to plan, and the machine to predict."""

    network: str
    batch_size: int = 128
    gpus: int | None = None
    partition: Partition | None = None
    replicas: int = 1
    variable_batch: bool = False
    policy: Policy = "as-released"
    schedule: Schedule = "serial"
    optimizer: Optimizer = "sgd-2012"
    machine: str = MACHINE
    joined_by: str = ""
    """The link between several such machines."""
    library: str = ""
    as_many: bool = False
    """Whether the GPUs are a run's: then as many machines are joined as have them."""

    def document(self) -> PlanDocument:
        """Its plan, and the prediction.

        Raises:
            AlexsimError: a name is not known, or two choices do not go together.
        """
        network = load_network(self.network)
        gpus, partition = gpus_and_partition(
            network,
            gpus=self.gpus,
            partition=self.partition,
            replicas=self.replicas,
            machine=self.machine,
        )
        spec = PlanSpec(
            network=network,
            gpus=gpus,
            partition=partition,
            replicas=self.replicas,
            variable_batch=self.variable_batch,
            batch_size=self.batch_size,
            schedule=self.schedule,
            policy=self.policy,
            optimizer=self.optimizer,
        )
        if self.as_many and not self.joined_by:
            machine = enough_machines(self.machine, spec.all_gpus)
        else:
            machine = machine_for(self.machine, spec.all_gpus, self.joined_by)
        simulation = on_machine(spec, machine, library=self.library)
        return predicted(planned(spec, machine, whole=True), simulation, machine.device)


def predicted(
    plan: Plan, simulation: Simulation, device: Device, precision: Precision = "fp32"
) -> PlanDocument:
    """A planned step and its simulation, under the ceilings of a device's sheet, in a precision."""
    peak, rate = peak_flop_per_s(device, precision), device.memory_bytes_per_s.value
    sheet = Ceilings(flop_per_s=peak, bytes_per_s=rate)
    return plan_document(plan, simulation, sheet)


def plan_subject(wanted: Wanted) -> Subject:
    """A network that is only planned."""
    return Subject(name=as_written(wanted.network), kind="plan", document=wanted.document())


def profile_subject(path: Path) -> Subject:
    """A profile document.

    Raises:
        RunError: the file cannot be read, or is none.
    """
    document = _document(path)
    told = document.telemetry if isinstance(document, ProfileDocument) else None
    return Subject(
        name=path.stem if path.stem != "profile" else path.resolve().parent.name,
        kind="profile",
        document=document,
        samples=told.samples if told else (),
        cards=told.cards if told else (),
        notes=(f"No telemetry: {told.why}.",) if told and told.why else (),
    )


def run_subject(path: Path) -> Subject:
    """A run directory; what it lacks is noted.

    Raises:
        RunError: it holds no run, or one of its files is damaged.
    """
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} holds no run: no {CONFIG}")
    config = _record(RunConfig, _parsed(_text(path / CONFIG), str(path / CONFIG)), path / CONFIG)
    settings = config.settings
    notes = []
    if (path / PROFILE).is_file():
        document = _document(path / PROFILE)
    else:
        document = without_context(_as_run(settings).document())
        notes.append(
            f"This run left no {PROFILE} (its steps were replayed as a graph, or it was stopped"
            " early, or an older version trained it): times below are predicted, not measured."
        )
    lines = _lines(path / METRICS)
    metrics = tuple(
        _record(StepMetrics, line, place) for place, line in lines if not _tells_of_tests(line)
    )
    held_out = [
        _record(HeldOutMetrics, line, place) for place, line in lines if _tells_of_tests(line)
    ]
    if not metrics:
        notes.append(f"This run left no whole line in {METRICS}: there are no curves.")
    checkpoint = max(path.glob(CHECKPOINTS), default=None)
    if checkpoint is None:
        notes.append("This run left no checkpoint: there are no filters to show.")
    return Subject(
        name=path.resolve().name,
        kind="run",
        document=document,
        config=config,
        metrics=metrics,
        held_out=tuple(sorted(held_out, key=lambda tested: tested.step)),
        samples=_continued(
            [_record(TelemetrySample, line, place) for place, line in _lines(path / TELEMETRY)]
        ),
        filters=_filters(checkpoint, settings) if checkpoint else (),
        checkpoint=checkpoint.name if checkpoint else "",
        notes=tuple(notes),
    )


def without_context(document: PlanDocument) -> PlanDocument:
    """A plan's document with what a run counts against its budget: no card's context."""
    devices = []
    for device in document.memory.devices:
        kept = {key: size for key, size in device.by_category.items() if key != Category.CONTEXT}
        held = {"by_category": kept, "planned_bytes": sum(kept.values())}
        devices.append(device.model_copy(update=held))
    memory = document.memory.model_copy(update={"devices": tuple(devices)})
    return document.model_copy(update={"memory": memory})


def beside(subject: Subject, network: str) -> Wanted:
    """A network to be planned as what it is compared with ran: the same one on the same GPUs."""
    document = subject.document
    if subject.config is not None and document.network == load_network(network).name:
        return replace(_as_run(subject.config.settings), network=network)
    return Wanted(
        network=network,
        batch_size=document.batch_size,
        policy=document.policy,
        schedule=document.schedule,
        optimizer=document.optimizer,
    )


def _as_run(settings: RunSettings) -> Wanted:
    return Wanted(
        network=settings.network,
        batch_size=settings.batch_size,
        gpus=settings.gpus,
        partition=settings.partition,
        replicas=settings.replicas,
        variable_batch=settings.variable_batch,
        policy=settings.policy,
        schedule=settings.schedule,
        optimizer=settings.recipe.optimizer if settings.recipe else "sgd-2012",
        as_many=True,
    )


def _document(path: Path) -> PlanDocument:
    table = _parsed(_text(path), str(path))
    timed = isinstance(table, dict) and "step_s" in table
    return complete(_record(ProfileDocument if timed else PlanDocument, table, path))


def _record(kind: type[_Record], table: object, where: object) -> _Record:
    return read(kind, table, f"{where} is no document of this version", RunError)


def _parsed(text: str, where: str) -> object:
    try:
        return json_value(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where} is damaged: {reason_of(error)}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: not text") from error


def _lines(path: Path) -> list[tuple[str, object]]:
    """Every whole line, and its place; a run that was killed may have left half of the last one."""
    if not path.exists():
        return []
    text = _text(path)
    lines = text[: text.rfind("\n") + 1].splitlines()
    places = (f"{path}, line {number}," for number in range(1, len(lines) + 1))
    return [(place, _parsed(line, place)) for place, line in zip(places, lines, strict=True)]


def _tells_of_tests(line: object) -> bool:
    return isinstance(line, dict) and not line.keys().isdisjoint(_HELD_OUT)


def _continued(samples: Sequence[TelemetrySample]) -> tuple[TelemetrySample, ...]:
    """Samples whose clock goes on where a resumed run began again at 0."""
    continued, offset, before = [], 0.0, 0.0
    for sample in samples:
        if sample.time_s < before:
            offset += before
        before = sample.time_s
        continued.append(sample.model_copy(update={"time_s": before + offset}))
    return tuple(continued)


def _filters(path: Path, settings: RunSettings) -> tuple[Filters, ...]:
    """The first convolution's weights, column by column; nothing else of the file is read."""
    from safetensors import SafetensorError, safe_open

    layers = load_network(settings.network).layers
    first = next((layer for layer in layers if isinstance(layer, Convolution)), None)
    if first is None:
        return ()
    filters = []
    try:
        with safe_open(path, framework="numpy") as stored:
            names = set(stored.keys())
            for column in range(len(names)):
                name = f"{first.name}.{letter(column)}.weight"
                if name not in names:
                    break
                filters.append(
                    Filters(
                        layer=first.name,
                        column=letter(column),
                        device=f"GPU {column if settings.gpus > 1 else 0}",
                        weights=stored.get_tensor(name),
                    )
                )
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is damaged: {reason_of(error)}") from error
    return tuple(filters)

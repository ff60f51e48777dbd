"""What a page is on: a run directory, a profile document, or a network that is only planned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from alexsim.errors import RunError
from alexsim.machine.defaults import MACHINE
from alexsim.network.editions import load_network
from alexsim.network.layers import Convolution
from alexsim.network.network import letter
from alexsim.network.update_rules import Optimizer
from alexsim.plan.choices import Partition, Policy, Schedule
from alexsim.plan.spec import PlanSpec
from alexsim.profile.records import Ceilings
from alexsim.report.documents.profile import plan_document
from alexsim.report.page.earlier import complete
from alexsim.report.page.shape import CHECK, CHECKS, METRIC, SAMPLE, check, check_document, parsed
from alexsim.report.page.shape import CONFIG as CONFIG_SHAPE
from alexsim.report.pictures import Filters
from alexsim.simulate.simulator import enough_machines, on_machine, planned
from alexsim.train.files import CHECKPOINTS, CONFIG, METRICS, PROFILE, TELEMETRY

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Everything there is to show of one thing."""

    name: str
    kind: Literal["run", "profile", "plan"]
    document: dict[str, Any]
    """As ``profile_document`` or ``plan_document`` make it."""
    config: dict[str, Any] | None = None
    metrics: tuple[dict[str, Any], ...] = ()
    held_out: tuple[dict[str, Any], ...] = ()
    samples: tuple[dict[str, Any], ...] = ()
    """Of NVML, their time counted on over every resumption."""
    cards: tuple[str, ...] = ()
    filters: tuple[Filters, ...] = ()
    checkpoint: str = ""
    notes: tuple[str, ...] = ()
    """What is missing, and why."""

    @property
    def measured(self) -> bool:
        """Whether its step was timed, op by op."""
        return "step_s" in self.document

    @property
    def budget(self) -> tuple[int, str] | None:
        """Bytes that a GPU may use, and whose figure that is."""
        if self.config is not None:
            return self.config["settings"]["budget_bytes"], "budget of the run"
        usable = self.document.get("device_memory_bytes")
        return (usable, "usable memory of the predicted GPU") if usable else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A network to plan, and the machine to predict."""

    network: str
    batch_size: int = 128
    gpus: int | None = None
    partition: Partition = "columns"
    replicas: int = 1
    variable_batch: bool = False
    policy: Policy = "as-released"
    schedule: Schedule = "serial"
    optimizer: Optimizer = "sgd-2012"
    machine: str = MACHINE

    def document(self) -> dict[str, Any]:
        """Its plan, and the prediction."""
        machine = enough_machines(self.machine, (self.gpus or 1) * self.replicas)
        spec = PlanSpec(
            network=load_network(self.network),
            gpus=self.gpus,
            partition=self.partition,
            replicas=self.replicas,
            variable_batch=self.variable_batch,
            batch_size=self.batch_size,
            schedule=self.schedule,
            policy=self.policy,
            optimizer=self.optimizer,
        )
        device = machine.device
        sheet = Ceilings(flop_per_s=device.flop_per_s, bytes_per_s=device.memory_bytes_per_s.value)
        simulation = on_machine(spec, machine)
        return plan_document(planned(spec, machine, whole=True), simulation, sheet).document()


def plan_subject(wanted: Wanted) -> Subject:
    """A network that is only planned."""
    return Subject(name=wanted.network, kind="plan", document=wanted.document())


def profile_subject(path: Path) -> Subject:
    """A profile document.

    Raises:
        RunError: the file cannot be read, or is none.
    """
    document = _document(path)
    told = document.get("telemetry")
    notes = (f"No telemetry: {told['why']}.",) if told and told["why"] else ()
    return Subject(
        name=path.stem if path.stem != "profile" else path.resolve().parent.name,
        kind="profile",
        document=document,
        samples=tuple(told["samples"]) if told else (),
        cards=tuple(told["cards"]) if told else (),
        notes=notes,
    )


def run_subject(path: Path) -> Subject:
    """A run directory; what it lacks is noted.

    Raises:
        RunError: it holds no run, or one of its files is damaged.
    """
    if not (path / CONFIG).is_file():
        raise RunError(f"{path} holds no run: no {CONFIG}")
    config = parsed(_text(path / CONFIG), str(path / CONFIG))
    check(config, CONFIG_SHAPE, str(path / CONFIG))
    settings = config["settings"]
    if settings["budget_bytes"] < 1:
        raise RunError(f"{path / CONFIG}: a budget of {settings['budget_bytes']} bytes is none")
    notes = []
    if (path / PROFILE).is_file():
        document = _document(path / PROFILE)
    else:
        document = _as_run(settings).document()
        notes.append(
            f"This run left no {PROFILE} (its steps were replayed as a graph, or it was stopped"
            " early, or an older version trained it): times below are predicted, not measured."
        )
    lines = _lines(path / METRICS)
    metrics = _of(lines, METRIC, path / METRICS)
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
        held_out=_checked(lines, path / METRICS),
        samples=_continued(_of(_lines(path / TELEMETRY), SAMPLE, path / TELEMETRY)),
        filters=_filters(checkpoint, settings) if checkpoint else (),
        checkpoint=checkpoint.name if checkpoint else "",
        notes=tuple(notes),
    )


def beside(subject: Subject, network: str) -> Wanted:
    """A network to be planned as what it is compared with ran: the same one on the same GPUs."""
    document = subject.document
    if subject.config is not None and document["network"] == load_network(network).name:
        return replace(_as_run(subject.config["settings"]), network=network)
    return Wanted(
        network=network,
        batch_size=document["batch_size"],
        policy=document["policy"],
        schedule=document["schedule"],
        optimizer=document.get("optimizer", "sgd-2012"),
    )


def _as_run(settings: dict[str, Any]) -> Wanted:
    return Wanted(
        network=settings["network"],
        batch_size=settings["batch_size"],
        gpus=settings["gpus"],
        # Runs of earlier versions had nothing but columns.
        partition=cast(Partition, settings.get("partition", "columns")),
        replicas=settings.get("replicas", 1),
        variable_batch=settings.get("variable_batch", False),
        policy=cast(Policy, settings["policy"]),
        schedule=cast(Schedule, settings["schedule"]),
        optimizer=(settings.get("recipe") or {}).get("optimizer", "sgd-2012"),
    )


def _document(path: Path) -> dict[str, Any]:
    document = parsed(_text(path), str(path))
    check_document(document, str(path))
    complete(document)
    return cast(dict[str, Any], document)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: not text") from error


def _lines(path: Path) -> tuple[Any, ...]:
    """Every whole line; a run that was killed may have left half of the last one."""
    if not path.exists():
        return ()
    text = _text(path)
    whole = text[: text.rfind("\n") + 1].splitlines()
    return tuple(parsed(line, f"{path}, line {number},") for number, line in enumerate(whole, 1))


def _of(
    lines: tuple[Any, ...], shape: dict[str, Any], path: Path, *, only: str = ""
) -> tuple[dict[str, Any], ...]:
    """The lines on training steps, or those that have the key ``only``."""
    found = []
    for number, record in enumerate(lines, 1):
        told = [key for key in CHECKS if isinstance(record, dict) and key in record]
        if told == ([only] if only else []):
            check(record, shape, f"{path}, line {number},")
            found.append(record)
    return tuple(found)


def _checked(lines: tuple[Any, ...], path: Path) -> tuple[dict[str, Any], ...]:
    """Tests on held-out images: those on the way, and the last one on all of them."""
    found = [
        {"step": record["step"], "held_out": record[key]}
        for key in CHECKS
        for record in _of(lines, {"step": int, key: CHECK}, path, only=key)
    ]
    return tuple(sorted(found, key=lambda record: int(record["step"])))


def _continued(samples: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Samples whose clock goes on where a resumed run began again at 0."""
    found, offset, before = [], 0.0, 0.0
    for sample in samples:
        if sample["time_s"] < before:
            offset += before
        before = sample["time_s"]
        found.append(sample | {"time_s": before + offset})
    return tuple(found)


def _filters(path: Path, settings: dict[str, Any]) -> tuple[Filters, ...]:
    """The first convolution's weights, column by column; nothing else of the file is read."""
    from safetensors import SafetensorError, safe_open

    layers = load_network(settings["network"]).layers
    first = next((layer for layer in layers if isinstance(layer, Convolution)), None)
    if first is None:
        return ()
    found = []
    try:
        with safe_open(path, framework="numpy") as stored:
            names = set(stored.keys())
            for column in range(len(names)):
                name = f"{first.name}.{letter(column)}.weight"
                if name not in names:
                    break
                found.append(
                    Filters(
                        layer=first.name,
                        column=letter(column),
                        device=f"GPU {column if settings['gpus'] > 1 else 0}",
                        weights=stored.get_tensor(name),
                    )
                )
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    return tuple(found)

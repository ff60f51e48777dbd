"""``alexsim bench run --json``, ``bench compare --json`` and ``bench update --json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from alexsim.bench.records import Baseline, BenchRun, Value, Verdict
from alexsim.report.documents.base import Document, From, Number, Part


class HostRow(Part):
    """The machine and the versions that a figure came from."""

    cpu: str
    cores: int
    python: str
    torch: str
    commit: str
    date: str


class RatioRow(Part):
    """Median of a ratio over pairs, and an interval that holds the true one 19 times in 20."""

    median: Number
    low: Number
    high: Number
    pairs: int


class TimedRow(Part):
    """A case: our time over the reference's."""

    name: str
    ours: str
    reference: str
    ratio: RatioRow
    ours_s: float
    reference_s: float


class VerdictRow(Part):
    """A figure beside its baseline."""

    name: str
    status: str
    before: int | Number | str | None
    after: int | Number | str | None
    change: RatioRow | None
    """This run's ratio over the baseline's."""
    fails: bool


class BenchDocument(Document):
    """``alexsim bench run --json`` and ``compare --json``."""

    network: str
    host: HostRow
    counted: Annotated[dict[str, Value], From(lambda run: dict(run.counted))]
    """Figures that no machine changes."""
    timed: tuple[TimedRow, ...]
    left_out: Annotated[dict[str, str], From(lambda run: dict(run.left_out))]
    """Kinds of figures that were not made, and why."""
    verdicts: tuple[VerdictRow, ...]


def bench_document(run: BenchRun, verdicts: Sequence[Verdict] = ()) -> BenchDocument:
    """``alexsim bench run --json`` and ``compare --json``."""
    return BenchDocument.of(run, verdicts=tuple(verdicts))


class StoredRow(Part):
    """A case in a baseline: the ratio's median over several runs, its lowest and its highest."""

    ratio: float
    low: float
    high: float
    runs: int


class MachineRow(Part):
    """The ratios of one machine."""

    host: HostRow
    timed: Annotated[dict[str, StoredRow], From(lambda machine: dict(machine.timed))]


class BaselineDocument(Document):
    """``alexsim bench update --json``: the baseline that was written."""

    network: str
    host: HostRow
    """Where the counted figures were made."""
    counted: Annotated[dict[str, Value], From(lambda baseline: dict(baseline.counted))]
    machines: Annotated[dict[str, MachineRow], From(lambda baseline: dict(baseline.machines))]
    """By processor, cores and version of torch."""


def baseline_document(baseline: Baseline) -> BaselineDocument:
    """``alexsim bench update --json``."""
    return BaselineDocument.of(baseline)

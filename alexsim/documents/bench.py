"""``alexsim check bench run --json``, ``bench compare --json`` and ``bench update --json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from alexsim.bench.verdicts import Baseline, BenchRun, Host, Machine, Timed, Value, Verdict
from alexsim.documents.base import Document, From, Number, Part
from alexsim.profile.step_profile import Ratio


class VerdictRow(Part):
    """A figure beside its baseline."""

    name: str
    status: str
    before: int | Number | str | None
    after: int | Number | str | None
    change: Ratio | None
    """This run's ratio over the baseline's."""
    relative_change: Number | None
    """What the figure grew by, over what it was; of several numbers, the one that changed most."""
    fails: bool


class BenchDocument(Document):
    """``alexsim check bench run --json`` and ``compare --json``."""

    network: str
    host: Host
    counted: Annotated[dict[str, Value], From(lambda run: dict(run.counted))]
    """Figures that no machine changes."""
    timed: tuple[Timed, ...]
    left_out: Annotated[dict[str, str], From(lambda run: dict(run.left_out))]
    """Kinds of figures that were not made, and why."""
    verdicts: tuple[VerdictRow, ...]


def bench_document(run: BenchRun, verdicts: Sequence[Verdict] = ()) -> BenchDocument:
    """``alexsim check bench run --json`` and ``compare --json``."""
    return BenchDocument.of(run, verdicts=tuple(verdicts))


class BaselineDocument(Document):
    """``alexsim check bench update --json``: the baseline that was written."""

    network: str
    host: Host
    """Where the counted figures were made."""
    counted: Annotated[dict[str, Value], From(lambda baseline: dict(baseline.counted))]
    machines: Annotated[dict[str, Machine], From(lambda baseline: dict(baseline.machines))]
    """By processor, cores and version of torch."""


def baseline_document(baseline: Baseline) -> BaselineDocument:
    """``alexsim check bench update --json``."""
    return BaselineDocument.of(baseline)

"""Errors of predictions of published figures: by kind of row, by device and library, by fit."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alexsim.costs.correction import UNFITTED, Correction, scatter
from alexsim.fidelity.rows import Case
from alexsim.fidelity.validation import Prediction, may_fit, predict_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Errors of a set of predictions."""

    name: str
    rows: int
    mean_absolute_error: float
    median_absolute_error: float
    worst: float
    """The error with the largest absolute value, with its sign."""
    bias: float
    """Mean logarithm of predicted over measured time."""
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One library on one device: every row, their errors, and the roofline's."""

    device: str
    library: str
    predictions: tuple[Prediction, ...]
    summary: Summary
    roofline: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The mean error of whole-network steps beside what it may be, both in per cent."""

    rows: int
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """An error that is no number passes nothing."""
        return self.error <= self.limit

    @property
    def words(self) -> str:
        """What is said where it fails."""
        return (
            f"mean error of {self.rows} whole-network steps is {self.error:.1f} %,"
            f" the gate is {self.limit:.1f} %"
        )


def gate_of(summaries: Sequence[Summary], most: float) -> Gate | None:
    """At most ``most`` per cent, and half of the roofline's; None where no whole step is judged."""
    by_name = {summary.name: summary for summary in summaries}
    ours, roofline = by_name.get("steps, fitted"), by_name.get("steps, roofline")
    if ours is None or roofline is None or not ours.rows:
        return None
    limit = min(most, 50 * roofline.mean_absolute_error)
    return Gate(rows=ours.rows, error=100 * ours.mean_absolute_error, limit=limit)


def summarise(name: str, predictions: Sequence[Prediction]) -> Summary:
    """Errors and coverage of some predictions whose rows have values."""
    errors = [abs(p.error) for p in predictions]
    if not errors:
        return Summary(
            name=name,
            rows=0,
            mean_absolute_error=0,
            median_absolute_error=0,
            worst=0,
            bias=0,
            coverage=0,
        )
    return Summary(
        name=name,
        rows=len(errors),
        mean_absolute_error=sum(errors) / len(errors),
        median_absolute_error=statistics.median(errors),
        worst=max((p.error for p in predictions), key=abs),
        bias=sum(math.log1p(p.error) for p in predictions) / len(errors),
        coverage=sum(p.covered for p in predictions) / len(errors),
    )


def judged(case: Case) -> bool:
    """Rows that the gate looks at: one GPU's float32, first-hand or well documented."""
    row = case.row
    return (
        row.trust in ("A", "B")
        and row.precision == "fp32"
        and row.value is not None
        and may_fit(case)
    )


def is_step(case: Case) -> bool:
    """A whole network's step: forward and backward, with or without the update."""
    return not case.single_layer and case.passes in ("fwd+bwd", "train-step")


def by_kind(name: str, predictions: Sequence[Prediction]) -> list[Summary]:
    """Summaries of whole steps and of single layers."""
    return [
        summarise(f"{what}, {name}", [p for p in predictions if select(p.case)])
        for what, select in (("steps", is_step), ("layers", is_layer))
    ]


def judge(predictions: Sequence[Prediction], correction: Correction) -> list[Summary]:
    """Errors of the fitted models, the unfitted models and the roofline on the judged rows."""
    known = [p for p in predictions if p.case.row.value is not None]
    if not known:
        return []
    summaries = []
    if ours := [p for p in known if judged(p.case)]:
        cases = [p.case for p in ours]
        bare = predict_all(cases, UNFITTED)
        bound = scatter(correction.card.roofline_noise)
        roofline = predict_all(cases, bound, library="roofline")
        summaries += by_kind("fitted", ours) + by_kind("no fit at all", bare)
        summaries += by_kind("roofline", roofline)
    several = [p for p in known if p.case.row.n_gpus > 1]
    summaries.append(summarise("several GPUs (never fitted)", several))
    return [*summaries, summarise("every row, trusted or not", known)]


def roofline_of(
    predictions: Sequence[Prediction], *, done: Callable[[int], None] = lambda _: None
) -> list[Prediction]:
    """What the roofline predicts of those that have a value; ``done`` hears how many."""
    cases = [p.case for p in predictions if p.case.row.value is not None]
    return predict_all(cases, UNFITTED, library="roofline", done=done)


def by_device_and_library(
    predictions: Sequence[Prediction], bounds: Sequence[Prediction]
) -> tuple[Group, ...]:
    """Every device with every library: all rows, and the errors of those with a value beside those
    of the roofline, ``bounds``."""
    known = _parted([p for p in predictions if p.case.row.value is not None])
    bound = _parted(bounds)
    return tuple(
        Group(
            device=pair[0],
            library=pair[1],
            predictions=tuple(members),
            summary=summarise(", ".join(pair), known[pair]),
            roofline=summarise(f"{pair[0]}, roofline", bound[pair]),
        )
        for pair, members in sorted(_parted(predictions).items())
    )


def _parted(predictions: Sequence[Prediction]) -> dict[tuple[str, str], list[Prediction]]:
    pairs: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for each in predictions:
        pairs[each.case.device, each.case.library].append(each)
    return pairs


def is_layer(case: Case) -> bool:
    """A single layer, alone or inside a network."""
    return case.single_layer

"""Errors of predictions by what a reader asks of them: old cards or new, seen or not, op, size.

Whatever was predicted becomes a ``Judged``, in seconds and with the words that groups go by; from
there on nothing asks what kind of row it was.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from alexsim.fidelity.rows import Case
from alexsim.fidelity.validation import Prediction, flop_of, may_fit, seconds_of
from alexsim.machine.device import load_device
from alexsim.network.layers.kinds import kind_words
from alexsim.network.part import Part

WHOLE = "network"
"""The op of a row that timed a whole network."""
CUT = 10.0
"""Single errors count as no more than this (1,000 %) in means: one row in which something else was
timed must not be all that a mean says."""
_NEW = 2016
"""Cards of this year and later are new: Pascal was the first generation after AlexNet's decade."""
_PASSES = {
    "fwd": "forward",
    "bwd": "backward",
    "bwd-data": "grad_input",
    "bwd-weight": "grad_weight",
    "fwd+bwd": "step",
    "train-step": "step",
    "total": "step",
}
"""A step is forward and backward, with or without the update."""
_DECADES = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A prediction beside what was measured, in seconds, and its row in words."""

    id: str
    source: str
    """Who published it; empty where the table does not say."""
    device: str
    generation: str
    """The device's architecture."""
    year: int | None
    """The year in which the device came out."""
    device_seen: bool
    """Whether the fit had rows of the device."""
    library: str
    library_seen: bool
    op: str
    """Kind of layer or kernel; ``WHOLE`` of a whole network."""
    passes: str
    """The pass, in a word."""
    what: str
    """Network, layer, shape: what a reader would look for in the source."""
    batch_size: int | None
    precision: str
    cards: int
    flop: float
    """Of its multiply-adds, two each; 0 where it has none."""
    predicted_s: float
    low_s: float
    high_s: float
    """The bounds for nine in ten."""
    measured_s: float | None
    """None in a blind row."""
    roofline_s: float | None
    """What the roofline predicts; None where nobody asked it."""

    @property
    def log_ratio(self) -> float:
        """Logarithm of predicted over measured time."""
        assert self.measured_s is not None
        return math.log(self.predicted_s / self.measured_s)

    @property
    def error(self) -> float:
        """Predicted over measured time, minus one."""
        assert self.measured_s is not None
        return self.predicted_s / self.measured_s - 1

    @property
    def covered(self) -> bool:
        """Whether the measured time lies in the interval."""
        return self.measured_s is not None and self.low_s <= self.measured_s <= self.high_s


class Seen(NamedTuple):
    """What a fit had rows of, by name."""

    devices: frozenset[str]
    libraries: frozenset[str]


def seen_in(cases: Iterable[Case]) -> Seen:
    """What a fit to these has seen."""
    taught = [case for case in cases if may_fit(case)]
    return Seen(frozenset(c.device for c in taught), frozenset(c.library for c in taught))


def of_predictions(
    predictions: Iterable[Prediction], bounds: Iterable[Prediction], seen: Seen
) -> tuple[Judged, ...]:
    """Predictions of published figures; ``bounds`` are the roofline's of those with a value, in
    the same order."""
    bound = iter(bounds)
    return tuple(
        _judged(each, None if each.case.row.value is None else next(bound), seen)
        for each in predictions
    )


def _judged(prediction: Prediction, bound: Prediction | None, seen: Seen) -> Judged:
    case, row = prediction.case, prediction.case.row
    device = load_device(case.device)
    low, high = sorted(seconds_of(case, value) for value in (prediction.low, prediction.high))
    return Judged(
        id=row.id,
        source=row.source.partition(" ")[0],
        device=case.device,
        generation=device.architecture.name,
        year=device.year,
        device_seen=case.device in seen.devices,
        library=case.library,
        library_seen=case.library in seen.libraries,
        op=_op(case),
        passes=_PASSES[case.passes],
        what=_what(case),
        batch_size=case.batch_size,
        precision=case.precision,
        cards=row.n_gpus,
        flop=flop_of(case),
        predicted_s=seconds_of(case, prediction.value),
        low_s=low,
        high_s=high,
        measured_s=None if row.value is None else seconds_of(case, row.value),
        roofline_s=None if bound is None else seconds_of(case, bound.value),
    )


def _op(case: Case) -> str:
    if not case.single_layer:
        return WHOLE
    kinds = {kind_words(type(part.layer).__name__).singular for part in _timed(case)}
    return kinds.pop() if len(kinds) == 1 else "several layers"


def _timed(case: Case) -> Iterator[Part]:
    """The parts of a row of single layers, in one column."""
    for parts in case.network.parts:
        if parts[0].layer.name in case.layers:
            yield parts[0]


def _what(case: Case) -> str:
    if not case.single_layer:
        return f"{case.network.name}, {_shape(case.network.input_shape)}"
    layers = (
        f"{part.layer.name}: {_shape(part.input_shape)} to {_shape(part.output_shape)}"
        for part in _timed(case)
    )
    return f"{case.network.name} {'; '.join(layers)}"


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


# The axes


class Axis(NamedTuple):
    """One way to part rows into groups: a group's name, and a number that it is sorted by."""

    name: str
    title: str
    of: Callable[[Judged], tuple[float, str]]


def _seen(seen: bool) -> tuple[float, str]:
    return (0, "seen") if seen else (1, "never seen")


def _age(row: Judged) -> tuple[float, str]:
    if row.year is None:
        return 2, "year not stated"
    return (0, f"before {_NEW}") if row.year < _NEW else (1, f"{_NEW} and later")


def _size(row: Judged) -> tuple[float, str]:
    if row.flop < 1:
        return -1, "no multiply-adds"
    decade = min(math.floor(math.log10(row.flop) + 1e-12), 3 * len(_DECADES) - 1)
    unit, zeros = divmod(decade, 3)
    return decade, f"{10**zeros} to {10 ** (zeros + 1)} {_DECADES[unit]}"


AXES = (
    Axis("kind", "network or layer", lambda r: (0, WHOLE) if r.op == WHOLE else (1, "layer")),
    Axis("age", "year of the card", _age),
    Axis("device_seen", "device, by the fit", lambda r: _seen(r.device_seen)),
    Axis("library_seen", "library, by the fit", lambda r: _seen(r.library_seen)),
    Axis("generation", "generation", lambda r: (r.year or math.inf, r.generation)),
    Axis("op", "op", lambda r: (float(r.op != WHOLE), f"{r.op}, {r.passes}")),
    Axis("size", "size", _size),
    Axis("precision", "precision", lambda r: (0, r.precision)),
    Axis("cards", "cards", lambda r: (r.cards, f"{r.cards} card{'s' * (r.cards > 1)}")),
    Axis("library", "library", lambda r: (0, r.library)),
)
"""What a reader may ask by; sizes go by what was run, never by how long it took."""


# Their errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How far off predictions are; errors are predicted over measured time, minus one."""

    rows: int
    median_absolute_error: float
    mean_absolute_error: float
    """Errors over 1,000 % count as 1,000 %."""
    bias: float
    """Mean logarithm of predicted over measured time."""
    coverage: float
    """Share of measured times in their 90 % interval."""
    roofline_median_absolute_error: float | None
    """The same median of the roofline; null where it was not asked."""
    cut: int
    """Errors over 1,000 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Rows that are alike on an axis."""

    axis: str
    name: str
    plain: Errors
    """Every row counts alike."""
    alike: Errors
    """Every device of every source counts alike: means of their medians, means and shares."""
    pairs: int
    """So many devices times sources."""


def by_axis(rows: Iterable[Judged]) -> tuple[ErrorGroup, ...]:
    """Errors of all rows that have a measured time, then of every group of every axis."""
    misses = [_Miss.of(row) for row in rows if row.measured_s is not None]
    if not misses:
        return ()
    groups = [_group("all", "every row", misses)]
    for axis in AXES:
        members: dict[str, list[_Miss]] = defaultdict(list)
        places: dict[str, float] = {}
        for miss in misses:
            place, name = axis.of(miss.row)
            members[name].append(miss)
            places[name] = min(place, places.get(name, place))
        groups += [
            _group(axis.name, name, members[name])
            for name in sorted(members, key=lambda name: (places[name], name))
        ]
    return tuple(groups)


class _Miss(NamedTuple):
    """What errors are worked out of, once for all axes."""

    row: Judged
    error: float
    log_ratio: float
    covered: bool
    roofline: float | None

    @classmethod
    def of(cls, row: Judged) -> _Miss:
        assert row.measured_s is not None
        bound = None if row.roofline_s is None else abs(row.roofline_s / row.measured_s - 1)
        return cls(row, abs(row.error), row.log_ratio, row.covered, bound)


def _group(axis: str, name: str, misses: Sequence[_Miss]) -> ErrorGroup:
    pairs: dict[tuple[str, str], list[_Miss]] = defaultdict(list)
    for miss in misses:
        pairs[miss.row.device, miss.row.source].append(miss)
    plain = _errors(misses)
    each = [_errors(members) for members in pairs.values()] if len(pairs) > 1 else [plain]
    bounds = [e.roofline_median_absolute_error for e in each]
    known = [bound for bound in bounds if bound is not None]
    alike = Errors(
        rows=len(misses),
        median_absolute_error=fmean(e.median_absolute_error for e in each),
        mean_absolute_error=fmean(e.mean_absolute_error for e in each),
        bias=fmean(e.bias for e in each),
        coverage=fmean(e.coverage for e in each),
        roofline_median_absolute_error=fmean(known) if known else None,
        cut=plain.cut,
    )
    return ErrorGroup(axis=axis, name=name, plain=plain, alike=alike, pairs=len(pairs))


def _errors(misses: Sequence[_Miss]) -> Errors:
    # Lists, not generators: fmean counts what has no length, one by one.
    errors = [miss.error for miss in misses]
    bounds = [miss.roofline for miss in misses if miss.roofline is not None]
    cut = sum([error > CUT for error in errors])
    return Errors(
        rows=len(misses),
        median_absolute_error=median(errors),
        mean_absolute_error=fmean([min(error, CUT) for error in errors] if cut else errors),
        bias=fmean([miss.log_ratio for miss in misses]),
        coverage=sum([miss.covered for miss in misses]) / len(misses),
        roofline_median_absolute_error=median(bounds) if bounds else None,
        cut=cut,
    )

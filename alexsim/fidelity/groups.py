"""Errors of predictions by what a reader asks of them: old cards or new, seen or not, op, size."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from alexsim.fidelity.judged import WHOLE, Judged

CUT = 10.0
"""Single errors count as no more than this (1,000 %) in means: one row in which something else was
timed must not be all that a mean says."""
_NEW = 2016
"""Cards that came out in this year or later are new: Pascal and what followed."""
_DECADES = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")


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
    decade = min(len(str(int(row.flop))), 3 * len(_DECADES)) - 1
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

"""Errors of fits that had not seen what they predict: by class, and as a table."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np

from alexsim.costs.card import PLURAL, ErrorClass, LeftOut, Unit
from alexsim.fidelity.fit import nine_in_ten
from alexsim.machine.device import PLATFORMS, Platform
from alexsim.simulate.simulation import NINE_IN_TEN

FEW = 10
"""Rows of a device and source below which their errors are no group of the table."""
_CUT = 10.0
Scope = str
"""What a fit has not seen: rows, device, generation, source or library."""
SCOPES: tuple[Scope, ...] = ("rows", "device", "generation", "source", "library")
GIVEN: Scope = "device, 10 given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A prediction by a fit that had not seen its row, in seconds."""

    unit: Unit
    scope: Scope
    group: tuple[str, ...]
    reduced: bool
    platform: Platform
    predicted_s: float
    mechanism_s: float
    roofline_s: float
    measured_s: float

    @property
    def log_ratio(self) -> float:
        """Logarithm of predicted over measured time."""
        return math.log(self.predicted_s / self.measured_s)


def _groups(scored: Sequence[Scored]) -> dict[tuple[str, ...], list[Scored]]:
    groups: dict[tuple[str, ...], list[Scored]] = defaultdict(list)
    for each in scored:
        groups[each.group].append(each)
    return groups


def _errors(
    scored: Sequence[Scored], seconds: Callable[[Scored], float]
) -> tuple[float, float, int]:
    """Median and mean error, each a mean over groups, and how many groups have enough rows."""
    medians, means = [], []
    for rows in _groups(scored).values():
        if len(rows) < FEW:
            continue
        errors = [min(abs(seconds(row) / row.measured_s - 1), _CUT) for row in rows]
        medians.append(median(errors))
        means.append(fmean(errors))
    return (fmean(medians), fmean(means), len(means)) if means else (0.0, 0.0, 0)


def _noise(scored: Sequence[Scored]) -> float:
    """As ``nine_in_ten``, each group's rows counting as much as another's."""
    misses, weights = [], []
    for rows in _groups(scored).values():
        misses += [abs(row.log_ratio) for row in rows]
        weights += [1 / math.sqrt(len(rows))] * len(rows)
    order = np.argsort(misses)
    below = np.cumsum(np.array(weights)[order])
    at = int(np.searchsorted(below, 0.9 * below[-1]))
    return nine_in_ten([misses[order[min(at, len(order) - 1)]]])


def both_unseen(device: float, library: float, seen: float) -> float:
    """Noise where two things are unseen, from that of either alone: what each adds is added."""
    return math.sqrt(max(device**2 + library**2 - seen**2, device**2, library**2))


def _coverage(scored: Sequence[Scored]) -> float:
    """Share of rows in intervals of nine in ten that the other half of the groups gave."""
    groups = [rows for _, rows in sorted(_groups(scored).items())]
    held = []
    for half in (0, 1):
        teach = [row for rows in groups[1 - half :: 2] for row in rows]
        judge = [row for rows in groups[half::2] for row in rows]
        noise = _noise(teach or judge)
        held += [abs(row.log_ratio) <= NINE_IN_TEN * noise for row in judge]
    return fmean(held)


_SEEN: Mapping[Scope, tuple[bool, bool]] = {
    "rows": (True, True),
    "device": (False, True),
    "source": (True, False),
    "library": (True, False),
}
"""Whether the device and the library, or a kernel's timer, were seen when a scope was left out."""


def classes_of(scored: Sequence[Scored]) -> tuple[ErrorClass, ...]:
    """Errors by what was timed, where, what the fits had seen, and precision."""
    return tuple(
        error
        for unit in PLURAL
        for platform in PLATFORMS
        for reduced in (False, True)
        for error in _classes(
            [s for s in scored if (s.unit, s.platform, s.reduced) == (unit, platform, reduced)]
        )
    )


def _classes(scored: Sequence[Scored]) -> list[ErrorClass]:
    """The same of rows that are alike but for what the fits had seen."""
    by_seen: dict[tuple[bool, bool], ErrorClass] = {}
    of_library = "library" if scored and scored[0].unit in ("network", "layer") else "source"
    for scope in ("rows", "device", of_library):
        rows = [row for row in scored if row.scope == scope]
        if len(rows) < 2 * FEW:
            continue
        middle, mean, _ = _errors(rows, lambda row: row.predicted_s)
        device, library = _SEEN[scope]
        by_seen[device, library] = ErrorClass(
            unit=rows[0].unit,
            device_seen=device,
            library_seen=library,
            reduced=rows[0].reduced,
            platform=rows[0].platform,
            rows=len(rows),
            median=middle,
            mean=mean,
            noise=_noise(rows),
        )
    if len(by_seen) == 3:
        seen, card = by_seen[True, True], by_seen[False, True]
        other = by_seen[True, False]
        worse = max(card, other, key=lambda c: c.noise)
        noise = both_unseen(card.noise, other.noise, seen.noise)
        by_seen[False, False] = replace(worse, device_seen=False, library_seen=False, noise=noise)
    # Who knew less is never surer.
    least = by_seen[True, True].noise if (True, True) in by_seen else 0.0
    return [replace(c, noise=max(c.noise, least)) for c in by_seen.values()]


_MAKERS: Mapping[Platform, tuple[str, ...]] = {"cuda": (), "hip": ("AMD",), "cpu": ("CPUs",)}


def table_of(scored: Sequence[Scored]) -> tuple[LeftOut, ...]:
    """Errors by what was timed and what the fits had not seen, as ``validate`` prints them."""
    parts: dict[tuple[Unit, Platform, bool, Scope], list[Scored]] = defaultdict(list)
    for each in scored:
        parts[each.unit, each.platform, each.reduced, each.scope].append(each)
    order = [
        (unit, platform, reduced, scope)
        for unit in PLURAL
        for platform in PLATFORMS
        for reduced in (False, True)
        for scope in (*SCOPES, GIVEN)
    ]
    return tuple(
        line for part in order if part in parts and (line := _line(part, parts[part])) is not None
    )


def _line(part: tuple[Unit, Platform, bool, Scope], rows: Sequence[Scored]) -> LeftOut | None:
    unit, platform, reduced, scope = part
    ours = _errors(rows, lambda row: row.predicted_s)
    if not ours[2]:
        return None
    bare = _errors(rows, lambda row: row.mechanism_s)
    bound = _errors(rows, lambda row: row.roofline_s)
    words = [PLURAL[unit], *_MAKERS[platform], *(["half"] if reduced else [])]
    return LeftOut(
        what=", ".join(words),
        left_out=scope,
        groups=ours[2],
        rows=len(rows),
        median=ours[0],
        mean=ours[1],
        mechanism_median=bare[0],
        mechanism_mean=bare[1],
        roofline_median=bound[0],
        roofline_mean=bound[1],
        coverage=_coverage(rows),
    )

"""The whole fit: trees from measured kernels, coefficients from published figures, and the errors
of fits that had not seen a card, a generation, a source, a library, or some rows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from statistics import fmean, median

import numpy as np

from alexsim.fidelity.boosting import Growth
from alexsim.fidelity.fit import fit, nine_in_ten
from alexsim.fidelity.kernel_fit import (
    GROWTH,
    chip,
    few_of_each,
    grown,
    kernel_observations,
    predicted_s,
    sample,
    teaching,
)
from alexsim.fidelity.kernel_judged import TRUST
from alexsim.fidelity.kernel_rows import Call, KernelRow
from alexsim.fidelity.rows import Case
from alexsim.fidelity.validation import (
    fit_to,
    may_fit,
    measured_s,
    predict_all,
    roofline_noise,
    seconds_of,
)
from alexsim.machine.device import Device, load_device
from alexsim.simulate.costs.card import Card, ErrorClass, LeftOut, Unit, both_unseen
from alexsim.simulate.costs.correction import UNFITTED, Correction
from alexsim.simulate.simulation import NINE_IN_TEN

_FOLDS = 5
_FEW = 10
"""Rows of a device and source below which their errors are no group of the table."""
_CUT = 10.0
_WHAT: Mapping[Unit, str] = {
    "convolution": "convolutions", "product": "products", "memory": "memory ops",
    "layer": "layers in frameworks", "network": "whole networks",
}  # fmt: skip
Scope = str
"""What a fit has not seen: rows, device, generation, source or library."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """All that teaches."""

    stated: Sequence[Call]
    chosen: Sequence[Call]
    cases: Sequence[Case]
    growth: Growth


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A prediction by a fit that had not seen its row, in seconds."""

    unit: Unit
    scope: Scope
    group: tuple[str, ...]
    reduced: bool
    predicted_s: float
    mechanism_s: float
    roofline_s: float
    measured_s: float

    @property
    def log_ratio(self) -> float:
        """Logarithm of predicted over measured time."""
        return math.log(self.predicted_s / self.measured_s)


def _fold(name: str) -> str:
    return str(blake2b(name.encode(), digest_size=4).digest()[0] % _FOLDS)


_device: Callable[[str], Device] = cache(load_device)


def _of_call(scope: Scope, call: Call) -> str:
    match scope:
        case "rows":
            return _fold(call.row.id)
        case "device":
            return chip(call.device)
        case "generation":
            return call.generation
        case "source":
            return call.row.source
    return ""


def _of_case(scope: Scope, case: Case) -> str:
    match scope:
        case "rows":
            return _fold(f"{case.network.name} {sorted(case.layers)} {case.passes}")
        case "device":
            return chip(case.device)
        case "generation":
            return _device(case.device).architecture.generation
        case "source":
            return case.row.source.partition(" ")[0]
    return case.library


GIVEN: Scope = "device, ten kernels given"
_GIVEN, _EACH = 10, 20
SCOPES: tuple[Scope, ...] = ("rows", "device", "generation", "source", "library")


def fit_everything(
    kernels: Iterable[KernelRow],
    cases: Sequence[Case],
    data: Mapping[str, str],
    *,
    growth: Growth = GROWTH,
    workers: int = 1,
    scopes: Sequence[Scope] = SCOPES,
    done: Callable[[int], None] = lambda _: None,
) -> Correction:
    """The fit to ship, with its card.

    Args:
        kernels: rows of measured kernels; at most some hundred of each group teach.
        cases: published figures; those that a fit may use teach.
        data: digests of the files that both are from, by name.
        growth: of the trees; those of left-out fits are half as many.
        workers: processes that fit without something.
        scopes: what is left out in turn.
        done: hears how many fits are finished.
    """
    rows = sample(kernels)
    stated, chosen = teaching(rows)
    taught = [case for case in cases if may_fit(case)]
    known = _Known(stated=stated, chosen=chosen, cases=taught, growth=growth)
    jobs = _jobs(known, scopes)
    forests = grown([*stated, *chosen], growth)
    figures = kernel_observations(few_of_each(stated, _EACH))
    correction = fit_to(taught, Correction(forests=forests), figures)
    done(1)
    scored: list[Scored] = []
    if workers > 1:
        with ProcessPoolExecutor(workers, initializer=_begin, initargs=(known, correction)) as pool:
            for count, part in enumerate(pool.map(_without, jobs), start=2):
                scored += part
                done(count)
    else:
        _begin(known, correction)
        for count, job in enumerate(jobs, start=2):
            scored += _without(job)
            done(count)
    devices = Counter(_device(call.device).name for call in stated)
    devices.update(_device(case.device).name for case in taught)
    inside = [
        math.log(each.value / case.row.value)
        for case, each in zip(taught, predict_all(taught, correction), strict=True)
        if case.row.value
    ]
    card = Card(
        fitted_to=f"{len(stated):,} timed kernels, {len(taught):,} published figures of one GPU",
        data=data,
        noise=nine_in_ten(inside),
        roofline_noise=roofline_noise(taught),
        devices=dict(sorted(devices.items())),
        libraries=dict(sorted(Counter(case.library for case in taught).items())),
        sources=dict(sorted(Counter(call.row.source for call in stated).items())),
        classes=_classes(scored),
        left_out=_table(scored),
    )
    return replace(correction, card=card)


_Job = tuple[Scope, tuple[str, ...]]
_known: list[tuple[_Known, Correction]] = []
"""What a worker was given when it began."""


def _begin(known: _Known, correction: Correction) -> None:
    _known[:] = [(known, correction)]


def _jobs(known: _Known, scopes: Sequence[Scope]) -> list[_Job]:
    """Each value of each scope; those with few rows of kernels and no figures together."""
    jobs: list[_Job] = []
    for scope in scopes:
        calls = Counter(_of_call(scope, call) for call in known.stated)
        figures = Counter(_of_case(scope, case) for case in known.cases)
        keys = sorted({*calls, *figures} - {""})
        small = tuple(key for key in keys if calls[key] < 50 and not figures[key])
        jobs += [(scope, (key,)) for key in keys if key not in small]
        if small:
            jobs.append((scope, small))
    return jobs


def _without(job: _Job) -> list[Scored]:
    """Predictions of what a job leaves out, by a fit to the rest."""
    scope, keys = job
    known, whole = _known[0]
    held = [call for call in known.stated if _of_call(scope, call) in keys]
    cases = [case for case in known.cases if _of_case(scope, case) in keys]
    forests = whole.forests
    if held:
        others = [c for c in (*known.stated, *known.chosen) if _of_call(scope, c) not in keys]
        only = None if cases else {(c.learned.kind, c.learned.realm) for c in held}
        half = replace(known.growth, trees=known.growth.trees // 2, rate=known.growth.rate * 1.75)
        forests = grown(others, half, only=only)
    scored: list[Scored] = []
    trust = TRUST if scope == "source" else 1.0
    left = [call for call in known.stated if _of_call(scope, call) not in keys]
    others_of = [case for case in known.cases if _of_case(scope, case) not in keys]
    figures = kernel_observations(few_of_each(left, _EACH))
    correction = fit_to(others_of, Correction(forests=forests), figures)
    scored += _of_calls(held, predicted_s(held, correction, trust), scope)
    if scope == "device" and held:
        scored += _given(held, cases, correction)
    return scored + _of_cases(cases, correction, scope)


def _of_cases(cases: Sequence[Case], correction: Correction, scope: Scope) -> list[Scored]:
    models = (
        predict_all(cases, correction),
        predict_all(cases, UNFITTED),
        predict_all(cases, UNFITTED, library="roofline"),
    )
    scored = []
    for case, *three in zip(cases, *models, strict=True):
        ours, bare, bound = (seconds_of(case, each.value) for each in three)
        scored.append(
            Scored(
                unit="layer" if case.single_layer else "network",
                scope=scope,
                group=(case.device, case.row.source.partition(" ")[0]),
                reduced=case.precision != "fp32",
                predicted_s=ours,
                mechanism_s=bare,
                roofline_s=bound,
                measured_s=measured_s(case),
            )
        )
    return scored


def _of_calls(calls: Sequence[Call], times: np.ndarray, scope: Scope) -> list[Scored]:
    return [
        Scored(
            unit=call.learned.kind,
            scope=scope,
            group=(
                call.row.device,
                call.row.source,
                call.row.op,
                "stated" if call.row.algorithm and call.row.op == "conv" else "",
            ),
            reduced=call.learned.realm == "half",
            predicted_s=float(seconds),
            mechanism_s=call.base_s + call.overhead_s,
            roofline_s=call.roofline_s + call.overhead_s,
            measured_s=call.row.time_s or math.nan,
        )
        for call, seconds in zip(calls, times, strict=True)
    ]


def _given(held: Sequence[Call], cases: Sequence[Case], correction: Correction) -> list[Scored]:
    """The same where ten kernels of each kind were measured on the card, by each source's timer."""
    scored = []
    by_source: dict[tuple[str, str, str], list[Call]] = defaultdict(list)
    for call in held:
        by_source[call.device, call.row.source, call.learned.kind].append(call)
    for calls in by_source.values():
        ten, rest = calls[:_GIVEN], calls[_GIVEN:]
        if len(rest) >= _FEW:
            conditioned = fit(kernel_observations(ten), correction, given=True)
            scored += _of_calls(rest, predicted_s(rest, conditioned), GIVEN)
    if cases:
        ten = few_of_each(held, _GIVEN)
        conditioned = fit(kernel_observations(ten), correction, given=True)
        scored += _of_cases(cases, conditioned, GIVEN)
    return scored


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
        if len(rows) < _FEW:
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


def _classes(scored: Sequence[Scored]) -> tuple[ErrorClass, ...]:
    classes: list[ErrorClass] = []
    for unit in _WHAT:
        of_library = "library" if unit in ("network", "layer") else "source"
        for reduced in (False, True):
            by_seen: dict[tuple[bool, bool], ErrorClass] = {}
            for scope in ("rows", "device", of_library):
                rows = [s for s in scored if (s.unit, s.reduced, s.scope) == (unit, reduced, scope)]
                if len(rows) < 2 * _FEW:
                    continue
                middle, mean, _ = _errors(rows, lambda row: row.predicted_s)
                device, library = _SEEN[scope]
                by_seen[device, library] = ErrorClass(
                    unit=unit,
                    device_seen=device,
                    library_seen=library,
                    reduced=reduced,
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
                by_seen[False, False] = replace(
                    worse, device_seen=False, library_seen=False, noise=noise
                )
            classes += by_seen.values()
    return tuple(classes)


def _table(scored: Sequence[Scored]) -> tuple[LeftOut, ...]:
    lines = []
    for unit, what in _WHAT.items():
        for reduced in (False, True):
            for scope in (*SCOPES, GIVEN):
                rows = [s for s in scored if (s.unit, s.reduced, s.scope) == (unit, reduced, scope)]
                ours = _errors(rows, lambda row: row.predicted_s)
                if not ours[2]:
                    continue
                bare = _errors(rows, lambda row: row.mechanism_s)
                bound = _errors(rows, lambda row: row.roofline_s)
                lines.append(
                    LeftOut(
                        what=f"{what}, reduced precision" if reduced else what,
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
                )
    return tuple(lines)

"""The whole fit: trees from measured kernels, coefficients from published figures, and the errors
of fits that had not seen a card, a generation, a source, a library, or some rows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b

import numpy as np

from alexsim.costs.card import Card
from alexsim.costs.correction import UNFITTED, Correction
from alexsim.fidelity.boosting import Growth
from alexsim.fidelity.fit import fit, nine_in_ten
from alexsim.fidelity.kernel_calls import Call
from alexsim.fidelity.kernel_fit import (
    GROWTH,
    Choices,
    chip,
    few_of_each,
    grown,
    kernel_observations,
    predicted_s,
    sample,
    teaching,
    thinned,
)
from alexsim.fidelity.kernel_judged import TRUST
from alexsim.fidelity.kernel_rows import KernelRow
from alexsim.fidelity.left_out import FEW, GIVEN, SCOPES, Scope, Scored, classes_of, table_of
from alexsim.fidelity.rows import Case, sheet_of
from alexsim.fidelity.validation import (
    fit_to,
    may_fit,
    measured_s,
    predict_all,
    roofline_noise,
    seconds_of,
)
from alexsim.spawn import SPAWN

_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """All that teaches."""

    stated: Sequence[Call]
    chosen: Sequence[Call]
    cases: Sequence[Case]
    growth: Growth


def _fold(name: str) -> str:
    return str(blake2b(name.encode(), digest_size=4).digest()[0] % _FOLDS)


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
            return sheet_of(case.device).architecture.generation
        case "source":
            return case.row.source.partition(" ")[0]
    return case.library


_GIVEN, _EACH = 10, 20


def fit_everything(
    kernels: Iterable[KernelRow],
    cases: Sequence[Case],
    data: Mapping[str, str],
    *,
    growth: Growth = GROWTH,
    workers: int = 1,
    scopes: Sequence[Scope] = SCOPES,
    done: Callable[[float], None] = lambda _: None,
) -> Correction:
    """The fit to ship, with its card.

    Args:
        kernels: rows of measured kernels; at most some hundred of each group teach.
        cases: published figures; those that a fit may use teach.
        data: digests of the files that both are from, by name.
        growth: of the trees; those of left-out fits are half as many.
        workers: processes that fit without something.
        scopes: what is left out in turn.
        done: hears the share of all fits that is finished.
    """
    choices = Choices()
    rows = sample(choices.noted(kernels))
    stated, chosen = teaching(rows, choices)
    taught = [case for case in cases if may_fit(case)]
    known = _Known(stated=stated, chosen=chosen, cases=taught, growth=growth)
    jobs = _jobs(known, scopes)
    fits = len(jobs) + 1
    forests = grown([*stated, *chosen], growth)
    figures = kernel_observations(few_of_each(stated, _EACH))
    correction = fit_to(taught, Correction(forests=forests), figures)
    done(1 / fits)
    scored: list[Scored] = []
    if workers > 1:
        begin = partial(_begin, known, correction)
        with ProcessPoolExecutor(workers, mp_context=SPAWN, initializer=begin) as pool:
            for count, part in enumerate(pool.map(_without, jobs), start=2):
                scored += part
                done(count / fits)
    else:
        _begin(known, correction)
        for count, job in enumerate(jobs, start=2):
            scored += _without(job)
            done(count / fits)
    devices = Counter(sheet_of(call.device).name for call in stated)
    devices.update(sheet_of(case.device).name for case in taught)
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
        kernel_sources=dict(sorted(Counter(call.row.source for call in stated).items())),
        classes=classes_of(scored),
        left_out=table_of(scored),
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
        forests = grown(others, thinned(known.growth), only=only)
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
                platform=sheet_of(case.device).architecture.platform,
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
            reduced=call.reduced,
            platform=sheet_of(call.device).architecture.platform,
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
        every = max(1, len(calls) // _GIVEN)
        ten = calls[::every][:_GIVEN]
        rest = [c for place, c in enumerate(calls) if place % every or place >= every * _GIVEN]
        if len(rest) >= FEW:
            conditioned = fit(kernel_observations(ten, given=True), correction, given=True)
            scored += _of_calls(rest, predicted_s(rest, conditioned), GIVEN)
    if cases:
        ten = few_of_each(held, _GIVEN)
        conditioned = fit(kernel_observations(ten, given=True), correction, given=True)
        scored += _of_cases(cases, conditioned, GIVEN)
    return scored

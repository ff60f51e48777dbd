"""Evidence of one's own: a few measured rows condition the shipped fit.

The shipped coefficients and their covariance are the prior (Bayes' rule on logarithms, as in
``fit``): rows of a card move that card's coefficients most, and those that it shares with others
of its generation, its library or its framework less, so that what was measured on one card carries
over to another as ratios.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from alexsim.costs.correction import Correction
from alexsim.errors import AlexsimError
from alexsim.fidelity.fermi_rows import COLUMNS as FERMI_COLUMNS
from alexsim.fidelity.fermi_rows import fermi_figures, fermi_observations, read_fermi_rows
from alexsim.fidelity.fit import Observation, fit, nine_in_ten
from alexsim.fidelity.kernel_calls import call_of
from alexsim.fidelity.kernel_fields import Unlike
from alexsim.fidelity.kernel_fit import kernel_observations
from alexsim.fidelity.kernel_rows import are_kernels, read_kernels
from alexsim.fidelity.row_files import header_of, read_rows
from alexsim.fidelity.validation import cases, observations

_FITS, _LEAST = 20, 0.05
"""Fits to parts of the rows; scatter below which few rows say nothing."""
_MOST = 5000
"""Rows that are few: more make a fit of their own (`alexsim check fit`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRow:
    """A given row beside both predictions, in seconds."""

    id: str
    measured_s: float
    shipped_s: float
    given_s: float
    """By the fit that was given other rows alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a table of rows gave."""

    file: str
    rows: int
    """That condition the fit."""
    left_out: Mapping[str, int]
    """The others, by rule."""
    correction: Correction
    beside: tuple[GivenRow, ...]
    """Each row beside what the shipped fit says of it, and the fit given others: all but it or, of
    more than ``_FITS`` rows, but it and some more."""


def given(path: str, base: Correction) -> Given:
    """The shipped fit, conditioned on the rows of a table.

    Any table will do that ``validate`` takes, ``published``, and ``fermi``, the shipped figures of
    cards of 2010 and 2011, of which none is AlexNet's: rows of one GPU with a value.

    Raises:
        ProfileError: the table cannot be read.
        AlexsimError: no row of it can condition the fit, or they are too many.
    """
    figures, left_out = _observations(path)
    if len(figures) > _MOST:
        raise AlexsimError(
            f"{path} has {len(figures):,} rows to condition the fit, of {_MOST:,} at most;"
            " `alexsim check fit` fits to tables"
        )
    name = Path(path).name
    rows = _beside(figures, base)
    conditioned = replace(
        fit(figures, base, given=True),
        evidence=f"{len(figures):,} row{'s' * (len(figures) != 1)} of {name}",
        alike=frozenset(map(_device_of, figures)),
        alike_noise=max(nine_in_ten([math.log(r.given_s / r.measured_s) for r in rows]), _LEAST),
    )
    return Given(
        file=name, rows=len(figures), left_out=left_out, correction=conditioned, beside=rows
    )


def _device_of(figure: Observation) -> str:
    traits = (trait for costs in figure.ops for cost in costs for trait in cost.traits)
    return next((trait[7:] for trait in traits if trait.startswith("device:")), "")


def _beside(figures: Sequence[Observation], base: Correction) -> tuple[GivenRow, ...]:
    parts = min(_FITS, len(figures))
    rows: list[tuple[int, GivenRow]] = []
    for part in range(parts):
        others = [figure for place, figure in enumerate(figures) if place % parts != part]
        conditioned = fit(others, base, given=True) if others else base
        for place in range(part, len(figures), parts):
            figure = figures[place]
            row = GivenRow(
                id=figure.id,
                measured_s=figure.measured_s,
                shipped_s=_seconds(figure, base),
                given_s=_seconds(figure, conditioned),
            )
            rows.append((place, row))
    return tuple(row for _, row in sorted(rows, key=itemgetter(0)))


def _seconds(figure: Observation, correction: Correction) -> float:
    times = correction.times(figure.ops, waits=figure.waits)
    return math.fsum(seconds for op in times for seconds in op)


def _observations(path: str) -> tuple[Sequence[Observation], Mapping[str, int]]:
    figures: list[Observation] = []
    left_out, whys = Counter[str](), Counter[str]()
    if header_of(path).issuperset(FERMI_COLUMNS):
        rows = read_fermi_rows(path)
        figures = fermi_observations(rows)
        left_out.update(left.why for left in fermi_figures(rows)[1])
    elif are_kernels(path):
        calls = []
        for row in read_kernels(path):
            if row.time_s is None:
                left_out["no value"] += 1
                continue
            try:
                calls.append(call_of(row))
            except Unlike as why:
                left_out[str(why).partition(": ")[0]] += 1
                whys[str(why)] += 1
        figures = kernel_observations(calls, given=True)
    else:
        known, excluded = cases(read_rows(path))
        figures = observations(known)
        left_out.update(each.rule for each in excluded)
        whys.update(each.why for each in excluded)
        if more := len(known) - len(figures):
            left_out["not a measured row of one GPU that a fit may use"] += more
    if not figures:
        rules = "; ".join(f"{why} ({count})" for why, count in (whys or left_out).most_common(3))
        hint = (
            "; cards are named as in `alexsim hardware list` or are TOML files, libraries as for"
            " `--library`, such as cudnn-v8, or as `pytorch 2`, precisions fp32, tf32, fp16 or amp"
        )
        raise AlexsimError(
            f"{path}: no row can condition the fit: {rules or 'it is empty'}{hint * bool(whys)}"
        )
    return figures, dict(left_out.most_common())

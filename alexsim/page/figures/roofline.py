"""The roofline: what each pass reached, beside what arithmetic and memory allow.

Williams, Waterman and Patterson, CACM 52(4), 2009: a pass of so many FLOP per byte can run no
faster than the lower of the machine's peak and its memory rate times that intensity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from plotly.graph_objects import Figure

from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.step import Rates
from alexsim.page.figures.passes import HUES, NAMES, Pass, passes_of
from alexsim.page.figures.style import LIGHT, figure, words
from alexsim.page.figures.text import digits, percent, scaled, seconds

_SHAPES = {
    "forward": "circle",
    "grad_input": "triangle-up",
    "grad_weight": "square",
    "update": "diamond",
}
_NAMED = 0.03
"""Share of the time from which on a pass has its layer's name beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a pass reached."""

    of: Pass
    intensity: float
    """FLOP per byte moved."""
    flop_per_s: float
    roof_flop_per_s: float
    seconds: float


def rates_of(document: PlanDocument) -> tuple[Rate, ...]:
    """Of every pass whose FLOP, bytes and time are known; of one GPU, where that is predicted."""
    measured = isinstance(document, ProfileDocument)
    devices = 1 if measured else len(document.memory.devices)
    rates = []
    for each in passes_of(document):
        spent = each.measured_s if measured else each.predicted_s
        if each.flop and each.moved_bytes and spent:
            intensity = each.flop / each.moved_bytes
            ceilings = document.ceilings
            rates.append(
                Rate(
                    of=each,
                    intensity=intensity,
                    flop_per_s=each.flop / devices / spent,
                    roof_flop_per_s=min(ceilings.flop_per_s, intensity * ceilings.bytes_per_s),
                    seconds=spent,
                )
            )
    return tuple(rates)


def roofline(document: PlanDocument) -> Figure | None:
    """A dot per pass, its area by its time, under both ceilings; None where no pass has a rate."""
    rates = rates_of(document)
    if not rates:
        return None
    ceilings = document.ceilings
    ridge = ceilings.flop_per_s / ceilings.bytes_per_s
    low = min(ridge, *(rate.intensity for rate in rates)) / 1.6
    high = max(ridge, *(rate.intensity for rate in rates)) * 1.8
    # A stray pass of a microsecond must not squeeze the others to the top.
    slowest = max(min(rate.flop_per_s for rate in rates), ceilings.flop_per_s / 1e6)
    fastest = max(ceilings.flop_per_s, *(rate.flop_per_s for rate in rates))
    named = _named(rates)
    return figure(
        [*_roof(ceilings, low, ridge, high), *_dots(rates, named)],
        height=500,
        x="FLOP per byte moved",
        y="FLOP/s",
        xaxis={"type": "log", "dtick": 1, "range": [math.log10(low), math.log10(high)]},
        yaxis={
            "type": "log",
            "dtick": 1,
            "range": [math.log10(slowest / 1.8), math.log10(fastest * 2.5)],
            "exponentformat": "SI",
        },
        legend={"itemsizing": "constant"},
    )


def _roof(ceilings: Rates, low: float, ridge: float, high: float) -> Iterator[dict[str, Any]]:
    memory = f"memory: {scaled(ceilings.bytes_per_s, 'B/s')}"
    arithmetic = f"arithmetic: {scaled(ceilings.flop_per_s, 'FLOP/s')}"
    slope = [low, ridge], [low * ceilings.bytes_per_s, ceilings.flop_per_s]
    flat = [ridge, high], [ceilings.flop_per_s, ceilings.flop_per_s]
    for name, (x, y), dash in ((memory, slope, "dash"), (arithmetic, flat, "solid")):
        yield {
            "type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "hoverinfo": "text",
            "hovertext": name, "line": {"color": LIGHT["ink"], "width": 2, "dash": dash},
        }  # fmt: skip


def _dots(rates: tuple[Rate, ...], named: set[str]) -> Iterator[dict[str, Any]]:
    whole = sum(rate.seconds for rate in rates)
    for name, title in NAMES.items():
        # The longest first, so that no dot hides a smaller one.
        chosen = sorted((r for r in rates if r.of.name == name), key=lambda r: -r.seconds)
        if chosen:
            yield {
                "type": "scatter", "mode": "markers+text", "name": title,
                "x": [rate.intensity for rate in chosen],
                "y": [rate.flop_per_s for rate in chosen],
                "text": [words(r.of.layer) if r.of.title in named else "" for r in chosen],
                "textposition": "top center", "textfont": {"size": 11},
                "hoverinfo": "text", "hovertext": [_hover(rate, whole) for rate in chosen],
                "marker": {
                    "color": LIGHT[HUES[name]], "symbol": _SHAPES[name], "opacity": 0.9,
                    "size": [8 + 26 * math.sqrt(rate.seconds / whole) for rate in chosen],
                    "line": {"color": LIGHT["ground"], "width": 1.2},
                },
            }  # fmt: skip


def _hover(rate: Rate, whole: float) -> str:
    return (
        f"{words(rate.of.title)}: {scaled(rate.flop_per_s, 'FLOP/s')},"
        f" {percent(rate.flop_per_s / rate.roof_flop_per_s)} of the roof<br>"
        f"{digits(rate.intensity)} FLOP per byte<br>"
        f"{seconds(rate.seconds)}, {percent(rate.seconds / whole)} of these passes"
    )


def _named(rates: tuple[Rate, ...]) -> set[str]:
    """Long passes, but none beside one that takes longer: names would lie on each other."""
    chosen: list[Rate] = []
    whole = sum(rate.seconds for rate in rates)
    for rate in sorted(rates, key=lambda rate: -rate.seconds):
        apart = all(
            abs(math.log10(rate.intensity / other.intensity)) > 0.2
            or abs(math.log10(rate.flop_per_s / other.flop_per_s)) > 0.25
            for other in chosen
        )
        if apart and rate.seconds >= _NAMED * whole:
            chosen.append(rate)
    return {rate.of.title for rate in chosen}

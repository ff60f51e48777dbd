"""Predicted against measured times: a dot per row, how far off they are, and how often intervals
hold."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import Any

from plotly.graph_objects import Figure

from alexsim.fidelity.judged import Judged
from alexsim.fidelity.sample import sample
from alexsim.page.figures.style import LIGHT, SERIES, colour, figure, words
from alexsim.page.figures.text import digits, percent, seconds

MOST_DOTS = 20_000
"""Of more rows a sample is drawn."""
_MOST_SVG = 3000
"""More dots than this are drawn by WebGL: as SVG they would take seconds."""
_FACTORS = (
    (1.0, "solid", "as measured"),
    (1.25, "dash", "1.25 times off"),
    (2.0, "dot", "2 times off"),
)
_SYMBOLS = ("circle", "diamond", "square", "triangle-up")
"""Dots of the ninth and later groups have other forms, as there are eight colours."""
_PER_OCTAVE, _OCTAVES = 8, 2
"""Bars of the histogram: eight from a time to its double, from a quarter to four times."""
_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_WITHIN_90 = NormalDist().inv_cdf(0.95)
"""Standard deviations on either side that hold nine in ten."""


def dots_of(rows: Sequence[Judged]) -> tuple[tuple[Judged, ...], int]:
    """The rows that are drawn, and one in how many that is, of each device with each op.

    Rows without a measured time are not among them.
    """
    known = [row for row in rows if row.measured_s is not None]
    every = -(-len(known) // MOST_DOTS)
    if every < 2:
        return tuple(known), 1
    return sample(known, lambda row: (row.device, row.source, row.op), every=every), every


def scatter(rows: Sequence[Judged], group_of: Callable[[Judged], tuple[float, str]]) -> Figure:
    """Predicted over measured time of rows that have both, in the colours of their groups; hollow
    where the fit has not seen the device."""
    members: dict[tuple[float, str], list[Judged]] = defaultdict(list)
    for row in rows:
        members[group_of(row)].append(row)
    names: dict[str, list[Judged]] = {}
    for (_, name), group in sorted(members.items()):
        names.setdefault(name, []).extend(group)
    times = [time for row in rows for time in (row.predicted_s, row.measured_s or 0.0)]
    low, high = math.log10(min(times)) - 0.15, math.log10(max(times)) + 0.15
    axis = {"type": "log", "dtick": 1, "range": [low, high], "exponentformat": "SI"}
    kind = "scatter" if len(rows) <= _MOST_SVG else "scattergl"
    return figure(
        [*_dots(names, kind, len(rows)), *_lines(10**low, 10**high, kind)],
        height=560,
        x="measured, s",
        y="predicted, s",
        xaxis=axis,
        yaxis=axis,
        hovermode="closest",
        legend={"itemsizing": "constant"},
    )


def _lines(low: float, high: float, kind: str) -> Iterator[dict[str, Any]]:
    for factor, dash, name in _FACTORS:
        for each in sorted({factor, 1 / factor}, reverse=True):
            yield {
                "type": kind, "mode": "lines", "name": name, "legendgroup": name,
                "showlegend": each >= 1, "x": [low, high], "y": [low * each, high * each],
                "hoverinfo": "skip", "line": {"color": LIGHT["ink"], "width": 1, "dash": dash},
            }  # fmt: skip


def _dots(
    groups: Mapping[str, Sequence[Judged]], kind: str, count: int
) -> Iterator[dict[str, Any]]:
    size, opacity = (7, 0.65) if count <= _MOST_SVG else (4, 0.4)
    for index, (name, members) in enumerate(groups.items()):
        # The legend shows the form of the first.
        rows = sorted(members, key=lambda row: not row.device_seen)
        symbol = _SYMBOLS[index // len(SERIES) % len(_SYMBOLS)]
        symbols = [symbol if row.device_seen else f"{symbol}-open" for row in rows]
        yield {
            "type": kind, "mode": "markers", "name": words(f"{name} ({len(rows):,})"),
            "x": [_short(row.measured_s or 0.0) for row in rows],
            "y": [_short(row.predicted_s) for row in rows],
            "hoverinfo": "text", "hovertext": [_hover(row) for row in rows],
            "marker": {"color": colour(index), "symbol": symbols, "size": size,
                       "opacity": opacity},
        }  # fmt: skip


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _hover(row: Judged) -> str:
    assert row.measured_s is not None
    seen = "" if row.device_seen else ", never seen"
    batch = "" if row.batch_size is None else f", batch {row.batch_size:,}"
    cards = f"{row.cards} x " if row.cards > 1 else ""
    lines = (
        f"<b>{words(row.id)}</b> {words(row.source)}",
        f"{cards}{words(row.device)}{seen}; {words(row.library)}",
        f"{words(row.op)}, {words(row.passes)}, {words(row.precision)}{batch}",
        words(row.what),
        f"predicted {seconds(row.predicted_s)} ({seconds(row.low_s)} to {seconds(row.high_s)})",
        f"measured {seconds(row.measured_s)}: {signed(row.error)}",
    )
    return "<br>".join(lines)


def signed(error: float) -> str:
    """An error in per cent, with its sign: +12 %, -3.4 %."""
    return f"{'+' if error > 0 else ''}{percent(error)}"


def residuals(sets: Mapping[str, Sequence[Judged]]) -> Figure:
    """How many of each set are how far off: shares of the set by predicted over measured time."""
    edge = _OCTAVES * _PER_OCTAVE
    traces = []
    for index, (name, rows) in enumerate(sets.items()):
        counts: dict[int, int] = defaultdict(int)
        for row in rows:
            place = math.floor(_PER_OCTAVE * row.log_ratio / math.log(2))
            counts[max(-edge - 1, min(place, edge))] += 1
        places = sorted(counts)
        traces.append(
            {
                "type": "bar",
                "name": f"{name} ({len(rows):,})",
                "x": [(place + 0.5) / _PER_OCTAVE for place in places],
                "y": [100 * counts[place] / len(rows) for place in places],
                "width": 1 / _PER_OCTAVE,
                "offsetgroup": 1,
                "opacity": 0.55,
                "hoverinfo": "text",
                "hovertext": [
                    f"{name}, {_bar(place, edge)} times measured: {counts[place]:,} of"
                    f" {len(rows):,}, {percent(counts[place] / len(rows))}"
                    for place in places
                ],
                "marker": {"color": colour(index)},
            }
        )
    ticks = range(-_OCTAVES, _OCTAVES + 1)
    return figure(
        traces,
        height=260,
        x="predicted over measured time",
        y="% of the rows",
        barmode="overlay",
        xaxis={
            "range": [-_OCTAVES - 0.2, _OCTAVES + 0.2],
            "tickvals": list(ticks),
            "ticktext": [f"{2.0**tick:g}" for tick in ticks],
        },
    )


def _bar(place: int, edge: int) -> str:
    low, high = (digits(2 ** (each / _PER_OCTAVE)) for each in (place, place + 1))
    if place < -edge:
        return f"below {high}"
    return f"{low} and more" if place >= edge else f"{low} to {high}"


def coverage(sets: Mapping[str, Sequence[Judged]]) -> Figure:
    """Share of measured times inside intervals of every level, beside the level itself.

    An interval of another level is the 90 % one scaled as a normal distribution's, in the logarithm
    of the time and on each side for itself. A set whose line lies under the diagonal is predicted
    less surely than its intervals say (Kuleshov, Fenner and Ermon, ICML 2018).
    """
    levels = [0.0, *_LEVELS, 1.0]
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter", "mode": "lines", "name": "as promised", "x": [0, 100],
            "y": [0, 100], "hoverinfo": "skip",
            "line": {"color": LIGHT["ink"], "width": 1, "dash": "dash"},
        }
    ]  # fmt: skip
    for index, (name, rows) in enumerate(sets.items()):
        held = [0.0, *_held(rows), 1.0]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{name} ({len(rows):,})",
                "x": [100 * level for level in levels],
                "y": [100 * share for share in held],
                "hoverinfo": "text",
                "hovertext": [
                    f"{name}: {percent(share)} in intervals for {percent(level)}"
                    for level, share in zip(levels, held, strict=True)
                ],
                "line": {"color": colour(index), "width": 2},
                "marker": {"size": 5},
            }
        )
    axis = {"range": [0, 101], "dtick": 20}
    return figure(
        traces, height=260, x="% that the interval is for", y="% inside", xaxis=axis, yaxis=axis
    )


def _held(rows: Sequence[Judged]) -> list[float]:
    """Shares of rows inside, by level."""
    counts = [0] * (len(_LEVELS) + 1)
    bounds = [NormalDist().inv_cdf((1 + level) / 2) for level in _LEVELS]
    for row in rows:
        deviations = _deviations(row)
        counts[next((i for i, b in enumerate(bounds) if deviations <= b), len(bounds))] += 1
    return [count / len(rows) for count in accumulate(counts[:-1])]


def _deviations(row: Judged) -> float:
    """How many standard deviations the measured time lies from the predicted one."""
    bound = row.high_s if row.log_ratio < 0 else row.low_s
    width = abs(math.log(bound / row.predicted_s)) / _WITHIN_90
    return abs(row.log_ratio) / width if width else math.inf if row.log_ratio else 0.0

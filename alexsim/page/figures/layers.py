"""Time by layer and pass."""

from __future__ import annotations

from plotly.graph_objects import Figure

from alexsim.documents.profile import PlanDocument
from alexsim.page.figures.passes import (
    HATCHED,
    HUES,
    NAMES,
    Clock,
    layer_s,
    pass_s,
    timed_s,
)
from alexsim.page.figures.style import LIGHT, bars, figure, words
from alexsim.page.figures.text import digits, percent, seconds

_MOST_ROWS = 60
"""Of more layers, rows are thinner, and times are said on hovering alone."""


def layer_times(document: PlanDocument, clock: Clock) -> Figure:
    """A row per layer, stacked by pass; milliseconds per step."""
    whole = timed_s(document, clock)
    names = [words(layer.name) for layer in document.layers]
    traces = []
    for name, title in NAMES.items():
        times = [pass_s(layer, clock, name) or 0.0 for layer in document.layers]
        if any(times):
            hover = (
                f"{layer} {title}: {seconds(time)}, {percent(time / whole)} of the step"
                for layer, time in zip(names, times, strict=True)
            )
            traces.append(
                bars(title, LIGHT[HUES[name]], hover, hatched=name in HATCHED,
                     x=[1e3 * time for time in times], y=names)
            )  # fmt: skip
    totals = [layer_s(layer, clock) for layer in document.layers]
    if len(names) <= _MOST_ROWS:
        traces.append(
        {
            "type": "scatter", "mode": "text", "x": [1e3 * total for total in totals], "y": names,
            "text": [f" {digits(1e3 * total)} · {percent(total / whole)}" for total in totals],
            "textposition": "middle right", "textfont": {"color": LIGHT["muted"], "size": 11},
            "showlegend": False, "hoverinfo": "skip",
        }
    )  # fmt: skip
    return figure(
        traces,
        height=rows_height(len(names)),
        x=f"ms per step, {clock}",
        barmode="stack",
        bargap=0.3,
        xaxis={"range": [0, 1.3e3 * max(totals, default=0.0)]},
        yaxis={"autorange": "reversed", "categoryarray": names},
    )


def rows_height(count: int, row: float = 20) -> float:
    """Pixels of so many rows."""
    return row * min(count, max(_MOST_ROWS, count / 3))

"""The palette, which the page's style sheet has from here too, and what every figure looks like.

Figures are drawn in the light colours; the page's script puts the dark ones of the same names in
their place where the reader's system asks for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from plotly.graph_objects import Figure

LIGHT = {
    "ground": "#ffffff",
    "panel": "#f5f5f1",
    "ink": "#1b1d21",
    "muted": "#55595f",
    "line": "#dcdcd5",
    "edge": "#85888c",
    "accent": "#0b5cad",
    "warn": "#8f2d00",
    "blue": "#1f5f9e",
    "teal": "#1b776c",
    "orange": "#b14d08",
    "purple": "#7446a0",
    "pink": "#b01f66",
    "grey": "#62666c",
    "olive": "#6e5f00",
    "red": "#a8271f",
}
DARK = {
    "ground": "#14161a",
    "panel": "#1d2026",
    "ink": "#e9eaec",
    "muted": "#b0b4bb",
    "line": "#343941",
    "edge": "#868c96",
    "accent": "#82bdf7",
    "warn": "#f5a97f",
    "blue": "#6aaef0",
    "teal": "#4cc0ad",
    "orange": "#f09a4a",
    "purple": "#bf9bf2",
    "pink": "#f383b5",
    "grey": "#a3a8b0",
    "olive": "#d3bd4c",
    "red": "#f28b82",
}
SERIES = ("blue", "orange", "purple", "teal", "pink", "olive", "red", "grey")
"""Of things that are alike: runs, cards."""

CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["select2d", "lasso2d"],
}
"""How a page shows figures: nothing leads off the page."""

_WIDTH = 800
"""Pixels of a notebook's figure."""
_AXIS = {
    "automargin": True,
    "exponentformat": "none",
    "separatethousands": True,
    "gridcolor": LIGHT["line"],
    "linecolor": LIGHT["edge"],
    "tickcolor": LIGHT["edge"],
    "zerolinecolor": LIGHT["edge"],
    "tickfont": {"color": LIGHT["muted"]},
    "title": {"font": {"color": LIGHT["muted"]}, "standoff": 8},
}
_TEMPLATE = {
    "layout": {
        "font": {"color": LIGHT["ink"], "size": 12, "family": "system-ui, sans-serif"},
        "paper_bgcolor": LIGHT["ground"],
        "plot_bgcolor": LIGHT["ground"],
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "hoverlabel": {
            "bgcolor": LIGHT["panel"],
            "bordercolor": LIGHT["edge"],
            "font": {"color": LIGHT["ink"], "size": 13},
            "align": "left",
            "namelength": -1,
        },
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "traceorder": "normal",
            "maxheight": 1000,
        },
        "modebar": {"color": LIGHT["edge"], "activecolor": LIGHT["accent"], "bgcolor": "#ffffff00"},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
}


def words(text: str) -> str:
    """A name as a figure's text: Plotly reads some HTML there."""
    return escape(text, quote=False)


def colour(index: int) -> str:
    """Of the n-th of things that are alike."""
    return LIGHT[SERIES[index % len(SERIES)]]


def bars(
    name: str, hue: str, hover: Iterable[str], *, hatched: bool = False, **data: Any
) -> dict[str, Any]:
    """A trace of boxes from left to right; ``hover`` has a text for each."""
    pattern = {
        "shape": "/" if hatched else "",
        "fillmode": "overlay",
        "fgcolor": LIGHT["ground"],
        "fgopacity": 0.45,
        "size": 6,
    }
    marker = {
        "color": hue,
        "line": {"color": LIGHT["ground"], "width": 0.6},
        "pattern": pattern if hatched else None,
    }
    return {
        "type": "bar", "orientation": "h", "name": name, "marker": marker, "hoverinfo": "text",
        "hovertext": list(hover), **data,
    }  # fmt: skip


def figure(
    traces: Iterable[Mapping[str, Any]], *, height: float, x: str = "", y: str = "", **layout: Any
) -> Figure:
    """A figure in this style; ``x`` and ``y`` name its axes.

    ``height`` is that of the plot alone, in pixels. What the legend and the axes take is guessed
    here, for a figure as wide as a notebook's; the page's script measures it.
    """
    traces = list(traces)
    names = [len(trace.get("name", "")) for trace in traces if trace.get("showlegend", True)]
    rows = math.ceil(len(names) / (_WIDTH // (6 * max(names, default=0) + 48) or 1))
    whole = {"height": height + 60 + 19 * rows, "meta": {"plot_height": height}}
    axes = {
        axis: {**layout.pop(axis, {}), "title": {"text": title}}
        for axis, title in (("xaxis", x), ("yaxis", y))
    }
    return Figure(traces, {"template": _TEMPLATE, **whole, **axes, **layout})

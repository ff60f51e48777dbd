"""Configurations of a sweep: how long training takes over the memory that it needs."""

from __future__ import annotations

from collections.abc import Sequence

from plotly.graph_objects import Figure

from alexsim.explore.pareto import Point
from alexsim.page.figures.style import LIGHT, figure, words
from alexsim.page.figures.text import digits
from alexsim.units import GIB, format_bytes

_KINDS = (
    ("no other that fits is better", "blue", "circle"),
    ("another that fits is better", "grey", "circle-open"),
    ("does not fit", "red", "x-thin-open"),
)


def memory_over_days(points: Sequence[Point], axes: Sequence[str]) -> Figure:
    """A mark per configuration that makes sense, with the 90 % interval of its days; those that
    no other beats are named.

    Args:
        points: of a sweep; those with an error have no mark.
        axes: settings that the text of a mark names, where they differ.
    """
    done = [point for point in points if not point.error]
    axes = [axis for axis in axes if len({point.settings[axis] for point in points}) > 1]
    traces = []
    for kind, (title, hue, symbol) in enumerate(_KINDS):
        members = [point for point in done if _kind(point) == kind]
        if not members:
            continue
        days = [point.training_days for point in members]
        bounds = [point.days_interval for point in members]
        traces.append(
            {
                "type": "scatter", "mode": "markers" if kind else "markers+text", "name": title,
                "text": [words(_named(point, axes)) for point in members],
                "textposition": "top right", "cliponaxis": False,
                "x": days, "y": [point.memory_bytes / GIB for point in members],
                "error_x": {
                    "type": "data", "symmetric": False, "thickness": 1, "width": 3,
                    "array": [high - at for (_, high), at in zip(bounds, days, strict=True)],
                    "arrayminus": [at - low for (low, _), at in zip(bounds, days, strict=True)],
                },
                "marker": {"color": LIGHT[hue], "symbol": symbol, "size": 9, "line": {"width": 2}},
                "hoverinfo": "text", "hovertext": [_hover(point, axes) for point in members],
            }
        )  # fmt: skip
    longest = max((point.days_interval[1] for point in done), default=1.0)
    ticks = [digit * 10.0**power for power in range(-5, 6) for digit in (1, 2, 5)]
    ticks = [day for day in ticks if day <= 2 * longest]
    return figure(
        traces,
        height=420,
        x="training, days",
        y="memory of the fullest GPU, GiB",
        xaxis={"type": "log", "tickvals": ticks, "ticktext": [f"{day:g}" for day in ticks]},
        yaxis={"rangemode": "tozero"},
        hovermode="closest",
    )


def _kind(point: Point) -> int:
    return 2 if not point.fits else 0 if point.pareto else 1


def _named(point: Point, axes: Sequence[str]) -> str:
    return ", ".join(f"{axis} {point.settings[axis]}" for axis in axes)


def _hover(point: Point, axes: Sequence[str]) -> str:
    low, high = point.days_interval
    lines = (
        f"<b>{words(_named(point, axes))}</b>",
        f"{digits(point.training_days)} days ({digits(low)} to {digits(high)})",
        f"{digits(point.images_per_s)} images/s",
        f"{format_bytes(point.memory_bytes)} of {format_bytes(point.device_memory_bytes)}",
    )
    return "<br>".join(lines)

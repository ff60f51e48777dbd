"""Curves over a run: loss, errors, times; and what the cards said meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plotly.graph_objects import Figure

from alexsim.documents.run import HeldOutMetrics, StepMetrics
from alexsim.documents.step import TelemetrySample
from alexsim.page.figures.style import LIGHT, colour, figure, words
from alexsim.units import MIB

Points = Sequence[tuple[float, float]]

NOISY = 30
"""A curve of so many steps gets a mean line."""
_MOST_POINTS = 2000
"""Points drawn of one line; of more, the highest and the lowest of every stretch."""
_DOTS = 40
"""A line of no more points than this shows each of them."""
QUANTITIES: tuple[tuple[str, str, str, float], ...] = (
    ("utilisation", "Utilisation", "%", 100.0),
    ("power_w", "Power", "W", 1.0),
    ("memory_bytes", "Memory used", "MiB", 1 / MIB),
    ("sm_mhz", "Clock of the multiprocessors", "MHz", 1.0),
    ("memory_mhz", "Clock of the memory", "MHz", 1.0),
    ("temperature_c", "Temperature", "°C", 1.0),
    ("pcie_sent_bytes_per_s", "PCIe, sent", "MB/s", 1e-6),
    ("pcie_received_bytes_per_s", "PCIe, received", "MB/s", 1e-6),
)
"""What cards say: a field of their samples, its title, a unit, and the factor to that."""


def window(metrics: Sequence[StepMetrics]) -> int:
    """Steps that a mean line is over: a twentieth of them."""
    return max(3, len(metrics) // 20) | 1


def loss(metrics: Sequence[StepMetrics], held_out: Sequence[HeldOutMetrics]) -> Figure:
    """Of the training steps, and of held-out images."""
    tested = [(each.step, each.scores.loss) for each in held_out]
    traces = [
        *_noisy("training", _points(metrics, "loss"), LIGHT["blue"], window(metrics)),
        *_marks("held out", tested, LIGHT["pink"]),
    ]
    return _over_steps(traces, "negative log-likelihood")


def error(metrics: Sequence[StepMetrics], held_out: Sequence[HeldOutMetrics]) -> Figure:
    """Images wrong, in per cent."""
    steps = window(metrics)
    tested = [(each.step, 100 * each.scores.top1) for each in held_out]
    traces = [
        *_noisy("top-1", _points(metrics, "top1", 100), LIGHT["orange"], steps),
        *_noisy("top-5", _points(metrics, "top5", 100), LIGHT["purple"], steps, dash="dash"),
        *_marks("held-out top-1", tested, LIGHT["pink"]),
    ]
    return _over_steps(traces, "% of the images wrong", range=[0, 100])


def step_times(metrics: Sequence[StepMetrics]) -> Figure:
    """Of each step, and what of it was waiting for data; milliseconds."""
    traces = [
        _line("step", _points(metrics, "step_s", 1e3), LIGHT["blue"]),
        _line("data wait", _points(metrics, "data_wait_s", 1e3), LIGHT["orange"], dash="dash"),
    ]
    return _over_steps(traces, "ms", height=180)


def overlaid(runs: Mapping[str, Sequence[StepMetrics]], field: str, scale: float = 1.0) -> Figure:
    """A field of several runs' steps, by the runs' names; those without steps are left out."""
    traces: list[dict[str, Any]] = []
    for index, (name, metrics) in enumerate(runs.items()):
        points = _points(metrics, field, scale)
        dash = "dash" if index % 2 else "solid"
        traces += _noisy(words(name), points, colour(index), window(metrics), dash=dash)
    axis: dict[str, Any] = {"range": [0, 100]} if scale == 100 else {}
    y = "% of the batch wrong" if scale == 100 else "negative log-likelihood"
    return _over_steps(traces, y, **axis)


def telemetry(samples: Sequence[TelemetrySample], quantity: tuple[str, str, str, float]) -> Figure:
    """A quantity of every card that says it, over the run's time."""
    traces = [
        _line(f"card {card}", points, colour(index), dash="dash" if index % 2 else "solid")
        for index, (card, points) in enumerate(said(samples, quantity).items())
    ]
    axis: dict[str, Any] = (
        {"range": [0, 100]} if quantity[0] == "utilisation" else {"rangemode": "tozero"}
    )
    x = "seconds since the run began, resumptions joined"
    return figure(traces, height=200, x=x, y=quantity[2], yaxis=axis, showlegend=True)


def said(
    samples: Sequence[TelemetrySample], quantity: tuple[str, str, str, float]
) -> dict[int, Points]:
    """By card, seconds and values; cards that say nothing of it are left out."""
    field, _, _, scale = quantity
    points: dict[int, list[tuple[float, float]]] = {}
    for each in sorted(samples, key=lambda sample: sample.card):
        if (value := getattr(each, field)) is not None:
            points.setdefault(each.card, []).append((each.time_s, scale * value))
    return dict(points)


def _over_steps(
    traces: Sequence[dict[str, Any]], y: str, *, height: float = 240, **axis: Any
) -> Figure:
    axis = axis or {"rangemode": "tozero"}
    return figure(traces, height=height, x="step", y=y, yaxis=axis, showlegend=True)


def _points(metrics: Sequence[StepMetrics], field: str, scale: float = 1.0) -> Points:
    return [(each.step, scale * getattr(each, field)) for each in metrics]


def _line(
    name: str, points: Points, hue: str, *, dash: str = "solid", **more: Any
) -> dict[str, Any]:
    kept = thinned([point for point in points if math.isfinite(point[1])])
    return {
        "type": "scatter", "mode": "lines+markers" if len(kept) <= _DOTS else "lines",
        "name": name, "x": [x for x, _ in kept], "y": [y for _, y in kept],
        "line": {"color": hue, "width": 2, "dash": dash}, "marker": {"size": 5},
        "hovertemplate": "%{y:,.4~r} at %{x:,}", **more,
    }  # fmt: skip


def _noisy(
    name: str, points: Points, hue: str, steps: int, *, dash: str = "solid"
) -> Iterator[dict[str, Any]]:
    """The line; with many points a mean, and the steps faint behind it; nothing without any."""
    if not points:
        return
    if len(points) >= NOISY:
        yield _line(f"{name}, each step", points, hue, opacity=0.4, line={"color": hue, "width": 1})
        yield _line(name, smoothed(points, steps), hue, dash=dash)
    else:
        yield _line(name, points, hue, dash=dash)


def _marks(name: str, points: Points, hue: str) -> Iterator[dict[str, Any]]:
    """Held-out figures as dots, joined; nothing where none is a number."""
    if any(math.isfinite(value) for _, value in points):
        marker = {"size": 8, "symbol": "diamond"}
        yield _line(name, points, hue, dash="dot") | {"mode": "lines+markers", "marker": marker}


def thinned(points: Points) -> list[tuple[float, float]]:
    """No more points than a picture can show: of every stretch its highest and its lowest."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    stretch = math.ceil(2 * len(points) / _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), stretch):
        piece = points[start : start + stretch]
        kept += sorted({min(piece, key=lambda p: p[1]), max(piece, key=lambda p: p[1])})
    return kept


def smoothed(points: Points, steps: int) -> list[tuple[float, float]]:
    """Means over ``steps`` neighbours, fewer at the ends."""
    sums = [0.0]
    for _, value in points:
        sums.append(sums[-1] + value)
    means = []
    for index, (at, _) in enumerate(points):
        first, last = max(0, index - steps // 2), min(len(points), index + steps // 2 + 1)
        means.append((at, (sums[last] - sums[first]) / (last - first)))
    return means

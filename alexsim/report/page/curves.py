"""Curves over a run: loss, errors, times; and what the cards said meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from alexsim.report.page.chart import LineChart, Series, smoothed
from alexsim.report.page.elements import Cell, Figure, Table, number_columns, text_columns
from alexsim.report.page.text import digits, milliseconds
from alexsim.units import MIB

_NOISY = 30
"""A curve of so many steps gets a mean line."""
_MOST_ROWS = 200
STYLES = ("forward", "grad_weight", "update", "grad_input", "exchange", "upload")
"""One per line of a chart, in this order."""

Metrics = Sequence[dict[str, Any]]


def curves(metrics: Metrics, held_out: Metrics) -> Iterator[Figure]:
    """Loss, errors and times of a run's steps."""
    steps = len(metrics)
    window = max(3, steps // 20) | 1
    first, last = metrics[0], metrics[-1]
    mean = f" The strong line is a mean over {window} steps." if steps >= _NOISY else ""
    table = metric_table(metrics)
    loss = _line(metrics, "loss")
    checked = [one["held_out"] | {"step": one["step"]} for one in held_out]
    said, wrong = _told(checked)
    yield _figure(
        LineChart(
            id="loss", title="Loss", x_title="step", y_title="negative log-likelihood",
            text=f"From {digits(first['loss'], 4)} at step {first['step']:,} to"
            f" {digits(last['loss'], 4)} at step {last['step']:,}.{said}{mean}",
            series=(*_noisy("training", loss, "forward", window), *_marks(checked, "loss")),
        ),
        table,
    )  # fmt: skip
    errors = (
        *_noisy("top-1", _line(metrics, "top1", 100), "grad_weight", window),
        *_noisy("top-5", _line(metrics, "top5", 100), "update", window, dashed=True),
        *_marks(checked, "top1", 100),
    )
    yield _figure(
        LineChart(
            id="error", title="Error", x_title="step", y_title="% of the images wrong",
            text=f"Top-1 from {100 * first['top1']:.1f} % to {100 * last['top1']:.1f} %, top-5"
            f" from {100 * first['top5']:.1f} % to {100 * last['top5']:.1f} %.{wrong}{mean}",
            series=errors,
            top=100,
        ),
        None,
    )  # fmt: skip
    times = [one["step_s"] for one in metrics]
    waited = sum(one["data_wait_s"] for one in metrics) / sum(times)
    yield _figure(
        LineChart(
            wide=True, id="step-times", title="Time of each step", x_title="step", y_title="ms",
            text=f"Median {milliseconds(median(times))} ms; steps waited for data"
            f" {100 * waited:.1f} % of the time.",
            series=(
                Series(name="step", points=_line(metrics, "step_s", 1e3), style="forward"),
                Series(
                    name="data wait", points=_line(metrics, "data_wait_s", 1e3),
                    style="grad_weight", dashed=True,
                ),
            ),
        ),
        None,
    )  # fmt: skip


def _told(checked: Metrics) -> tuple[str, str]:
    """The last check on held-out images, its loss and its errors."""
    if not checked:
        return "", ""
    last = checked[-1]
    return (
        f" On held-out images {digits(last['loss'], 4)}.",
        f" On held-out images top-1 {100 * last['top1']:.1f} %, top-5 {100 * last['top5']:.1f} %.",
    )


def _marks(checked: Metrics, key: str, scale: float = 1.0) -> tuple[Series, ...]:
    """Held-out figures as dots."""
    name, points = "held out" if key == "loss" else "held-out top-1", _line(checked, key, scale)
    return (Series(name=name, points=points, style="exchange", dashed=True),) if points else ()


def overlaid(names: tuple[str, str], both: tuple[Metrics, Metrics]) -> Iterator[Figure]:
    """The curves of two runs."""
    for key, title, y_title, scale in (
        ("loss", "Training loss", "negative log-likelihood", 1.0),
        ("top1", "Training error, top-1", "% of the batch wrong", 100.0),
        ("top5", "Training error, top-5", "% of the batch wrong", 100.0),
    ):
        series: list[Series] = []
        said = []
        noisy = ""
        if any(len(metrics) >= _NOISY for metrics in both):
            noisy = " Strong lines are means over a twentieth of the steps."
        for name, metrics, style in zip(names, both, STYLES, strict=False):
            if not metrics:
                continue
            window = max(3, len(metrics) // 20) | 1
            points = _line(metrics, key, scale)
            series += _noisy(name, points, style, window, dashed=style == STYLES[1])
            unit = " %" if scale == 100 else ""
            last = metrics[-1]
            said.append(
                f"{name} ends at {digits(scale * last[key])}{unit} after {last['step']:,} steps"
            )
        yield _figure(
            LineChart(
                id=f"both-{key}", wide=key == "loss", title=title, x_title="step", y_title=y_title,
                text="; ".join(said) + "." + noisy,
                series=tuple(series), top=100 if scale == 100 else None,
            ),
            None,
        )  # fmt: skip


def _line(metrics: Metrics, key: str, scale: float = 1.0) -> tuple[tuple[float, float], ...]:
    """A point per step; none where the number is not finite."""
    return tuple((one["step"], scale * one[key]) for one in metrics if math.isfinite(one[key]))


def _noisy(
    name: str, points: tuple[tuple[float, float], ...], style: str, window: int, *,
    dashed: bool = False,
) -> tuple[Series, ...]:  # fmt: skip
    """The line; with many points a mean, and the steps faint behind it; nothing without any."""
    if not points:
        return ()
    if len(points) < _NOISY:
        return (Series(name=name, points=points, style=style, dashed=dashed),)
    return (
        Series(name=name, points=smoothed(points, window), style=style, dashed=dashed),
        Series(name=f"{name}, each step", points=points, style=style, faint=True),
    )


def _figure(chart: LineChart, table: Table | None) -> Figure:
    return Figure(
        id=f"{chart.id}-figure",
        title=chart.title,
        text=chart.text,
        drawing=chart.drawing(),
        keys=chart.keys(),
        table=table,
        wide=chart.wide,
    )


def _sorted_by(value: float) -> float | None:
    return value if math.isfinite(value) else None


def metric_table(metrics: Metrics, id_: str = "metrics-table", name: str = "") -> Table:
    """Steps of a run; of many, every n-th and the last."""
    stride = -(-len(metrics) // _MOST_ROWS)
    kept = [one for index, one in enumerate(metrics) if index % stride == 0]
    if kept[-1] is not metrics[-1]:
        kept.append(metrics[-1])
    every = "Every step" if stride == 1 else f"One step in {stride}"
    return Table(
        id=id_,
        caption=every + (f" of {name}" if name else ""),
        columns=number_columns(
            "step", "loss", "top-1 error, %", "top-5 error, %", "step, ms", "data wait, ms"
        ),
        rows=tuple(
            (
                Cell(text=f"{one['step']:,}", value=one["step"]),
                Cell(text=f"{one['loss']:.4f}", value=_sorted_by(one["loss"])),
                Cell(text=f"{100 * one['top1']:.1f}", value=one["top1"]),
                Cell(text=f"{100 * one['top5']:.1f}", value=one["top5"]),
                Cell(text=milliseconds(one["step_s"]), value=one["step_s"]),
                Cell(text=milliseconds(one["data_wait_s"]), value=one["data_wait_s"]),
            )
            for one in kept
        ),
        folded=True,
    )


_QUANTITIES: tuple[tuple[str, str, str, float], ...] = (
    ("utilisation", "Utilisation", "%", 100.0),
    ("power_w", "Power", "W", 1.0),
    ("memory_bytes", "Memory used", "MiB", 1 / MIB),
    ("sm_mhz", "Clock of the multiprocessors", "MHz", 1.0),
    ("memory_mhz", "Clock of the memory", "MHz", 1.0),
    ("pcie_sent_bytes_per_s", "PCIe, sent", "MB/s", 1e-6),
    ("pcie_received_bytes_per_s", "PCIe, received", "MB/s", 1e-6),
)


def telemetry(samples: Metrics, cards: tuple[str, ...]) -> tuple[tuple[Figure, ...], Table]:
    """What the cards said, quantity by quantity; what no card says is left out."""
    numbers = sorted({one["card"] for one in samples})
    names = {n: cards[n] if n < len(cards) else f"card {n}" for n in numbers}
    figures, rows = [], []
    for key, title, unit, scale in _QUANTITIES:
        series = []
        for number in numbers:
            points = tuple(
                (one["time_s"], scale * one[key])
                for one in samples
                if one["card"] == number and one[key] is not None
            )
            if not points:
                continue
            style = STYLES[number % len(STYLES)]
            series.append(
                Series(name=f"card {number}", points=points, style=style, dashed=number % 2 == 1)
            )
            rows.append(_summary(f"{title}, {unit}", names[number], [y for _, y in points]))
        if series:
            top = 100.0 if key == "utilisation" else None
            figures.append(
                _figure(
                    LineChart(
                        id=f"card-{key.replace('_', '-')}", title=title, y_title=unit,
                        x_title="seconds since the run began, resumptions joined", top=top,
                        text=_said(series, unit), series=tuple(series),
                    ),
                    None,
                )
            )  # fmt: skip
    table = Table(
        id="telemetry-table",
        caption="What the cards said",
        columns=text_columns("quantity", "card") + number_columns("lowest", "mean", "highest"),
        rows=tuple(rows),
    )
    return tuple(figures), table


def _said(series: list[Series], unit: str) -> str:
    means = (
        f"{one.name}: {digits(sum(y for _, y in one.points) / len(one.points))} {unit} on average"
        for one in series
    )
    return "; ".join(means) + "."


def _summary(quantity: str, card: str, values: list[float]) -> tuple[Cell, ...]:
    measures: tuple[Callable[[list[float]], float], ...] = (min, _mean, max)
    return (
        Cell(text=quantity),
        Cell(text=card),
        *(Cell(text=digits(measure(values))) for measure in measures),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

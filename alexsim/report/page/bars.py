"""Bars of time by layer and pass: what was measured beside what is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from alexsim.report.page.chart import Scale, label, rounded_up, text_width, x_axis
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Table,
    number_columns,
    svg,
    tag,
    text_columns,
)
from alexsim.report.page.passes import HATCHED, NAMES, PASSES, pass_keys, seconds_of
from alexsim.report.page.text import digits, milliseconds, percent, seconds, shortened

_WIDTH, _NAMES, _ROW, _TOP = 1120.0, 104.0, 22.0, 44.0
_ROOM = 76.0
"""For what stands at the end of a bar."""


def bar(x: float, y: float, width: float, height: float, style: str, *, hatched: bool) -> Markup:
    """A box of a style of the sheet."""
    box = tag("rect", x=x, y=y, width=width, height=height, class_=f"f-{style} box")
    if not hatched:
        return box
    return box + tag("rect", x=x, y=y, width=width, height=height, fill="url(#hatch)")


def inside(x: float, y: float, text: str, style: str, *, hatched: bool) -> Markup:
    """Text in the middle of a bar; where that is hatched, on a plain piece of it."""
    words = label(x, y, text, "inside", "middle")
    if not hatched:
        return words
    half = text_width(text) / 2
    plain = tag("rect", x=x - half, y=y - 11, width=2 * half, height=15, class_=f"f-{style}")
    return plain + words


def layer_bars(document: dict[str, Any]) -> Figure:
    """A row per layer, stacked by pass; each clock on a scale of its own."""
    clocks = [which for which in ("measured", "predicted") if which in document["layers"][0]]
    height = _TOP + _ROW * len(document["layers"]) + 44
    each = (_WIDTH - _NAMES) / len(clocks)
    parts = [
        label(_NAMES - 8, _TOP + _ROW * index + 15, shortened(layer["name"]), "tick", "end")
        for index, layer in enumerate(document["layers"])
    ]
    for index, which in enumerate(clocks):
        left = _NAMES + each * index
        parts += _panel(document, which, left, left + each - _ROOM)
    slowest = max(document["layers"], key=lambda layer: seconds_of(layer, clocks[0]))
    whole = _step_s(document, clocks[0])
    text = (
        f"{slowest['name']} takes longest, {seconds(seconds_of(slowest, clocks[0]))}"
        f" {clocks[0]}, {percent(seconds_of(slowest, clocks[0]) / whole)} of the step."
    )
    if len(clocks) == 2:
        text += (
            " The two sides have scales of their own; the shares of each step compare."
            " Measured time is summed over all columns; predicted time is that of the GPU that"
            " takes longest."
        )
    else:
        text += " Where several GPUs share a layer, the time is that of the slowest."
    return Figure(
        id="time-by-layer",
        title="Time by layer and pass",
        text=text,
        drawing=svg(
            "time-by-layer-picture", "Time by layer and pass", text, parts, size=(_WIDTH, height),
            least=1020,
        ),
        keys=pass_keys(),
        table=_table(document, clocks),
    )  # fmt: skip


def _step_s(document: dict[str, Any], which: str) -> float:
    value: float = document["timed_step_s" if which == "measured" else "predicted_step_s"]
    return value


def _panel(document: dict[str, Any], which: str, left: float, right: float) -> Iterator[Markup]:
    layers = document["layers"]
    longest = max(seconds_of(layer, which) for layer in layers)
    bottom = _TOP + _ROW * len(layers)
    scale = Scale(low=0, high=rounded_up(1e3 * longest), start=left, end=right)
    whole = _step_s(document, which)
    yield label(left, _TOP - 24, f"{which}: {seconds(whole)} per step", "head")
    yield from x_axis(scale, _TOP, bottom, "ms per step")
    for index, layer in enumerate(layers):
        y, reached = _TOP + _ROW * index + 4, 0.0
        boxes = []
        for name in PASSES:
            value = 1e3 * (layer[which].get(f"{name}_s") or 0.0)
            if value:
                x = scale(reached)
                boxes.append(
                    bar(x, y, scale(reached + value) - x, _ROW - 8, name, hatched=name in HATCHED)
                )
                reached += value
        title = f"{layer['name']}, {which}: {seconds(reached / 1e3)}"
        yield tag("g", tag("title", title), *boxes)
        yield label(
            scale(reached) + 5, y + 11, f"{digits(reached)} · {percent(reached / 1e3 / whole)}",
            "small",
        )  # fmt: skip


def _table(document: dict[str, Any], clocks: list[str]) -> Table:
    rows = []
    for layer in document["layers"]:
        cells = [Cell(text=layer["name"])]
        for which in clocks:
            cells += [Cell(text=milliseconds(layer[which].get(f"{name}_s"))) for name in PASSES]
            spent = seconds_of(layer, which)
            cells += [
                Cell(text=milliseconds(spent)),
                Cell(text=percent(spent / _step_s(document, which))),
            ]
        rows.append(tuple(cells))
    names = [*(NAMES[name] for name in PASSES), "all", "share"]
    return Table(
        id="time-by-layer-table",
        caption="Milliseconds per step by layer and pass",
        columns=text_columns("layer")
        + number_columns(*(f"{which} {name}" for which in clocks for name in names)),
        rows=tuple(rows),
    )

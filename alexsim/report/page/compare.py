"""Two subjects beside each other: what differs, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from alexsim.report.page.bars import bar
from alexsim.report.page.chart import Scale, label, rounded_up, x_axis
from alexsim.report.page.curves import metric_table, overlaid
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Key,
    Section,
    Table,
    number_columns,
    svg,
    tag,
    text_columns,
    words,
)
from alexsim.report.page.inputs import Subject
from alexsim.report.page.memory import CATEGORIES, ordered
from alexsim.report.page.page import described, rendered
from alexsim.report.page.passes import seconds_of
from alexsim.report.page.text import (
    digits,
    in_mib,
    milliseconds,
    percent,
    ratio,
    seconds,
    shortened,
)
from alexsim.units import format_bytes

_STYLES = ("forward", "grad_weight")
_WIDTH, _NAMES, _TOP = 1120.0, 104.0, 34.0


def comparison(first: Subject, second: Subject) -> str:
    """Two subjects as one HTML text."""
    both = (first, second)
    names = _names(both)
    which = _which(first, second), _which(second, first)
    sections = [
        _summary(both, names, which),
        _settings(both, names),
        _layers(both, names, which),
        _memory(both, names),
    ]
    if any(one.metrics for one in both):
        sections.insert(2, _curves(both, names))
    heading = f"{names[0]} beside {names[1]}"
    return rendered(heading, "Comparison", sections)


def _names(both: tuple[Subject, Subject]) -> tuple[str, str]:
    first, second = (one.name for one in both)
    return (first, second) if first != second else (f"{first} (1st)", f"{second} (2nd)")


def _which(subject: Subject, other: Subject) -> str:
    """Whose times are compared: measured ones with measured ones or with a plan's predicted ones.

    A run that left no profile is no plan: both are predicted then.
    """
    alike = other.measured or other.kind == "plan"
    return "measured" if subject.measured and alike else "predicted"


def _step_s(subject: Subject, which: str) -> float:
    value: float = subject.document["step_s" if which == "measured" else "predicted_step_s"]
    return value


def _summary(
    both: tuple[Subject, Subject], names: tuple[str, str], which: tuple[str, str]
) -> Section:
    times = [_step_s(one, how) for one, how in zip(both, which, strict=True)]
    rates = [one.document["batch_size"] / s for one, s in zip(both, times, strict=True)]
    facts = [
        (f"Step of {name}, {how}", seconds(s), f"{digits(rate)} images/s")
        for name, how, s, rate in zip(names, which, times, rates, strict=True)
    ]
    faster = names[0] if times[0] < times[1] else names[1]
    sizes = [one.document["batch_size"] for one in both]
    batches = (
        f"both in batches of {sizes[0]}"
        if sizes[0] == sizes[1]
        else f"batches of {sizes[0]} and of {sizes[1]}"
    )
    facts += [
        ("Step, second over first", ratio(times[1] / times[0]), f"{faster} takes less time"),
        ("Images/s, second over first", ratio(rates[1] / rates[0]), batches),
    ]
    notes = tuple(f"{name}: {note}" for one, name in zip(both, names, strict=True)
                  for note in one.notes)  # fmt: skip
    text = "Ratios are the second over the first. "
    if which == ("measured", "measured"):
        text += "Both were measured."
        wheres = [one.document["where"] for one in both]
        if wheres[0] != wheres[1]:
            text += f" They did not run alike: {wheres[0]}, and {wheres[1]}."
    elif "measured" in which:
        side = which.index("measured")
        plan = both[1 - side].document
        text += (
            f"{names[side]} was measured ({both[side].document['where']}), {names[1 - side]} is"
            f" predicted for {plan['machine']} with {plan['library']}."
        )
    else:
        text += (
            "Not both were measured, so predicted times are compared: "
            + ", and ".join(f"{one.document['machine']}" for one in both)
            + "."
        )
    return Section(id="summary", title="In short", text=text, facts=tuple(facts), notes=notes)


def _settings(both: tuple[Subject, Subject], names: tuple[str, str]) -> Section:
    first, second = (described(one) for one in both)
    keys = [*first, *(key for key in second if key not in first)]
    differing = [key for key in keys if first.get(key) != second.get(key)]
    table = Table(
        id="settings-table",
        caption="Settings that differ",
        columns=text_columns("setting", *names),
        rows=tuple(words(key, first.get(key, "–"), second.get(key, "–")) for key in differing),
    )
    alike = len(keys) - len(differing)
    counted = "1 setting differs" if len(differing) == 1 else f"{len(differing)} settings differ"
    text = f"{counted}, {alike} are the same; – stands for what one does not say."
    return Section(
        id="what-differs", title="What differs", text=text, tables=(table,) if differing else ()
    )


def _curves(both: tuple[Subject, Subject], names: tuple[str, str]) -> Section:
    return Section(
        id="curves",
        title="Loss and error",
        figures=tuple(overlaid(names, (both[0].metrics, both[1].metrics))),
        tables=tuple(
            metric_table(one.metrics, f"metrics-table-{index}", name)
            for index, (one, name) in enumerate(zip(both, names, strict=True))
            if one.metrics
        ),
    )


def _by_layer(subject: Subject, which: str) -> dict[str, float]:
    return {layer["name"]: seconds_of(layer, which) for layer in subject.document["layers"]}


def _layers(
    both: tuple[Subject, Subject], names: tuple[str, str], which: tuple[str, str]
) -> Section:
    first, second = (_by_layer(one, how) for one, how in zip(both, which, strict=True))
    same = which[0] == which[1]
    shown = names if same else tuple(map(", ".join, zip(names, which, strict=True)))
    layers = [*first, *(name for name in second if name not in first)]
    rows = [_row(name, first.get(name), second.get(name)) for name in layers]
    table = Table(
        id="layer-table",
        caption=f"Layers, {which[0] + ' ' if same else ''}milliseconds per step",
        columns=text_columns("layer")
        + number_columns(*(f"{name}, ms" for name in shown), "ratio", "difference, ms"),
        rows=tuple(rows),
        foot=(_row("all layers", sum(first.values()), sum(second.values())),),
        sortable=True,
    )
    text = (
        f"All layers take {seconds(sum(first.values()))} in {names[0]} and"
        f" {seconds(sum(second.values()))} in {names[1]}. Both on the same scale."
    )
    return Section(
        id="layers",
        title="Layers side by side",
        figures=(_bars(layers, (first, second), names, text),),
        tables=(table,),
    )


def _row(name: str, first: float | None, second: float | None) -> tuple[Cell, ...]:
    cells = [
        Cell(text="–" if value is None else milliseconds(value), value=value)
        for value in (first, second)
    ]
    quotient = second / first if first and second is not None else None
    change = second - first if first is not None and second is not None else None
    sign = "+" if change and change > 0 else ""
    return (
        Cell(text=name),
        *cells,
        Cell(text=ratio(quotient), value=quotient),
        Cell(text="" if change is None else f"{sign}{milliseconds(change)}", value=change),
    )


def _bars(
    layers: list[str], times: tuple[dict[str, float], dict[str, float]], names: tuple[str, str],
    text: str,
) -> Figure:  # fmt: skip
    row = 34.0
    longest = max((value for one in times for value in one.values()), default=0.0)
    bottom = _TOP + row * len(layers)
    scale = Scale(low=0, high=rounded_up(1e3 * longest), start=_NAMES, end=_WIDTH - 70)
    parts: list[Markup] = list(x_axis(scale, _TOP - 8, bottom, "ms per step"))
    for index, layer in enumerate(layers):
        y = _TOP + row * index
        parts.append(label(_NAMES - 8, y + 18, shortened(layer), "tick", "end"))
        for side, (one, style) in enumerate(zip(times, _STYLES, strict=True)):
            parts += _bar(
                one.get(layer), scale, y + 2 + 14 * side, style, f"{layer}, {names[side]}"
            )
    return Figure(
        id="layers-side-by-side",
        title="Time by layer",
        text=text,
        drawing=svg("layers-side-by-side-picture", "Time by layer", text, parts,
                    size=(_WIDTH, bottom + 44), least=1020),
        keys=_keys(names),
    )  # fmt: skip


def _bar(value: float | None, scale: Scale, y: float, style: str, name: str) -> Iterator[Markup]:
    if value is None:
        yield label(_NAMES + 4, y + 11, "not in this network", "small")
        return
    width = scale(1e3 * value) - scale(0)
    box = bar(_NAMES, y, width, 13, style, hatched=style == _STYLES[1])
    yield tag("g", tag("title", f"{name}: {seconds(value)}"), box)
    yield label(_NAMES + width + 5, y + 11, milliseconds(value), "small")


def _keys(names: tuple[str, str]) -> tuple[Key, ...]:
    return tuple(
        Key(style=style, name=name, hatched=style == _STYLES[1])
        for style, name in zip(_STYLES, names, strict=True)
    )


def _memory(both: tuple[Subject, Subject], names: tuple[str, str]) -> Section:
    totals: list[tuple[str, str, dict[str, Any]]] = []
    for one, name in zip(both, names, strict=True):
        totals += [
            (f"{name}, {device['name']}", name, device)
            for device in one.document["memory"]["devices"]
        ]
    categories = ordered(key for _, _, device in totals for key in device["by_category"])
    table = Table(
        id="memory-table",
        caption="MiB by category",
        columns=text_columns("category") + number_columns(*(name for name, _, _ in totals)),
        rows=tuple(
            (
                Cell(text=CATEGORIES.get(key, key)),
                *(
                    Cell(text=in_mib(size) if size else "", value=size)
                    for size in (device["by_category"].get(key, 0) for _, _, device in totals)
                ),
            )
            for key in categories
        ),
        foot=(
            (
                Cell(text="total"),
                *(Cell(text=in_mib(device["planned_bytes"])) for _, _, device in totals),
            ),
        ),
    )
    said = []
    for one, name in zip(both, names, strict=True):
        fullest = max(int(device["planned_bytes"]) for device in one.document["memory"]["devices"])
        text = f"{name}: {format_bytes(fullest)} on its fullest GPU"
        if one.budget:
            text += f", {percent(fullest / one.budget[0])} of {format_bytes(one.budget[0])}"
        said.append(text + ".")
    return Section(
        id="memory",
        title="Memory",
        text=" ".join(said),
        figures=(_memory_bars(totals, names),),
        tables=(table,),
    )


def _memory_bars(totals: list[tuple[str, str, dict[str, Any]]], names: tuple[str, str]) -> Figure:
    row, left = 30.0, 190.0
    longest = max(device["planned_bytes"] for _, _, device in totals) / 2**20
    bottom = _TOP + row * len(totals)
    scale = Scale(low=0, high=rounded_up(longest), start=left, end=_WIDTH - 80)
    parts: list[Markup] = list(x_axis(scale, _TOP - 8, bottom, "MiB"))
    for index, (name, whose, device) in enumerate(totals):
        y = _TOP + row * index
        style = _STYLES[names.index(whose)]
        size = device["planned_bytes"] / 2**20
        parts.append(label(left - 8, y + 16, shortened(name, 28), "tick", "end"))
        parts.append(
            bar(left, y + 3, scale(size) - left, row - 10, style, hatched=style == _STYLES[1])
        )
        parts.append(label(scale(size) + 5, y + 16, f"{size:,.1f}", "small"))
    text = "; ".join(f"{name}: {format_bytes(d['planned_bytes'])}" for name, _, d in totals) + "."
    return Figure(
        id="memory-side-by-side",
        title="Memory of each GPU",
        text=text,
        drawing=svg("memory-side-by-side-picture", "Memory of each GPU", text, parts,
                    size=(_WIDTH, bottom + 44), least=1020),
        keys=_keys(names),
    )  # fmt: skip

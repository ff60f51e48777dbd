"""Memory: by category against the budget, through the step, and what is alive at the peak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from markupsafe import Markup

from alexsim.report.page.bars import bar, inside
from alexsim.report.page.chart import Scale, label, rounded_up, text_width, x_axis, y_axis
from alexsim.report.page.elements import (
    Cell,
    Column,
    Figure,
    Key,
    Table,
    number_columns,
    svg,
    tag,
    text_columns,
)
from alexsim.report.page.text import digits, in_mib, percent, seconds, shortened
from alexsim.units import MIB, format_bytes

CATEGORIES = {
    "weight": "weights",
    "momentum": "momentum",
    "weight_grad": "weight and bias gradients",
    "partial_sum": "weight-gradient partial sums",
    "activation": "activations",
    "activation_grad": "activation gradients",
    "norm": "norm denominators",
    "mask": "dropout masks",
    "remote": "copies of the other GPU's activations",
    "remote_grad": "their gradients",
    "input": "input, two minibatches",
    "workspace": "workspace",
    "padding": "alignment and packing gaps",
    "context": "device context",
}
"""From the bottom of a stack to its top: what stays for the whole run comes first."""
HATCHED = ("momentum", "partial_sum", "activation_grad", "mask", "remote_grad", "padding")
"""Told from its neighbour of the same colour by hatching."""
_WIDTH, _LEFT, _RIGHT = 1120.0, 62.0, 1100.0
_ROW = 40.0


def ordered(found: Iterable[str]) -> list[str]:
    """Categories from bottom to top; unknown ones last."""
    known = list(CATEGORIES)
    return sorted(set(found), key=lambda name: (known.index(name) if name in known else 99, name))


def keys(categories: Iterable[str]) -> tuple[Key, ...]:
    """A legend of categories."""
    return tuple(
        Key(style=f"m-{name}", name=CATEGORIES.get(name, name), hatched=name in HATCHED)
        for name in ordered(categories)
    )


def budget_bars(devices: Sequence[dict[str, Any]], budget: tuple[int, str] | None) -> Figure:
    """A bar per GPU, stacked by category, and the budget's line."""
    fullest = max(device["planned_bytes"] for device in devices)
    high = rounded_up(max(fullest, budget[0] if budget else 0) * 1.02 / MIB, 8)
    scale = Scale(low=0, high=high, start=_LEFT, end=_RIGHT)
    top, bottom = 40.0, 40.0 + len(devices) * (_ROW + 14)
    parts = list(x_axis(scale, top - 6, bottom, "MiB", about=8))
    for index, device in enumerate(devices):
        parts += _stack(device, scale, top + index * (_ROW + 14))
    if budget:
        at = scale(budget[0] / MIB)
        parts.append(tag("line", x1=at, x2=at, y1=top - 10, y2=bottom, class_="budget"))
        text = f"{budget[1]}: {format_bytes(budget[0])}"
        parts.append(label(at - 4 if at > _WIDTH / 2 else at, top - 16, text, "head",
                           "end" if at > _WIDTH / 2 else "start"))  # fmt: skip
    said = " ".join(_against(device, budget) for device in devices)
    names = {name for device in devices for name in device["by_category"]}
    return Figure(
        id="memory-by-category",
        title="Memory by category",
        text=said,
        drawing=svg(
            "memory-by-category-picture", "Memory by category", said, parts,
            size=(_WIDTH, bottom + 44), least=1020,
        ),
        keys=keys(names),
        table=category_table(devices, budget),
    )  # fmt: skip


def _against(device: dict[str, Any], budget: tuple[int, str] | None) -> str:
    held = f"{device['name']} holds {format_bytes(device['planned_bytes'])}"
    if not budget:
        return f"{held}."
    share = percent(device["planned_bytes"] / budget[0])
    return f"{held}, {share} of {format_bytes(budget[0])} ({budget[1]})."


def _stack(device: dict[str, Any], scale: Scale, y: float) -> Iterator[Markup]:
    yield label(4, y + _ROW / 2 + 4, shortened(device["name"], 8), "tick strong")
    reached = 0.0
    for name in ordered(device["by_category"]):
        size = device["by_category"][name] / MIB
        left, right = scale(reached), scale(reached + size)
        reached += size
        text = CATEGORIES.get(name, name)
        children = [
            tag("title", f"{device['name']} {text}: {in_mib(size * MIB)} MiB"),
            bar(left, y, right - left, _ROW, f"m-{name}", hatched=name in HATCHED),
        ]
        value, hatched = digits(size), name in HATCHED
        if text_width(value) + 6 < right - left:
            middle = (left + right) / 2
            children.append(inside(middle, y + _ROW / 2 + 4, value, f"m-{name}", hatched=hatched))
        yield tag("g", *children)


def category_table(devices: Sequence[dict[str, Any]], budget: tuple[int, str] | None) -> Table:
    """MiB by category and GPU, with totals and what is free."""
    rows = []
    for name in ordered(name for device in devices for name in device["by_category"]):
        sizes = [device["by_category"].get(name, 0) for device in devices]
        rows.append(
            (
                Cell(text=CATEGORIES.get(name, name)),
                *(Cell(text=in_mib(size), value=size) for size in sizes),
            )
        )
    foot = [("total", [device["planned_bytes"] for device in devices])]
    if budget:
        foot.append((budget[1], [budget[0] for _ in devices]))
        foot.append(("free", [budget[0] - device["planned_bytes"] for device in devices]))
    return Table(
        id="memory-by-category-table",
        caption="MiB by category and GPU",
        columns=text_columns("category") + number_columns(*(one["name"] for one in devices)),
        rows=tuple(rows),
        foot=tuple(
            (Cell(text=name), *(Cell(text=in_mib(size)) for size in sizes)) for name, sizes in foot
        ),
    )


def through_the_step(device: dict[str, Any], spans: Sequence[dict[str, Any]], clock: str) -> Figure:
    """What is alive while each op runs, by category, over the step's time."""
    moments = list(_moments(device, spans))
    end = max((span["end_s"] for span in spans), default=0.0)
    totals = [sum(by.values()) for _, _, by in moments]
    high = rounded_up(max(totals) * 1.12 / MIB)
    x = Scale(low=0, high=1e3 * end, start=58, end=548)
    y = Scale(low=0, high=high, start=236, end=44)
    parts = [
        label(4, 14, "MiB alive", "axis"),
        *y_axis(y, x.start, x.end, ""),
        *x_axis(x, 236, 240, f"ms, {clock}"),
    ]
    bottoms = [0.0] * len(moments)
    names = ordered(name for _, _, by in moments for name in by)
    for name in names:
        tops = [low + by.get(name, 0) for low, (_, _, by) in zip(bottoms, moments, strict=True)]
        parts += _layer([at for at, _, _ in moments], bottoms, tops, (x, y, end), name)
        bottoms = tops
    peak = next((i for i, (_, op, _) in enumerate(moments) if op == device["peak_op"]), None)
    if peak is None:
        peak = totals.index(max(totals))
    at = x(1e3 * moments[peak][0])
    parts.append(tag("line", x1=at, x2=at, y1=30, y2=236, class_="budget"))
    right = at < 300
    parts.append(
        label(
            at + 5 if right else at - 5, 38,
            f"peak {in_mib(totals[peak])} MiB: {shortened(device['peak_op'], 26)}",
            "head", "start" if right else "end",
        )
    )  # fmt: skip
    lowest = min(totals)
    text = (
        f"{device['name']}: at most {format_bytes(max(totals))} are alive, while"
        f" {device['peak_op']} runs ({seconds(moments[peak][0])} into the step); at least"
        f" {format_bytes(lowest)}. Alignment and packing gaps are not in it. Colours as above."
    )
    id_ = f"memory-through-{device['name']}"
    return Figure(
        id=id_,
        title=f"{device['name']} through the step",
        text=text,
        drawing=svg(f"{id_}-picture", f"{device['name']} through the step", text, parts,
                    size=(560, 282), least=500),
        table=_moment_table(id_, device, moments),
        wide=False,
    )  # fmt: skip


def _moments(
    device: dict[str, Any], spans: Sequence[dict[str, Any]]
) -> Iterator[tuple[float, str, dict[str, int]]]:
    """Start, op and bytes by category, in issue order; time never runs back."""
    starts = {span["id"]: span["start_s"] for span in spans}
    reached = 0.0
    first = device["timeline"][0]
    for change in device["timeline"]:
        # What is alive at the first op was so before it.
        reached = max(reached, starts.get(change["op"], reached)) if change is not first else 0.0
        yield reached, change["op"], change["by_category"]


def _layer(
    starts: list[float], bottoms: list[float], tops: list[float],
    frame: tuple[Scale, Scale, float], name: str,
) -> Iterator[Markup]:  # fmt: skip
    """One category's area, in steps."""
    x, y, end = frame
    ends = [*starts[1:], end]
    upper, lower = [], []
    for start, stop, low, high in zip(starts, ends, bottoms, tops, strict=True):
        left, right = x(1e3 * start), x(1e3 * stop)
        upper += [f"{left:.1f},{y(high / MIB):.1f}", f"{right:.1f},{y(high / MIB):.1f}"]
        lower += [f"{left:.1f},{y(low / MIB):.1f}", f"{right:.1f},{y(low / MIB):.1f}"]
    path = " ".join([*upper, *reversed(lower)])
    most = max(high - low for low, high in zip(bottoms, tops, strict=True))
    title = tag("title", f"{CATEGORIES.get(name, name)}: up to {in_mib(most)} MiB")
    yield tag("g", title, tag("polygon", points=path, class_=f"f-m-{name} area"))
    if name in HATCHED:
        yield tag("polygon", points=path, fill="url(#hatch)")


def _moment_table(
    id_: str, device: dict[str, Any], moments: list[tuple[float, str, dict[str, int]]]
) -> Table:
    return Table(
        id=f"{id_}-table",
        caption=f"Where the bytes alive on {device['name']} change",
        columns=(
            *text_columns("from op"),
            *number_columns("ms", "MiB alive", "workspace, MiB"),
        ),
        rows=tuple(
            (
                Cell(text=op),
                Cell(text=digits(1e3 * at) if at else "0"),
                Cell(text=in_mib(sum(by.values()))),
                Cell(text=in_mib(by.get("workspace", 0))),
            )
            for at, op, by in moments
        ),
    )


def alive_table(device: dict[str, Any]) -> Table:
    """The largest buffers at the fullest op."""
    return Table(
        id=f"alive-{device['name']}",
        caption=f"Largest buffers alive on {device['name']} at {device['peak_op']}",
        columns=(
            Column(name="buffer", number=False),
            Column(name="category", number=False),
            Column(name="MiB"),
        ),
        rows=tuple(
            (
                Cell(text=one["label"]),
                Cell(text=CATEGORIES.get(one["category"], one["category"])),
                Cell(text=in_mib(one["bytes"]), value=one["bytes"]),
            )
            for one in device["alive_at_peak"]
        ),
        sortable=True,
    )

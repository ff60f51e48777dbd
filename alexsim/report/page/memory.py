"""Memory: by category against the budget, through the step, and what is alive at the peak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from alexsim.report.documents.profile import PlanDocument
from alexsim.report.documents.step import DeviceMemory
from alexsim.report.figures.memory import (
    AliveFrom,
    Budget,
    alike,
    alive_through,
    category,
    ordered,
)
from alexsim.report.figures.text import in_mib, percent, seconds
from alexsim.report.figures.timeline import spans_of
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Section,
    Table,
    number_columns,
    text_columns,
    words,
)
from alexsim.report.page.steps import time
from alexsim.units import format_bytes

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def memory_section(
    document: PlanDocument, budget: Budget | None, plots: Mapping[str, Plot]
) -> Section:
    """What each GPU holds; of GPUs that hold the same, the first is shown through the step."""
    devices = document.memory.devices
    notes = tuple(
        f"{held.devices}: the allocator held {format_bytes(held.measured_bytes)} at most,"
        f" {format_bytes(held.planned_bytes)} were planned."
        for held in document.memory.held
    )
    groups = alike(devices)
    by_category = Figure(
        id="memory-by-category",
        title="Memory by category",
        text=" ".join(_against(device, budget) for device in devices),
        drawing=plots["memory"],
        table=category_table({device.name: device for device in devices}, budget),
    )
    through = [
        _through_step(document, group, plots)
        for group in groups
        if f"memory-{group[0].name}" in plots
    ]
    return Section(
        id="memory",
        title="Memory",
        figures=(by_category, *through),
        tables=tuple(alive_table(group[0]) for group in groups),
        notes=notes,
    )


def _against(device: DeviceMemory, budget: Budget | None) -> str:
    held = f"{device.name} holds {format_bytes(device.planned_bytes)}"
    if not budget:
        return f"{held}."
    part = percent(device.planned_bytes / budget.bytes)
    return f"{held}, {part} of {format_bytes(budget.bytes)} ({budget.source})."


def category_table(devices: Mapping[str, DeviceMemory], budget: Budget | None) -> Table:
    """MiB by category and GPU, with totals and what is free."""
    held = devices.values()
    foot = [("total", [device.planned_bytes for device in held])]
    if budget:
        foot.append((budget.source, [budget.bytes for _ in held]))
        foot.append(("free", [budget.bytes - device.planned_bytes for device in held]))
    return Table(
        id="memory-table",
        caption="MiB by category and GPU",
        columns=text_columns("category") + number_columns(*devices),
        rows=tuple(
            (Cell(text=category(key)), *_sizes(device.by_category.get(key, 0) for device in held))
            for key in ordered(key for device in held for key in device.by_category)
        ),
        foot=tuple((Cell(text=name), *_sizes(sizes)) for name, sizes in foot),
    )


def _sizes(sizes: Iterable[int]) -> Iterator[Cell]:
    return (Cell(text=in_mib(size), value=size) for size in sizes)


def _through_step(
    document: PlanDocument, group: Sequence[DeviceMemory], plots: Mapping[str, Plot]
) -> Figure:
    device, *others = group
    spans = next(iter(spans_of(document).values()))
    moments = alive_through(device, [span for span in spans if span.device == device.name])
    peak = max(moments, key=lambda moment: (moment.op == device.peak_op, moment.total_bytes))
    text = (
        f"At most {format_bytes(max(moment.total_bytes for moment in moments))} are alive, while"
        f" {device.peak_op} runs ({seconds(peak.start_s)} into the step); at least"
        f" {format_bytes(min(moment.total_bytes for moment in moments))}. Alignment and packing"
        " gaps are not in it."
    )
    if others:
        text += f" {', '.join(other.name for other in others)} the same."
    return Figure(
        id=f"memory-{device.name}",
        title=f"{device.name} through the step",
        text=text,
        drawing=plots[f"memory-{device.name}"],
        table=_moment_table(device.name, moments),
    )


def _moment_table(name: str, moments: Sequence[AliveFrom]) -> Table:
    return Table(
        id=f"memory-{name}-table",
        caption=f"Where the bytes alive on {name} change",
        columns=text_columns("from op") + number_columns("ms", "MiB alive", "workspace, MiB"),
        rows=tuple(
            (
                Cell(text=moment.op),
                time(moment.start_s),
                *_sizes((moment.total_bytes, moment.by_category.get("workspace", 0))),
            )
            for moment in moments
        ),
    )


def alive_table(device: DeviceMemory) -> Table:
    """The largest buffers at the fullest op."""
    return Table(
        id=f"alive-{device.name}",
        caption=f"Largest buffers alive on {device.name} at {device.peak_op}",
        columns=text_columns("buffer", "category") + number_columns("MiB"),
        rows=tuple(
            (*words(buffer.label, category(buffer.category)), *_sizes([buffer.bytes]))
            for buffer in device.alive_at_peak
        ),
        sortable=True,
    )

"""Memory: by category against the budget, through the step, and what is alive at the peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alexsim.documents.profile import PlanDocument
from alexsim.documents.step import DeviceMemory
from alexsim.page.elements import Figure, Section, Table, mib, ms, table
from alexsim.page.figures.memory import (
    Budget,
    alike,
    alive_through,
    category,
    ordered,
    with_context,
)  # fmt: skip
from alexsim.page.figures.text import percent, seconds
from alexsim.page.figures.timeline import spans_of
from alexsim.units import format_bytes


def memory_section(document: PlanDocument, budget: Budget | None) -> Section:
    """What each GPU holds; of GPUs that hold the same, the first is shown through the step."""
    devices = document.memory.devices
    notes = [
        f"{held.devices}: the allocator held {format_bytes(held.measured_bytes)} at most,"
        f" {format_bytes(held.planned_bytes)} were planned, without a card's context."
        for held in document.memory.held
    ]
    name = "memory-by-category"
    text = " ".join(_against(device, budget) for device in devices)
    if (copies := document.gpus // len(devices)) > 1:
        text += f" Each of {copies} replicas holds as much."
    rows = category_table({device.name: device for device in devices}, budget, f"{name}-table")
    figures = [Figure(name, "Memory by category", text, rows)]
    timed = {span.device for span in next(iter(spans_of(document).values()), ())}
    figures += [_through_step(document, of) for of in alike(devices) if of[0].name in timed]
    tables = [alive_table(group[0]) for group in alike(devices)]
    return Section("memory", "Memory", figures=figures, tables=tables, notes=notes)


def _against(device: DeviceMemory, budget: Budget | None) -> str:
    held = f"{device.name} holds {format_bytes(device.planned_bytes)}, {with_context([device])}"
    if not budget:
        return f"{held}."
    part = percent(device.planned_bytes / budget.bytes)
    return f"{held}: {part} of {format_bytes(budget.bytes)} ({budget.source})."


def category_table(devices: Mapping[str, DeviceMemory], budget: Budget | None, id_: str) -> Table:
    """MiB by category and GPU, with totals and what is free."""
    held = devices.values()
    # Of several subjects, each GPU's may be counted otherwise: its column's heading says so.
    contexts = {name: with_context([device]) for name, device in devices.items()}
    same = len(set(contexts.values())) == 1
    heads = devices if same else [f"{name}, {said}" for name, said in contexts.items()]
    caption = "MiB by category and GPU"
    rows = {
        category(key): [device.by_category.get(key, 0) for device in held]
        for key in ordered(key for device in held for key in device.by_category)
    }
    foot = {"total": [device.planned_bytes for device in held]}
    if budget:
        foot[budget.source] = [budget.bytes for _ in held]
        foot["free"] = [budget.bytes - device.planned_bytes for device in held]
    return Table(
        id=id_,
        caption=f"{caption}, {next(iter(contexts.values()))}" if same else caption,
        columns=("category", *heads),
        rows=tuple((name, *map(mib, sizes)) for name, sizes in rows.items()),
        foot=tuple((name, *map(mib, sizes)) for name, sizes in foot.items()),
    )


def _through_step(document: PlanDocument, group: Sequence[DeviceMemory]) -> Figure:
    device, *others = group
    spans = next(iter(spans_of(document).values()))
    moments = alive_through(device, [span for span in spans if span.device == device.name])
    peak = max(moments, key=lambda moment: (moment.op == device.peak_op, moment.total_bytes))
    sizes = [moment.total_bytes for moment in moments]
    text = (
        f"At most {format_bytes(max(sizes))} are alive, while {device.peak_op} runs"
        f" ({seconds(peak.start_s)} into the step); at least {format_bytes(min(sizes))}."
        " Alignment, packing gaps and a card's context are not in it."
    )
    if others:
        text += f" {', '.join(other.name for other in others)} the same."
    name = f"memory-{device.name}"
    rows = table(
        f"{name}-table", f"Where the bytes alive on {device.name} change", moments,
        {
            "from op": lambda moment: moment.op,
            "ms": lambda moment: ms(moment.start_s),
            "MiB alive": lambda moment: mib(moment.total_bytes),
            "workspace, MiB": lambda moment: mib(moment.by_category.get("workspace", 0)),
        },
    )  # fmt: skip
    return Figure(name, f"{device.name} through the step", text, rows)


def alive_table(device: DeviceMemory) -> Table:
    """The largest buffers at the fullest op."""
    return table(
        f"alive-{device.name}",
        f"Largest buffers alive on {device.name} at {device.peak_op}",
        device.alive_at_peak,
        {
            "buffer": lambda buffer: buffer.label,
            "category": lambda buffer: category(buffer.category),
            "MiB": lambda buffer: mib(buffer.bytes),
        },
        sortable=True,
    )

"""Spec sheets as terminal tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.machine.device import Architecture, Device
from alexsim.machine.link import Link
from alexsim.machine.machine import Machine
from alexsim.machine.sheet import Quantity
from alexsim.report.tables import plain_table


def hardware_tables(
    machines: Mapping[str, Machine], devices: Mapping[str, Device], links: Mapping[str, Link]
) -> RenderableType:
    """All machines, devices and links, one line each."""
    machine_table = plain_table("Machines", "name", "what it is")
    machine_table.columns[0].min_width = max(map(len, machines))
    machine_table.columns[1].justify = "left"
    machine_table.columns[1].no_wrap = False
    for name, machine in machines.items():
        machine_table.add_row(name, machine.name)
    device_table = plain_table("Devices", "name", "year", "architecture", "TFLOP/s", "GB/s", "GiB")
    device_table.columns[2].justify = "left"
    for name, device in sorted(devices.items(), key=lambda item: (item[1].year, item[0])):
        device_table.add_row(
            name,
            str(device.year),
            device.architecture.name,
            f"{device.flop_per_s / 1e12:.2f}",
            f"{device.memory_bytes_per_s.value / 1e9:,.0f}",
            f"{device.memory_bytes.value / 1024**3:.1f}",
        )
    link_table = plain_table("Links, one direction", "name", "GB/s", "reached", "latency")
    for name, link in links.items():
        link_table.add_row(
            name,
            f"{link.bytes_per_s.value / 1e9:.2f}",
            f"{link.effective_bytes_per_s / 1e9:.2f}",
            f"{1e6 * link.latency_s.value:g} us",
        )
    return Group(machine_table, device_table, link_table)


def sheet_tables(sheet: Machine | Device | Link) -> RenderableType:
    """One sheet: every number with its kind and source."""
    parts: list[RenderableType] = [Text(sheet.name)]
    if isinstance(sheet, Device) and sheet.note:
        parts.append(Text(f"Note: {sheet.note}"))
    if isinstance(sheet, Machine):
        access = "read" if sheet.peer else "cannot read"
        parts.append(
            Text(f"Devices {access} each other's memory; collectives: {sheet.collectives}")
        )
        if sheet.devices:
            held = (f"gpu{index} {card.name}" for index, card in enumerate(sheet.devices))
            parts.append(Text(f"Unlike cards: {', '.join(held)}"))
    for title, record in _records(sheet):
        parts.append(Text(f"\n{title}"))
        for name, quantity in quantities(record):
            parts.append(Text(f"  {name} = {quantity.value:,.12g}  [{quantity.kind}]"))
            parts.append(Text(f"    {quantity.source}", style="dim"))
    return Group(*parts)


def _records(sheet: Machine | Device | Link) -> Iterator[tuple[str, Any]]:
    if isinstance(sheet, Machine):
        yield "machine", sheet
        for name in ("link", "uplink", "peer_link", "network"):
            if (link := getattr(sheet, name)) is not None:
                yield f"{name}: {link.name}", link
        cards = {card.name: card for card in sheet.devices or (sheet.device,)}
        for name, card in cards.items():
            yield f"device: {name}", card
        for architecture in {
            card.architecture.name: card.architecture for card in cards.values()
        }.values():
            yield f"architecture: {architecture.name}", architecture
    elif isinstance(sheet, Device):
        yield "device", sheet
        yield f"architecture: {sheet.architecture.name}", sheet.architecture
    else:
        yield "link", sheet


def quantities(record: Machine | Device | Link | Architecture) -> Iterator[tuple[str, Quantity]]:
    """The numbers of a record, in the order of its sheet."""
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Quantity):
            yield field.name, value

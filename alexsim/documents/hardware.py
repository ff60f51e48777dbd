"""``alexsim hardware list --json`` and ``hardware show --json``: numbers with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

from alexsim.documents.base import Document, Part
from alexsim.machine.device import Device
from alexsim.machine.link import Link
from alexsim.machine.machine import Machine
from alexsim.report.hardware import quantities


class QuantityRow(Part):
    """A number, and where it comes from."""

    value: int | float
    kind: str
    """``spec``, ``measured`` or ``fitted``."""
    source: str


class LinkSheet(Part):
    """A link: its title, and every number of its sheet by its key, which ends with the unit."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, QuantityRow]

    title: str


class DeviceSheet(LinkSheet):
    """A card, or one die of a card with two, and its numbers."""

    year: int
    compute_capability: str
    note: str
    architecture: str
    peer: bool
    """Devices of this kind may read each other's memory."""


class MachineSheet(LinkSheet):
    """A machine, equal devices in equal nodes, and its numbers."""

    device: str
    devices: tuple[DeviceSheet, ...] = ()
    """The cards of a node, slot by slot, where they are unlike; ``device`` is the first."""
    peer: bool
    """Devices may read each other's memory."""
    collectives: str
    """Who sums gradients: ``copies``, ``nccl``, ``tree``, ``root`` or ``host``."""
    link: LinkSheet
    uplink: LinkSheet
    peer_link: LinkSheet | None
    network: LinkSheet | None


class MachineDocument(MachineSheet, Document):
    """``alexsim hardware show --json`` of a machine."""


class DeviceDocument(DeviceSheet, Document):
    """``alexsim hardware show --json`` of a device."""


class LinkDocument(LinkSheet, Document):
    """``alexsim hardware show --json`` of a link."""


class NamedMachine(Part):
    """A machine that has a sheet."""

    name: str
    title: str


class NamedDevice(DeviceSheet):
    """A device that has a sheet."""

    name: str


class NamedLink(LinkSheet):
    """A link that has a sheet."""

    name: str


class HardwareDocument(Document):
    """``alexsim hardware list --json``."""

    machines: tuple[NamedMachine, ...]
    devices: tuple[NamedDevice, ...]
    links: tuple[NamedLink, ...]


def hardware_document(
    machines: Mapping[str, Machine], devices: Mapping[str, Device], links: Mapping[str, Link]
) -> HardwareDocument:
    """``alexsim hardware list --json``."""
    return HardwareDocument.of(
        machines=[{"name": key, "title": machine.name} for key, machine in machines.items()],
        devices=[{"name": key} | _sheet(device) for key, device in devices.items()],
        links=[{"name": key} | _sheet(link) for key, link in links.items()],
    )


def sheet_document(sheet: Machine | Device | Link) -> Document:
    """``alexsim hardware show --json``."""
    kinds: dict[type, type[Document]] = {Machine: MachineDocument, Device: DeviceDocument}
    return kinds.get(type(sheet), LinkDocument).headed(_sheet(sheet))


def _sheet(sheet: Machine | Device | Link) -> dict[str, Any]:
    """A sheet's texts and numbers by key."""
    table: dict[str, Any] = {"title": sheet.name}
    if isinstance(sheet, Device):
        table |= {name: getattr(sheet, name) for name in ("year", "compute_capability", "note")}
        table |= {"architecture": sheet.architecture.name, "peer": sheet.peer}
    table |= dict(quantities(sheet))
    if isinstance(sheet, Machine):
        table |= {"device": sheet.device_name, "peer": sheet.peer}
        table |= {"collectives": sheet.collectives, "devices": [_sheet(d) for d in sheet.devices]}
        for name in ("link", "uplink", "peer_link", "network"):
            link = getattr(sheet, name)
            table[name] = None if link is None else _sheet(link)
    return table

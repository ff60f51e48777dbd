"""Links and machines: how devices reach each other, the host and other machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from annotated_types import Ge

from alexsim.errors import ProfileError, known_as, unknown
from alexsim.machine.counted import MOST, count_of
from alexsim.machine.device import Device, device_names, device_sheet, load_device
from alexsim.machine.link import Link, link_if_any, link_names, load_link
from alexsim.machine.own import Table, alike, inherited, sheet_of, stated
from alexsim.machine.sheet import (
    Count,
    Positive,
    Quantity,
    Sheet,
    find,
    in_si,
    names,
    numbers,
)
from alexsim.typed import Named, read

Collectives = Literal["copies", "nccl", "tree", "root", "host"]
_ONE_PROCESSOR = Quantity(value=16, kind="spec", source="one processor, unless the sheet says more")
_BETWEEN_PROCESSORS = Quantity(
    value=5.3e9,
    kind="fitted",
    source="geometric mean of rings of eight in seven published sets of all-reduces over PCI"
    " Express: Titan X (Pascal) and GTX 1080 Ti 8.7, P100 5.1 and 5.9, Titan X (Maxwell) and M40"
    " 6.2, L40S 1.5 GB/s (DeepBench 2017 and 2018, aiconfigurator)",
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Machine(Sheet):
    """Devices in equal nodes; alike, unless ``devices`` says what each of a node is.

    A device reaches its root or switch over ``link``; ``devices_per_uplink`` of them share one
    ``uplink`` towards the host and the other groups. ``peer_link`` joins devices directly
    (NVLink), ``network`` joins nodes; both may be absent. ``peer``: devices may read each other's
    memory, else an exchange is staged through the host's. ``collectives``: who sums gradients (see
    ``alexsim.machine.collectives``).
    """

    name: str
    device: Annotated[Device, Named(load_device)]
    device_name: str
    link: Annotated[Link, Named(load_link)]
    uplink: Annotated[Link, Named(load_link)]
    peer_link: Annotated[Link | None, Named(link_if_any)]
    network: Annotated[Link | None, Named(link_if_any)]
    peer: bool
    devices_per_node: Count
    devices_per_uplink: Count
    decode_workers: Count
    decode_images_per_s: Positive
    """JPEGs that one worker decodes: 256 x 256, unless ``rates_for`` says otherwise."""
    crop_workers: Count
    crop_images_per_s: Positive
    """Images that one worker crops, mirrors and colours."""
    disk_bytes_per_s: Positive
    host_staging_bytes_per_s: Positive
    """What devices can write to and read from the host's memory at once, all together."""
    collectives: Collectives = "copies"
    devices_per_socket: Count = _ONE_PROCESSOR
    """Devices that one processor connects, of those without a link of their own."""
    socket_bytes_per_s: Positive = _BETWEEN_PROCESSORS
    """What a ring of kernels reaches that passes from one processor to another."""
    rates_for: Annotated[int, Ge(1)] = 224
    """Side of the crops that both rates are for; what is decoded is 256/224 of it."""
    devices: tuple[Annotated[Device, Named(load_device)], ...] = ()
    """The cards of a node, slot by slot, where they are unlike; empty: each is ``device``."""

    def __post_init__(self) -> None:
        Sheet.__post_init__(self)
        if self.devices and len(self.devices) != self.devices_per_node.value:
            raise ProfileError(
                f"devices lists {len(self.devices)}, and devices_per_node must be as many, got"
                f" {self.devices_per_node.value:g}"
            )

    def device_at(self, index: int) -> Device:
        """The card in a slot; slots are counted through all nodes."""
        return self.devices[index % len(self.devices)] if self.devices else self.device

    def cards(self, count: int) -> tuple[Device, ...]:
        """Those of the first slots."""
        return tuple(map(self.device_at, range(count)))

    def lacks(self, devices: int) -> str:
        """Why it cannot have that many devices at work; empty if it can."""
        room = self.devices_per_node.value
        if self.network is not None or devices <= room:
            return ""
        return f"{self.name} has {room:g} device(s) and no network; {devices} are asked for"


NUMBERS = tuple(numbers(Machine))
"""Names of a machine's own numbers."""
_LINKS = ("link", "uplink", "peer_link", "network")


def machine_names() -> tuple[str, ...]:
    """Names of the machines that have a sheet, sorted."""
    return names("machines")


@cache
def load_machine(name: str, link: str = "", network: str = "") -> Machine:
    """A machine's sheet, or one device of that name on a bus of its time, or a TOML file.

    A bare device is as many cards as are asked for in one host, each in a slot of its own. With a
    network it is a machine of one card, and the cards are as many such machines. With a count, as
    in ``a100x4`` or ``4xa100``, it is that many cards in each host.

    Args:
        name: a machine, a device, or the path of a TOML file of either; as ``known_as`` knows it.
        link: the link of each device; that of the sheet, or of the device's time, by default.
        network: the link that joins nodes; that of the sheet, or none, by default.

    Raises:
        ProfileError: no machine and no device has that name, or a sheet is malformed.
    """
    table, where = machine_sheet(name, apart=bool(network))
    # The record keeps the name of its device's sheet beside the device.
    device = table.get("device")
    if isinstance(device, str) and device.endswith(".toml"):
        device = Path(device).stem
    machine = read(Machine, table | {"device_name": device}, where)
    if link:
        bus = load_link(link)
        machine = replace(machine, link=bus, uplink=bus)
    if network:
        machine = replace(machine, network=load_link(network))
    return machine


def machine_for(name: str, devices: int, network: str = "") -> Machine:
    """A machine for that many devices or, with a network, as many such machines as they need.

    Raises:
        ProfileError: it has fewer devices; or the network joins nothing, as one machine has them.
    """
    machine = load_machine(name, "", network)
    if network and devices <= machine.devices_per_node.value:
        raise ProfileError(
            f"--network {network} changes no figure here: all GPUs are in one machine; leave it out"
        )
    if lacking := machine.lacks(devices):
        raise ProfileError(lacking)
    return machine


def machine_sheet(name: str, *, apart: bool = False) -> tuple[Table, str]:
    """The table that ``load_machine`` reads, every number with its source's text, and its place.

    A file inherits what it does not say: of the machine that it is ``like``, or of one of its
    device's time.

    Args:
        name: as ``load_machine`` takes it.
        apart: of a device, one card in each such machine.

    Raises:
        ProfileError: no machine and no device has that name, or a sheet is malformed.
    """
    if name.endswith(".toml"):
        table, where = find("machines", name, what="machine")
        kind = _kind(table)
        if kind is Link:
            raise ProfileError(f"{where} is the sheet of a link, not of a machine or a device")
        if kind is Device:
            return _around(name, apart=apart), where
        return _completed(stated(Machine, table, where), where), where
    written, count = count_of(name)
    if count is not None or written in device_names():
        return _around(written, apart=apart, count=count), name
    if written in machine_names():
        return sheet_of(Machine, written)
    raise ProfileError(unknown("machine or device", name, (*machine_names(), *device_names())))


def _completed(table: Table, where: str) -> Table:
    """A machine's file with all that it inherits."""
    base, whose = alike(table, where, machine_sheet)
    listed = table.get("devices", [table.get("device", base.get("device"))])
    if listed == [None]:
        raise ProfileError(
            f"{where}: missing keys ['device']: the name of a card, or a TOML file of one; or like,"
            " the name of a machine"
        )
    key = "devices" if "devices" in table else "device"
    if not (isinstance(listed, list) and listed and all(isinstance(c, str) for c in listed)):
        kind = "a list of texts" if key == "devices" else "a text"
        raise ProfileError(f"{where}: {key} must be {kind}, got {table[key]!r}")
    if table.get("device", listed[0]) != listed[0]:
        raise ProfileError(f"{where}: device is the first of devices; leave it out")
    try:
        if key == "devices":
            table["device"] = listed[0]
            table.setdefault("devices_per_node", _counted(len(listed), f"the devices of {where}"))
            table.setdefault("peer", {load_device(card).peer for card in listed} == {True})
        if not whose:
            base, whose = _around(listed[0], apart=False), f"a machine around {listed[0]}"
    except ProfileError as error:
        raise ProfileError(f"{where}: {key}: {error}") from error
    return inherited(Machine, table, where, base, whose)


def _kind(table: Table) -> type[Machine] | type[Device] | type[Link]:
    """What a file is a sheet of: what most of its keys are of, or its ``like``."""
    like = table.get("like")
    if isinstance(like, str):
        written, count = count_of(like)
        if count is not None or written in machine_names():
            return Machine
        return Link if known_as(like, link_names()) else Device
    keys = {in_si(f".{key}", 1.0)[0].removeprefix(".") for key in table}

    def shared(kind: type[Sheet]) -> int:
        return len(keys & {field.name for field in fields(kind)})

    return max((Device, Machine, Link), key=shared)


def sheet_table(
    name: str,
) -> tuple[type[Machine] | type[Device] | type[Link], Table]:
    """Whatever has a sheet of that name, a machine, a device or a link, or a TOML file of one: its
    record's class and its table, with all that it inherits.

    Raises:
        ProfileError: nothing has, or the sheet is malformed.
    """
    if name.endswith(".toml"):
        kind = _kind(find("machines", name, what="sheet")[0])
    else:
        written, count = count_of(name)
        if count is not None or written in machine_names():
            kind = Machine
        elif written in device_names():
            kind = Device
        elif known_as(name, link_names()):
            kind = Link
        else:
            known = (*machine_names(), *device_names(), *link_names())
            titles = {each: load_link(each).name for each in link_names()}
            raise ProfileError(unknown("machine, device or link", name, known, titles=titles))
    if kind is Machine:
        return kind, machine_sheet(name)[0]
    return kind, device_sheet(name)[0] if kind is Device else sheet_of(Link, name)[0]


def load_sheet(name: str) -> Machine | Device | Link:
    """The record of whatever ``sheet_table`` finds.

    Raises:
        ProfileError: nothing has such a sheet, or it is malformed.
    """
    kind, _ = sheet_table(name)
    if kind is Machine:
        return load_machine(name)
    return load_device(name) if kind is Device else load_link(name)


def _around(name: str, *, apart: bool, count: int | None = None) -> Table:
    """The sheet of a machine of a device's time, with as many of it as are asked for, each in a
    slot; ``apart``: one card in each such machine; ``count``: that many in each."""
    table, where = device_sheet(name)
    device = read(Device, table, where)
    hosts = ((2012, "gtx580x2"), (2016, "titan-blackx4"), (2020, "dgx-1"), (9999, "hgx-h200"))
    base, _ = sheet_of(Machine, next(host for before, host in hosts if device.year < before))
    joined = device.peer_link or load_link(table["link"])
    single = "a slot of its own; beyond a network, a host too"
    many = "as many as are asked for, up to 16" if count is None else "the machine's name"
    each, node = _counted(1, single), _counted(count or MOST, many)
    return base | {
        "name": device.name if count is None else f"{count} x {device.name}, {joined.name}",
        "device": name,
        "link": table["link"],
        "uplink": table["link"],
        "peer_link": table.get("peer_link", ""),
        "peer": device.peer,
        "devices_per_socket": _counted(4, "servers of eight cards have two processors"),
        "devices_per_node": each if apart and count is None else node,
        "devices_per_uplink": each,
    }


def _counted(value: int, source: str) -> dict[str, Any]:
    return {"value": value, "kind": "spec", "source": source}


def number_of(machine: Machine, key: str) -> float | None:
    """The number that ``changed`` would replace, in the key's unit; None where there is none."""
    owner, _, name = in_si(key, 1.0)[0].rpartition(".")
    record = getattr(machine, owner, None) if owner else machine
    quantity = getattr(record, name, None)
    return quantity.value / in_si(key, 1.0)[1] if isinstance(quantity, Quantity) else None


def changed(machine: Machine, settings: Mapping[str, float]) -> Machine:
    """The machine with some numbers replaced: ``device.clock_hz``, ``link.latency_s``, ...

    A key may name the unit of another scale: ``device.clock_mhz``, ``device.memory_gb_per_s``.

    Raises:
        ProfileError: there is no such number, or its value is not allowed.
    """
    for key, value in settings.items():
        machine = _changed(machine, *in_si(key, value))
    return machine


def _changed(machine: Machine, key: str, value: float) -> Machine:
    owner, _, number = key.rpartition(".")
    if owner not in ("device", *_LINKS) and not (owner == "" and number in NUMBERS):
        allowed = [f"device.{n}" for n in ("clock_hz", "memory_bytes_per_s", "multiprocessors")]
        allowed += [f"link.{name}" for name in numbers(Link)] + list(NUMBERS)
        raise ProfileError(f"nothing is named {key!r} to set (for example {', '.join(allowed)})")
    if owner == "device" and machine.devices:
        raise ProfileError(f"{machine.name} holds unlike cards; {key} changes in the sheet of each")
    sheet: Device | Link | Machine | None = getattr(machine, owner) if owner else machine
    if sheet is None:
        raise ProfileError(f"{machine.name} has no {owner}")
    try:
        other: Any = sheet.changed(**{number: value})
    except ProfileError as error:
        known = owner and number in numbers(type(sheet))
        raise ProfileError(f"{owner}.{error}" if known else str(error)) from None
    return replace(machine, **{owner: other}) if owner else cast(Machine, other)

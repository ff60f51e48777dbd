"""Links and machines: how devices reach each other, the host and other machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from annotated_types import Ge

from alexsim.errors import ProfileError, known_as, plain, unknown
from alexsim.machine.device import Device, device_names, load_device
from alexsim.machine.link import Link, link_names, load_link
from alexsim.machine.sheet import (
    Count,
    Positive,
    Quantity,
    Sheet,
    find,
    names,
    numbers,
    read_sheet,
)
from alexsim.typed import Named

Collectives = Literal["copies", "nccl", "tree", "root", "host"]
_ONE_PROCESSOR = Quantity(value=16, kind="spec", source="one processor, unless the sheet says more")
_BETWEEN_PROCESSORS = Quantity(
    value=5.3e9,
    kind="fitted",
    source="geometric mean of rings of eight in seven published sets of all-reduces over PCI"
    " Express: Titan X (Pascal) and GTX 1080 Ti 8.7, P100 5.1 and 5.9, Titan X (Maxwell) and M40"
    " 6.2, L40S 1.5 GB/s (DeepBench 2017 and 2018, aiconfigurator)",
)


def _link_if_any(name: str) -> Link | None:
    return load_link(name) if name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Sheet):
    """Equal devices in equal nodes.

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
    peer_link: Annotated[Link | None, Named(_link_if_any)]
    network: Annotated[Link | None, Named(_link_if_any)]
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

    def lacks(self, devices: int) -> str:
        """Why it cannot have that many devices at work; empty if it can."""
        room = self.devices_per_node.value
        if self.network is not None or devices <= room:
            return ""
        return f"{self.name} has {room:g} device(s) and no network; {devices} are asked for"


NUMBERS = tuple(numbers(Machine))
"""Names of a machine's own numbers."""
_LINKS = ("link", "uplink", "peer_link", "network")
_MOST = 16
"""Devices in one node."""
_COUNTED = (r"(?P<count>[0-9]{1,9})x(?P<name>.+)", r"(?P<name>.+)x(?P<count>[0-9]{1,9})")
"""A device's name with a count before or behind it, without separators."""
_WITHOUT_PEER = ("gtx16", "rtx20", "rtx30", "rtx40", "titan-rtx")
"""GeForce cards since Turing read each other's memory over NVLink alone (NVIDIA's driver reports no
peer access between them over PCI Express)."""
_FOUR = Quantity(value=4, kind="spec", source="servers of eight cards have two processors")


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
    if name.endswith(".toml"):
        table, where = find("machines", name, what="machine")
        if "architecture" in table:
            machine = _around(
                Path(name).stem, read_sheet(Device, table, where), apart=bool(network)
            )
        else:
            machine = _from_sheet(table, where)
    else:
        written, count = _count_of(name)
        if count is not None or written in device_names():
            machine = _around(written, load_device(written), apart=bool(network), count=count)
        elif written in machine_names():
            machine = _from_sheet(*find("machines", written, what="machine"))
        else:
            known = (*machine_names(), *device_names())
            raise ProfileError(unknown("machine or device", name, known))
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


def as_written(name: str) -> str:
    """A machine's name as lists have it, behind a device's its count: ``a100x4``.

    What is not known stays.

    Raises:
        ProfileError: it counts more than a node has, or what is no device.
    """
    written, count = _count_of(name)
    return written if count is None else f"{written}x{count}"


def devices_in(name: str) -> int | None:
    """The count beside a device's name, as in ``a100x4``; None where there is none.

    Raises:
        ProfileError: it counts more than a node has, or what is no device.
    """
    return _count_of(name)[1]


def _count_of(name: str) -> tuple[str, int | None]:
    """A machine or a device as lists have it, and the count beside the device's name."""
    if written := known_as(name, machine_names()) or known_as(name, device_names()):
        return written, None
    for match in (re.fullmatch(pattern, plain(name)) for pattern in _COUNTED):
        if match is None:
            continue
        count = int(match["count"])
        if listed := known_as(f"{match['name']}x{count}", machine_names()):
            return listed, None
        if several := known_as(match["name"], machine_names()):
            raise ProfileError(
                f"{name}: {several} is a machine, and a count is of a device, as in a100x4;"
                " --network LINK joins machines"
            )
        if written := known_as(match["name"], device_names()):
            if 1 <= count <= _MOST:
                return written, count
            raise ProfileError(
                f"{name}: a node has 1 to {_MOST} devices, not {count}; --network LINK joins nodes,"
                f" as in --machine {written}x8 --network 100gbe --gpus 32"
            )
    return name, None


def load_sheet(name: str) -> Machine | Device | Link:
    """Whatever has a sheet of that name: a machine, a device or a link; or a TOML file of one.

    Raises:
        ProfileError: nothing has, or the sheet is malformed.
    """
    if name.endswith(".toml"):
        table, _ = find("machines", name, what="sheet")
        if "device" in table:
            return load_machine(name)
        return load_device(name) if "architecture" in table else load_link(name)
    written, count = _count_of(name)
    if count is not None or written in machine_names():
        return load_machine(name)
    if written in device_names():
        return load_device(written)
    if known_as(name, link_names()):
        return load_link(name)
    known = (*machine_names(), *device_names(), *link_names())
    raise ProfileError(unknown("machine, device or link", name, known))


def _from_sheet(table: Mapping[str, Any], where: str) -> Machine:
    # The record keeps the name of its device's sheet beside the device; a sheet has neither
    # such a key, nor one for rates of other crops, which are a calibration's.
    if strange := sorted({"device_name", "rates_for"} & set(table)):
        raise ProfileError(f"{where}: missing keys [], unknown keys {strange}")
    return read_sheet(Machine, {**table, "device_name": table.get("device")}, where)


def _around(name: str, device: Device, *, apart: bool, count: int | None = None) -> Machine:
    """As many of a device as are asked for, each in a slot of a machine of its time; ``apart``:
    one card in each such machine; ``count``: that many in each."""
    year = device.year
    hosts = ((2012, "gtx580x2"), (2016, "titan-blackx4"), (2020, "dgx-1"), (9999, "hgx-h200"))
    base = load_machine(next(name for before, name in hosts if year < before))
    bus = 2 if year < 2012 or name.startswith("k20") else 3 if year < 2020 else 4
    bus = 5 if year >= 2022 and device.architecture.name == "hopper" else bus
    measured = f"pcie{bus}-x16-{name}"
    link = load_link(measured if measured in link_names() else f"pcie{bus}-x16")
    single = Quantity(
        value=1, kind="spec", source="a slot of its own; beyond a network, a host too"
    )
    source = "as many as are asked for, up to 16" if count is None else "the machine's name"
    many = Quantity(value=count or _MOST, kind="spec", source=source)
    return replace(
        base,
        name=device.name if count is None else f"{count} x {device.name}",
        device=device,
        device_name=name,
        link=link,
        uplink=link,
        peer_link=None,
        peer=not name.startswith(_WITHOUT_PEER),
        devices_per_socket=_FOUR,
        devices_per_node=single if apart and count is None else many,
        devices_per_uplink=single,
    )


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


_UNITS = {
    "bytes": "bytes", "mhz": "MHz", "ghz": "GHz", "hz": "Hz", "gb_per_s": "GB/s",
    "images_per_s": "images/s", "bytes_per_s": "bytes/s", "us": "microseconds",
    "ms": "milliseconds", "s": "seconds", "w": "watts", "usd": "dollars",
}  # fmt: skip


def unit_of(key: str) -> str:
    """The unit that a key of ``changed`` names; empty for counts and shares."""
    name = key.rpartition(".")[2]
    units = (unit for end, unit in _UNITS.items() if f"_{name}".endswith(f"_{end}"))
    return next(units, "")


def in_si(key: str, value: float) -> tuple[str, float]:
    """A key and its number in the unit of the sheets: ``device.clock_mhz`` is ``..._hz``."""
    for suffix, unit, scale in (
        ("_mhz", "_hz", 1e6),
        ("_ghz", "_hz", 1e9),
        ("_gb_per_s", "_bytes_per_s", 1e9),
        ("_us", "_s", 1e-6),
        ("_ms", "_s", 1e-3),
    ):
        if key.endswith(suffix):
            return key.removesuffix(suffix) + unit, value * scale
    return key.replace(".gb_per_s", ".bytes_per_s"), value * (
        1e9 if key.endswith(".gb_per_s") else 1
    )


def _changed(machine: Machine, key: str, value: float) -> Machine:
    owner, _, number = key.rpartition(".")
    if owner not in ("device", *_LINKS) and not (owner == "" and number in NUMBERS):
        allowed = [f"device.{n}" for n in ("clock_hz", "memory_bytes_per_s", "multiprocessors")]
        allowed += [f"link.{name}" for name in numbers(Link)] + list(NUMBERS)
        raise ProfileError(f"nothing is named {key!r} to set (for example {', '.join(allowed)})")
    sheet: Device | Link | Machine | None = getattr(machine, owner) if owner else machine
    if sheet is None:
        raise ProfileError(f"{machine.name} has no {owner}")
    try:
        other: Any = sheet.changed(**{number: value})
    except ProfileError as error:
        known = owner and number in numbers(type(sheet))
        raise ProfileError(f"{owner}.{error}" if known else str(error)) from None
    return replace(machine, **{owner: other}) if owner else cast(Machine, other)

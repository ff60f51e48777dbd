"""Rows of a table of kernels that time no arithmetic: all-reduces, sends, copies.

A row is a mapping of columns to texts, as ``csv.DictReader`` has it: ``op`` is ``allreduce``,
``sendrecv`` or ``memcpy``; ``extra`` is a JSON table with ``bytes`` and, as far as the source says,
``ranks``, ``ranks_per_node``, ``link`` or, of a copy, ``what``. What a source leaves unsaid is what
cards of that time were sold in. The row's own value never counts; that servers differ by how cards
reach each other was read from rates, and stands in ``_SERVERS``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from alexsim.fidelity.rows import Names
from alexsim.machine.collectives import all_reduce_s, send_s
from alexsim.machine.device import load_device
from alexsim.machine.link import Link, load_link
from alexsim.machine.machine import Machine, load_machine
from alexsim.machine.sheet import Quantity, find
from alexsim.typed import read

OPS = ("allreduce", "sendrecv", "memcpy")
_PYTORCH_S = 18e-6
"""What ranks of a PyTorch process group wait for each other: fitted to vidur's all-reduces."""
_SWITCHES = {
    "pascal-gp100": "nvlink1",
    "volta": "nvlink2",
    "ampere": "nvlink3",
    "hopper": "nvlink4",
}
"""Links to an NVSwitch, or of a DGX-1, by architecture."""
_SERVERS = {
    ("titan-x-pascal", "2018"): 4,
    ("gtx1080-ti", "2018"): 4,
    ("p100-pcie", "2017"): 4,
    ("titan-x-maxwell", "2018"): 0,
    ("m40", "2018"): 0,
    ("p100-pcie", "2018"): 0,
}
"""DeepBench's servers by card and year of the sheet: cards behind each switch, or 0 where all goes
through the host's memory. No sheet says which: the first three reach 9 to 12 GB/s on 2 and 4 cards,
the others 6 GB/s on 2, 4 and 8 alike."""
_BRIDGES = {"turing": "nvlink2-bridge", "ampere": "nvlink3", "hopper": "nvlink3"}
"""Links that join pairs; 12 links of 25 GB/s to both sides of the PCIe cards."""
_FABRICS = {"hopper": "ib-ndr"}
"""Networks of servers by architecture; InfiniBand EDR for the others. Servers of bridged pairs pass
2 to 3 GB/s: Ethernet."""
_DEVICE_SHARE = 0.91
"""Of the memory's rate, what kernels reach that only read, write or copy: median of 140 figures on
32 cards (clpeak, SHOC, gpu-benches)."""
_PAGEABLE_SHARE = 0.6
"""Of a pinned copy's rate, what one from pageable memory reaches: median of 58 figures on 29 cards
(clpeak)."""
_COPIES = {
    "host to device, pinned": (False, True),
    "PinnedToGPU": (False, True),
    "host to device, pageable": (False, False),
    "HostToGPU": (False, False),
    "device to host, pinned": (True, True),
    "GPUToPinned": (True, True),
    "device to host, pageable": (True, False),
    "GPUToHost": (True, False),
}
"""Copies by name: whether from the device, and whether the host's memory is pinned."""


def transfer_s(row: Mapping[str, str]) -> float | str:
    """Seconds of the row's call, or why it cannot be predicted, in a line."""
    if row["op"] not in OPS:
        return f"no transfer: {row['op']}"
    device = _device(row["device"])
    if device is None:
        return f"no data sheet: {row['device']}"
    try:
        extra = json.loads(row["extra"])
        size = float(extra["bytes"])
    except (ValueError, KeyError, TypeError):
        return f"bytes not stated: {row['extra']}"
    if row["op"] == "memcpy":
        return _copy_s(row, device, str(extra.get("what", "")), size)
    if not re.search("nccl", row["library"], re.IGNORECASE):
        return f"no model of the library: {row['library']}"
    try:
        ranks, per_node = (int(extra.get(key, 0)) for key in ("ranks", "ranks_per_node"))
    except ValueError:
        return f"ranks not stated: {row['extra']}"
    if ranks < 2:
        return f"ranks not stated: {row['extra']}"
    sheet = re.search(r"sheet of (\d{4})", row["notes"])
    behind = _SERVERS.get((device, sheet[1])) if sheet else None
    machine = _machine(device, str(extra.get("link", "")), per_node or min(ranks, 8), behind)
    started = _PYTORCH_S if "pytorch" in row["library"] and row["op"] == "allreduce" else 0.0
    if row["op"] == "sendrecv":
        return send_s(machine, size, peer=machine.peer, apart=per_node == 1)
    return started + all_reduce_s(machine, ranks, size, peer=machine.peer)


def _copy_s(row: Mapping[str, str], device: str, what: str, size: float) -> float | str:
    if what.startswith("device ") and " to " not in what:
        rate = load_device(device).memory_bytes_per_s.value
        return size / (_DEVICE_SHARE * rate)
    if what not in _COPIES:
        return f"no such copy: {what!r}"
    back, pinned = _COPIES[what]
    link = _host_link(row, device)
    seconds = link.seconds(size, back=back)
    if pinned:
        return seconds
    return link.latency_s.value + (seconds - link.latency_s.value) / _PAGEABLE_SHARE


def _host_link(row: Mapping[str, str], device: str) -> Link:
    if "POWER9" in row["device"]:
        return load_link("nvlink2-power9")
    if "shoc" in row["source"] and not device.startswith("gtx580"):
        # Its hosts, of 2009 to 2012, have PCI Express 2.0 whatever the card.
        return load_link("pcie2-x16")
    return load_machine(device).link


@cache
def _device(printed: str) -> str | None:
    names = read(Names, *find("measurements", "names", what="table"))
    return next((name.name for name in names.device if re.match(name.pattern, printed)), None)


@cache
def _machine(name: str, link: str, per_node: int, behind: int | None) -> Machine:
    """Cards of that name, so many in a node, joined as the row says, ``behind`` as in _SERVERS."""
    machine = load_machine(name)
    if behind is not None:
        source = "the rates of all rows of that server"
        machine = replace(
            machine,
            devices_per_uplink=Quantity(value=behind or 1, kind="fitted", source=source),
            devices_per_socket=Quantity(value=8, kind="fitted", source=source),
            host_staging_bytes_per_s=Quantity(value=6e10, kind="fitted", source=source),
        )
    pairs = _BRIDGES if "pairs" in link and per_node == 2 else {}
    joined = _SWITCHES if link == "NVSwitch" else pairs
    architecture = load_device(name).architecture.name
    peer_link = joined.get(architecture)
    inside = Quantity(value=per_node, kind="spec", source="the row's ranks in a node")
    return replace(
        machine,
        collectives="nccl",
        peer=machine.peer and behind != 0,
        devices_per_node=inside,
        peer_link=load_link(peer_link) if peer_link else None,
        network=load_link("25gbe" if "pairs" in link else _FABRICS.get(architecture, "ib-edr")),
    )

"""Sums and copies among all devices: how long they take, by the library that does them.

A machine names its library (``Machine.collectives``):

- ``copies``: plain copies from device to device, by a ring or a tree, whichever is faster, as in
  cuda-convnet2. A ring moves ``2 (n - 1) / n`` of the buffer over every link in ``2 (n - 1)``
  rounds, a tree the whole buffer up and down ``log2 n`` levels (Patarasuk & Yuan 2009; Thakur et
  al. 2005).
- ``nccl``: kernels that pass on and add what comes in, in a ring inside a node, a ring or a tree
  over nodes. Small buffers go in words that carry a flag, large ones behind a fence (the protocols
  LL and Simple of NCCL's ``src/graph/tuning.cc``, whose model of latency and bandwidth this is;
  numbers refitted); switches that add by themselves take each device's buffer once. LL128 has no
  term of its own: between the two it gains at most a fifth.
- ``tree``: pairs of devices sum to one, and it sends back what all then have (Caffe's ``P2PSync``).
- ``root``: every device copies to one, which adds and copies to every other (MXNet's ``device``
  store, Torch's ``DataParallelTable``, PyTorch's ``DataParallel``).
- ``host``: every device copies to the host's memory, where sums are made and fetched (TensorFlow's
  parameter server on the CPU); its memory's rate is shared by all.

Nodes reduce inside first, then one ring or tree joins them over the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil, log2, sqrt

from alexsim.machine.machine import Machine
from alexsim.machine.paths import to_network
from alexsim.machine.sheet import NotNegative, Quantity, Share, Sheet, find, read_sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Nccl(Sheet):
    """What NCCL reaches: the sheet ``collectives/nccl.toml``.

    Shares are of a copy's rate over the same link.
    """

    name: str
    launch_s: NotNegative
    """From the call until all kernels run."""
    flag_share: Share
    """Of a ring's rate, what it reaches if every eight bytes carry a flag (protocol LL)."""
    fence_s: NotNegative
    """What the protocol with fences (Simple) takes beside its steps."""
    switch_share: Share
    """Over PCI Express, between devices behind one switch that read each other's memory."""
    bridge_share: Share
    """Between such devices, but through the host's bridge."""
    staged_share: Share
    """Between devices that cannot: through the host's memory."""
    bus_flag_step_s: NotNegative
    """One step of a ring by the protocol with flags."""
    bus_step_s: NotNegative
    """One step by the protocol with fences."""
    peer_link_share: Share
    peer_link_flag_step_s: NotNegative
    peer_link_step_s: NotNegative
    sum_share: Share
    """Of a switch that adds."""
    send_share: Share
    """Of a device that sends to one other over a peer link."""
    network_share: Share
    network_flag_step_s: NotNegative
    network_step_s: NotNegative


@cache
def load_nccl() -> Nccl:
    """The sheet of NCCL's numbers."""
    return read_sheet(Nccl, *find("collectives", "nccl", what="collective library"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """A collective inside a node, or over nodes: its members, and one step of it."""

    members: int
    rate: float
    """Bytes per second of a copy."""
    latency_s: float
    ring_rate: float
    """Of NCCL's kernels."""
    flag_step_s: Quantity
    step_s: Quantity
    sum_rate: float = 0.0
    """Of a switch that adds; 0 without."""
    tree: bool = False
    """NCCL may also go by a tree."""


def all_reduce_s(
    machine: Machine, devices: int, size_bytes: float, *, peer: bool, columns: int = 1
) -> float:
    """Seconds in which the sum of equal buffers on ``devices`` devices is on all of them.

    Without ``peer`` every round passes through the host's memory, which all links share. With
    ``columns`` every device sums with the same column's devices in other replicas, all columns at a
    time.
    """
    return _collective(machine, devices, size_bytes, rounds=2, peer=peer, columns=columns)


def all_gather_s(machine: Machine, devices: int, size_bytes: float, *, peer: bool) -> float:
    """Every device gets all pieces of a buffer of ``size_bytes`` in all: half of what an all-reduce
    moves."""
    return _collective(machine, devices, size_bytes, rounds=1, peer=peer, columns=1)


def broadcast_s(machine: Machine, devices: int, size_bytes: float, *, peer: bool) -> float:
    """Every device gets one device's buffer, or that device the sum of all devices' buffers: the
    faster of a chain and a tree.

    Down a chain the buffer goes in pieces, so that all links carry something at a time; their
    number is the best compromise between latency and waiting for the first piece (the pipelined
    linear tree of Thakur et al. 2005 and Patarasuk et al. 2008).
    """
    nccl = machine.collectives == "nccl"
    start_s = load_nccl().launch_s.value if nccl and devices > 1 else 0.0
    for level in _levels(machine, devices, peer=peer, columns=1):
        rate = level.ring_rate if nccl else level.rate
        start_s += _chain_or_tree(level.members, size_bytes, rate, level.latency_s)
    return start_s


def send_s(machine: Machine, size_bytes: float, *, peer: bool, apart: bool = False) -> float:
    """Seconds in which NCCL sends a buffer to one other device; ``apart``: of another node.

    By the protocol with fences, whatever the size, as NCCL does.
    """
    devices = int(machine.devices_per_node.value) + 1 if apart else 2
    *_, level = _levels(machine, devices, peer=peer, columns=1)
    nccl, rate = load_nccl(), level.ring_rate
    if peer and machine.peer_link is not None and not apart:
        rate = level.rate * nccl.send_share.value
    steps_s = nccl.launch_s.value + nccl.fence_s.value + level.step_s.value
    return steps_s + size_bytes / rate


def _collective(
    machine: Machine, devices: int, size_bytes: float, *, rounds: int, peer: bool, columns: int
) -> float:
    levels = tuple(_levels(machine, devices, peer=peer, columns=columns))
    if machine.collectives == "nccl":
        launch_s = load_nccl().launch_s.value if levels else 0.0
        return launch_s + sum(_nccl_s(level, size_bytes, rounds) for level in levels)
    seconds = 0.0
    for level in levels:
        count, latency, whole = level.members, level.latency_s, size_bytes / level.rate
        if level.tree or machine.collectives == "copies":
            seconds += _ring_or_tree(count, size_bytes, level.rate, latency, rounds)
        elif machine.collectives == "tree":
            seconds += rounds * ceil(log2(count)) * (latency + whole)
        elif machine.collectives == "root":
            seconds += rounds * (count - 1) * (latency + whole)
        else:
            staged = size_bytes * count / machine.host_staging_bytes_per_s.value
            seconds += rounds * (latency + max(whole, staged))
    return seconds


def _levels(machine: Machine, devices: int, *, peer: bool, columns: int) -> Iterator[_Level]:
    """The collective inside a node, and over nodes; none of one member."""
    in_node = int(machine.devices_per_node.value)
    inside = min(devices, max(1, in_node // columns))
    if inside > 1:
        yield _inside(machine, inside, peer=peer)
    nodes = ceil(devices / inside)
    if nodes > 1 and machine.network is not None:
        # The columns of a node share its adapter; each gets there over its link.
        together, nccl = min(columns, in_node), load_nccl()
        rate, latency = to_network(machine, together)
        shared = machine.network.through_bytes_per_s * nccl.network_share.value / together
        yield _Level(
            members=nodes,
            rate=rate,
            latency_s=latency,
            ring_rate=min(rate, shared),
            flag_step_s=nccl.network_flag_step_s,
            step_s=nccl.network_step_s,
            tree=True,
        )


def _inside(machine: Machine, devices: int, *, peer: bool) -> _Level:
    """One step of a ring inside a node."""
    nccl = load_nccl()
    if peer and machine.peer_link is not None:
        link = machine.peer_link
        rate = link.through_bytes_per_s
        return _Level(
            members=devices,
            rate=rate,
            latency_s=link.latency_s.value,
            ring_rate=rate * nccl.peer_link_share.value,
            flag_step_s=nccl.peer_link_flag_step_s,
            step_s=nccl.peer_link_step_s,
            sum_rate=rate * nccl.sum_share.value if link.sums else 0.0,
        )
    rate, latency = machine.link.through_bytes_per_s, machine.link.latency_s.value
    share = nccl.switch_share
    if devices > machine.devices_per_uplink.value:
        rate = min(rate, machine.uplink.through_bytes_per_s)
        share = nccl.bridge_share
    ring_rate = rate * (share if peer else nccl.staged_share).value
    if devices > machine.devices_per_socket.value:
        ring_rate = min(ring_rate, machine.socket_bytes_per_s.value)
    if not peer:
        # Through the host, piece by piece; all devices write and read the same memory.
        staging = machine.host_staging_bytes_per_s.value / devices
        rate, ring_rate, latency = min(rate, staging), min(ring_rate, staging), 2 * latency
    return _Level(
        members=devices,
        rate=rate,
        latency_s=latency,
        ring_rate=ring_rate,
        flag_step_s=nccl.bus_flag_step_s,
        step_s=nccl.bus_step_s,
    )


def _nccl_s(level: _Level, size_bytes: float, rounds: int) -> float:
    """By the fastest of the protocols, round a ring or, where NCCL has them, through a tree."""
    nccl, count = load_nccl(), level.members
    way_s = _ring_or_tree if level.tree else _ring
    flagged = level.ring_rate * nccl.flag_share.value
    fenced_s = way_s(count, size_bytes, level.ring_rate, level.step_s.value, rounds)
    seconds = [
        way_s(count, size_bytes, flagged, level.flag_step_s.value, rounds),
        nccl.fence_s.value + fenced_s,
    ]
    if level.sum_rate and rounds == 2:
        # The switch fetches each part from all devices, adds, and sends the sum to all.
        parts_s = (1 + 1 / count) * size_bytes / level.sum_rate
        seconds.append(nccl.fence_s.value + 2 * level.step_s.value + parts_s)
    return min(seconds)


def _ring(count: int, size_bytes: float, rate: float, latency: float, rounds: int) -> float:
    return rounds * (count - 1) * (latency + size_bytes / count / rate)


def _ring_or_tree(count: int, size_bytes: float, rate: float, latency: float, rounds: int) -> float:
    tree = rounds * ceil(log2(count)) * (latency + size_bytes / rate)
    return min(_ring(count, size_bytes, rate, latency, rounds), tree)


def _chain_or_tree(count: int, size_bytes: float, rate: float, latency: float) -> float:
    whole, further = size_bytes / rate, count - 2
    chain = latency + whole + further * latency + 2 * sqrt(further * latency * whole)
    return min(chain, ceil(log2(count)) * (latency + whole))

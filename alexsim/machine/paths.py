"""Which links a transfer crosses, and how long it takes there.

Every device has its link, one resource per direction; groups of devices share an uplink towards
the host and the other groups; nodes are joined by a network, one adapter per node. A
transfer holds every link it crosses until it is over, at the rate of the slowest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2, sqrt

from alexsim.machine.machine import Link, Machine


@dataclass(frozen=True, slots=True)
class Path:
    """Resources that a transfer holds, and its time."""

    holds: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Hop:
    resource: str
    link: Link
    shared_by: int = 1
    """Equal transfers that cross it at the same time."""


def _path(hops: list[_Hop], size_bytes: int) -> Path:
    rate, latency = _slowest(hops)
    return Path(tuple(hop.resource for hop in hops), latency + size_bytes / rate)


def _slowest(hops: list[_Hop]) -> tuple[float, float]:
    """Bytes per second of the slowest hop, and the longest latency."""
    rate = min(hop.link.effective_bytes_per_s / hop.shared_by for hop in hops)
    return rate, max(hop.link.latency_s.value for hop in hops)


def _up(machine: Machine, device: int, direction: str, alike: int = 1) -> list[_Hop]:
    """A device's link and, where a group shares an uplink, the uplink behind it."""
    hops = [_Hop(f"link{device}.{direction}", machine.link)]
    group = int(machine.devices_per_uplink.value)
    if group > 1:
        uplink = f"uplink{_uplink(machine, device)}.{direction}"
        hops.append(_Hop(uplink, machine.uplink, min(alike, group)))
    return hops


def _uplink(machine: Machine, device: int) -> int:
    return device // int(machine.devices_per_uplink.value)


def _node(machine: Machine, device: int) -> int:
    return device // int(machine.devices_per_node.value)


def _between_nodes(machine: Machine, source: int, target: int) -> list[_Hop]:
    source_node, target_node = _node(machine, source), _node(machine, target)
    if source_node == target_node or machine.network is None:
        return []
    return [
        _Hop(f"node{source_node}.out", machine.network),
        _Hop(f"node{target_node}.in", machine.network),
    ]


def from_host(machine: Machine, device: int, size_bytes: int, *, alike: int = 1) -> Path:
    """The host writes into a device's memory; ``alike`` devices get as much at the same time."""
    return _path(_up(machine, device, "down", alike), size_bytes)


def to_host(machine: Machine, source: int, target: int, size_bytes: int) -> Path:
    """A device writes into the memory of its host, or of the host of ``target`` elsewhere."""
    hops = _up(machine, source, "up") + _between_nodes(machine, source, target)
    return _path(hops, size_bytes)


def between(machine: Machine, source: int, target: int, size_bytes: int) -> Path:
    """One device's memory to another's, without the host's."""
    across = _between_nodes(machine, source, target)
    if machine.peer_link is not None and not across:
        return _path([_Hop(f"peer{source}-{target}", machine.peer_link)], size_bytes)
    up, down = _up(machine, source, "up"), _up(machine, target, "down")
    if not across and _uplink(machine, source) == _uplink(machine, target):
        up, down = up[:1], down[:1]  # the switch that both share forwards it
    return _path([*up, *across, *down], size_bytes)


def all_reduce_s(
    machine: Machine, devices: int, size_bytes: int, *, peer: bool, columns: int = 1
) -> float:
    """Sum of equal buffers on ``devices`` devices: the faster of a ring and a tree.

    A ring moves ``2 (n - 1) / n`` of the buffer over every link in ``2 (n - 1)`` rounds; a tree the
    whole buffer up and down ``log2 n`` levels (Patarasuk & Yuan 2009; Thakur et al. 2005). Nodes
    reduce inside first, then one ring or tree joins them over the network. Without ``peer`` every
    round passes through the host's memory, which all links share. With ``columns`` every device
    sums with the same column's devices in other replicas, all columns at a time.
    """
    return _collective(machine, devices, size_bytes, rounds=2, peer=peer, columns=columns)


def all_gather_s(machine: Machine, devices: int, size_bytes: int, *, peer: bool) -> float:
    """Every device gets all pieces of a buffer of ``size_bytes`` in all: half an all-reduce."""
    return _collective(machine, devices, size_bytes, rounds=1, peer=peer, columns=1)


def broadcast_s(machine: Machine, devices: int, size_bytes: int, *, peer: bool) -> float:
    """Every device gets one device's buffer, or that device the sum of all devices' buffers: the
    faster of a chain and a tree.

    Down a chain the buffer goes in pieces, so that all links carry something at a time; their
    number is the best compromise between latency and waiting for the first piece (the pipelined
    linear tree of Thakur et al. 2005 and Patarasuk et al. 2008).
    """
    return sum(
        _chain_or_tree(count, size_bytes, rate, latency)
        for count, rate, latency in _levels(machine, devices, peer=peer, columns=1)
    )


def _collective(
    machine: Machine, devices: int, size_bytes: int, *, rounds: int, peer: bool, columns: int
) -> float:
    return sum(
        _ring_or_tree(count, size_bytes, rate, latency, rounds)
        for count, rate, latency in _levels(machine, devices, peer=peer, columns=columns)
    )


def _levels(
    machine: Machine, devices: int, *, peer: bool, columns: int
) -> Iterator[tuple[int, float, float]]:
    """Members, bytes per second and latency of the collective inside a node, and over nodes."""
    if devices < 2:
        return
    in_node = int(machine.devices_per_node.value)
    inside = min(devices, max(1, in_node // columns))
    nodes = ceil(devices / inside)
    yield (inside, *_inside(machine, inside, peer=peer))
    if nodes > 1 and machine.network is not None:
        # The columns of a node share its adapter; each gets there over its link.
        together = min(columns, in_node)
        hops = [*_up(machine, 0, "up", together), _Hop("node0.out", machine.network, together)]
        yield (nodes, *_slowest(hops))


def _inside(machine: Machine, devices: int, *, peer: bool) -> tuple[float, float]:
    """Bytes per second and latency of one step of a ring inside a node."""
    if peer and machine.peer_link is not None:
        return machine.peer_link.effective_bytes_per_s, machine.peer_link.latency_s.value
    rate, latency = machine.link.effective_bytes_per_s, machine.link.latency_s.value
    if machine.devices_per_uplink.value > 1:
        rate = min(rate, machine.uplink.effective_bytes_per_s)
    if not peer:
        # Through the host, piece by piece; all devices write and read the same memory.
        return min(rate, machine.host_staging_bytes_per_s.value / devices), 2 * latency
    return rate, latency


def _ring_or_tree(count: int, size_bytes: int, rate: float, latency: float, rounds: int) -> float:
    if count < 2:
        return 0.0
    ring = rounds * (count - 1) * (latency + size_bytes / count / rate)
    tree = rounds * ceil(log2(count)) * (latency + size_bytes / rate)
    return min(ring, tree)


def _chain_or_tree(count: int, size_bytes: int, rate: float, latency: float) -> float:
    if count < 2:
        return 0.0
    whole, further = size_bytes / rate, count - 2
    chain = latency + whole + further * latency + 2 * sqrt(further * latency * whole)
    return min(chain, ceil(log2(count)) * (latency + whole))

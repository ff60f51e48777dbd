"""Which links a transfer crosses, and how long it takes there.

Every device has a link of its own, one resource per direction; groups of devices share an uplink
towards the host and the other groups. A transfer holds every link it crosses until it is over, at
the rate of the slowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from alexsim.machine.machine import Link, Machine


@dataclass(frozen=True, slots=True)
class Path:
    """Resources that a transfer holds, and its time."""

    holds: tuple[str, ...]
    seconds: float


def _group(machine: Machine, device: int) -> int:
    return device // int(machine.devices_per_uplink.value)


def _path(hops: list[tuple[str, Link]], size_bytes: int) -> Path:
    rate = min(link.effective_bytes_per_s for _, link in hops)
    latency = max(link.latency_s.value for _, link in hops)
    return Path(tuple(name for name, _ in hops), latency + size_bytes / rate)


def _shared(machine: Machine) -> bool:
    return machine.devices_per_uplink.value > 1


def from_host(machine: Machine, device: int, size_bytes: int) -> Path:
    """The host writes into a device's memory."""
    hops = [(f"link{device}.down", machine.link)]
    if _shared(machine):
        hops.append((f"uplink{_group(machine, device)}.down", machine.uplink))
    return _path(hops, size_bytes)


def to_host(machine: Machine, device: int, size_bytes: int) -> Path:
    """A device writes into the host's memory."""
    hops = [(f"link{device}.up", machine.link)]
    if _shared(machine):
        hops.append((f"uplink{_group(machine, device)}.up", machine.uplink))
    return _path(hops, size_bytes)


def between(machine: Machine, source: int, target: int, size_bytes: int) -> Path:
    """One device's memory to another's, without the host's."""
    if machine.peer_link is not None:
        return _path([(f"peer{source}-{target}", machine.peer_link)], size_bytes)
    hops = [(f"link{source}.up", machine.link), (f"link{target}.down", machine.link)]
    ours, theirs = _group(machine, source), _group(machine, target)
    if ours != theirs and _shared(machine):
        hops += [(f"uplink{ours}.up", machine.uplink), (f"uplink{theirs}.down", machine.uplink)]
    return _path(hops, size_bytes)


def all_reduce_s(machine: Machine, devices: int, size_bytes: int) -> float:
    """Sum of equal buffers on ``devices`` devices: the faster of a ring and a tree.

    A ring moves ``2 (n - 1) / n`` of the buffer over every link in ``2 (n - 1)`` rounds; a tree the
    whole buffer up and down ``log2 n`` levels (Patarasuk & Yuan 2009; Thakur et al. 2005). Nodes
    reduce inside first, then one ring or tree joins them over the network. Without peer access
    every round passes through the host's memory, which all links share.
    """
    return _collective(machine, devices, size_bytes, rounds=2)


def all_gather_s(machine: Machine, devices: int, size_bytes: int) -> float:
    """Every device gets all pieces of a buffer of ``size_bytes`` in all: half an all-reduce."""
    return _collective(machine, devices, size_bytes, rounds=1)


def _collective(machine: Machine, devices: int, size_bytes: int, *, rounds: int) -> float:
    if devices < 2:
        return 0.0
    inside = min(devices, int(machine.devices_per_node.value))
    nodes = ceil(devices / inside)
    rate, latency = _inside(machine, inside)
    seconds = _ring_or_tree(inside, size_bytes, rate, latency, rounds)
    if nodes > 1 and machine.network is not None:
        network = machine.network
        seconds += _ring_or_tree(
            nodes, size_bytes, network.effective_bytes_per_s, network.latency_s.value, rounds
        )
    return seconds


def _inside(machine: Machine, devices: int) -> tuple[float, float]:
    """Bytes per second and latency of one step of a ring inside a node."""
    if machine.peer_link is not None:
        return machine.peer_link.effective_bytes_per_s, machine.peer_link.latency_s.value
    rate, latency = machine.link.effective_bytes_per_s, machine.link.latency_s.value
    if _shared(machine):
        rate = min(rate, machine.uplink.effective_bytes_per_s)
    if not machine.peer:
        # Through the host, piece by piece; all devices write and read the same memory.
        return min(rate, machine.host_staging_bytes_per_s.value / devices), 2 * latency
    return rate, latency


def _ring_or_tree(count: int, size_bytes: int, rate: float, latency: float, rounds: int) -> float:
    if count < 2:
        return 0.0
    ring = rounds * (count - 1) * (latency + size_bytes / count / rate)
    tree = rounds * ceil(log2(count)) * (latency + size_bytes / rate)
    return min(ring, tree)

"""Which links a transfer crosses, and how long it takes there.

Every device has its link, one resource per direction; groups of devices share an uplink towards
the host and the other groups; nodes are joined by a network, one adapter per node. A
transfer holds every link it crosses until it is over, at the rate of the slowest.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.machine.link import Link
from alexsim.machine.machine import Machine


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
    back: bool = False
    """From a device to its host."""

    @property
    def rate(self) -> float:
        """Bytes per second of one of the transfers that share it."""
        link = self.link
        rate = link.return_bytes_per_s if self.back else link.effective_bytes_per_s
        return rate / self.shared_by


def _path(hops: list[_Hop], size_bytes: int) -> Path:
    rate, latency = _slowest(hops)
    counted = max(hop.link.ramped(size_bytes) for hop in hops)
    return Path(tuple(hop.resource for hop in hops), latency + counted / rate)


def _slowest(hops: list[_Hop]) -> tuple[float, float]:
    """Bytes per second of the slowest hop, and the longest latency."""
    return min(hop.rate for hop in hops), max(hop.link.latency_s.value for hop in hops)


def _up(machine: Machine, device: int, direction: str, alike: int = 1) -> list[_Hop]:
    """A device's link and, where a group shares an uplink, the uplink behind it."""
    back = direction == "up"
    hops = [_Hop(f"link{device}.{direction}", machine.link, back=back)]
    group = int(machine.devices_per_uplink.value)
    if group > 1:
        uplink = f"uplink{_uplink(machine, device)}.{direction}"
        hops.append(_Hop(uplink, machine.uplink, min(alike, group), back))
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


def to_network(machine: Machine, together: int) -> tuple[float, float]:
    """Bytes per second and latency from a device to its node's adapter and beyond, while so many
    devices of the node send as much."""
    assert machine.network is not None
    return _slowest(
        [*_up(machine, 0, "up", together), _Hop("node0.out", machine.network, together)]
    )

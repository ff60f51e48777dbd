"""Links: how fast a copy goes from one memory to another."""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.machine.own import load_record
from alexsim.machine.sheet import NotNegative, Positive, Quantity, Share, Sheet, names

_NO_RAMP = Quantity(value=0, kind="spec", source="no copies by size were published")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Link(Sheet):
    """One direction of a connection: its raw rate, what real transfers reach of it, its latency.

    A copy takes ``latency_s``, then its bytes over the rate; its first ``ramp_bytes`` count twice.
    ``sums``: it leads to a switch that adds what devices send (NVLink SHARP).
    """

    name: str
    bytes_per_s: Positive
    efficiency: Share
    """Of the raw rate, what a long copy reaches; towards a device where directions differ."""
    latency_s: NotNegative
    return_efficiency: Share | None = None
    """The same from a device to its host, where it was measured apart."""
    ramp_bytes: NotNegative = _NO_RAMP
    sums: bool = False

    @property
    def effective_bytes_per_s(self) -> float:
        """Payload bytes per second of a long transfer, towards a device."""
        return self.bytes_per_s.value * self.efficiency.value

    @property
    def return_bytes_per_s(self) -> float:
        """Payload bytes per second of a long transfer, from a device to its host."""
        return self.bytes_per_s.value * (self.return_efficiency or self.efficiency).value

    @property
    def through_bytes_per_s(self) -> float:
        """Payload bytes per second of a long transfer from one device to another."""
        return min(self.effective_bytes_per_s, self.return_bytes_per_s)

    def ramped(self, size_bytes: float) -> float:
        """Bytes that would take as long at the full rate."""
        return size_bytes + min(size_bytes, self.ramp_bytes.value)

    def seconds(self, size_bytes: float, *, back: bool = False) -> float:
        """Time of one transfer that has the link to itself, towards a device or ``back``."""
        rate = self.return_bytes_per_s if back else self.effective_bytes_per_s
        return self.latency_s.value + self.ramped(size_bytes) / rate


def load_link(name: str) -> Link:
    """The sheet ``links/<name>.toml``, or the TOML file at a path.

    Raises:
        ProfileError: there is none, or its keys are not Link's fields.
    """
    return load_record(Link, name)


def link_if_any(name: str) -> Link | None:
    """As ``load_link``; no name is no link."""
    return load_link(name) if name else None


def link_names() -> tuple[str, ...]:
    """Names that ``load_link`` accepts, sorted."""
    return names("links")

"""How exchanges travel between devices.

A device posts what it has produced and pulls what it needs; it never reaches for another device's
memory itself. So one device's op list runs alone wherever a transport connects it to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from alexsim.plan.records import Exchange


class Transport(Protocol):
    """What a device needs of the others."""

    exchanged_bytes: int
    """Bytes that have crossed since the transport was made."""

    def begin(self, exchanges: Sequence[Exchange]) -> None:
        """Say which exchanges the coming run will pull."""

    def post(self, exchange: Exchange, source: torch.Tensor) -> None:
        """Offer ``source``; it stays unchanged until the other device has pulled it."""

    def pull(self, exchange: Exchange, target: torch.Tensor) -> bool:
        """Copy what was posted into ``target``; False if it is not there yet."""

    def arrive(self, device: str, barrier: str) -> None:
        """Say that ``device`` has reached ``barrier``."""

    def passed(self, barrier: str) -> bool:
        """Whether every device has reached ``barrier``."""

    def reduce(self, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Begin to sum a layer's gradients over all replicas, in place."""

    def reduced(self) -> None:
        """Wait until every sum that was begun is there."""


class OneReplica:
    """What a transport has nothing to do for where exchanges are pulled straight from memory, and
    no other replica is."""

    def begin(self, exchanges: Sequence[Exchange]) -> None:
        """Nothing to prepare."""

    def reduce(self, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """There is no other replica.

        Raises:
            AssertionError: a plan of several is run all the same.
        """
        del gradients
        raise AssertionError(f"{layer}: no transport to other replicas")

    def reduced(self) -> None:
        """Nothing was begun."""


class InProcess(OneReplica):
    """All devices in one process: a pull is a copy from one arena to the other."""

    def __init__(self, devices: int) -> None:
        self.exchanged_bytes = 0
        self._devices = devices
        self._posted: dict[str, torch.Tensor] = {}
        self._arrived: dict[str, set[str]] = {}

    def post(self, exchange: Exchange, source: torch.Tensor) -> None:
        """Offer ``source`` to the target's pull."""
        self._posted[exchange.name] = source

    def pull(self, exchange: Exchange, target: torch.Tensor) -> bool:
        """Copy if posted."""
        source = self._posted.pop(exchange.name, None)
        if source is None:
            return False
        target.copy_(source)
        self.exchanged_bytes += source.numel() * source.element_size()
        return True

    def arrive(self, device: str, barrier: str) -> None:
        """Note an arrival; the first arrival after all had passed begins the next round."""
        arrived = self._arrived.setdefault(barrier, set())
        if len(arrived) == self._devices:
            arrived.clear()
        arrived.add(device)

    def passed(self, barrier: str) -> bool:
        """Whether all have arrived."""
        return len(self._arrived.get(barrier, ())) == self._devices

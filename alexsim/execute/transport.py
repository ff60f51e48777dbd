"""How exchanges travel between devices.

A device posts what it has produced and pulls what it needs; it never reaches for another device's
memory itself. So one device's op list runs alone wherever a transport connects it to the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from alexsim.plan.exchanges import Exchange


class Transport(Protocol):
    """What a device needs of the others."""

    exchanged_bytes: int
    """Bytes that have crossed since the transport was made."""

    def begin(self, exchanges: Sequence[Exchange], barriers: Sequence[str]) -> None:
        """Say which exchanges the coming run will pull, and which barriers it will pass."""

    def post(self, exchange: Exchange, source: torch.Tensor) -> None:
        """Offer ``source``; it stays unchanged until the other device has pulled it."""

    def pull(self, exchange: Exchange, target: torch.Tensor) -> bool:
        """Copy what was posted into ``target``; False if it is not there yet."""

    def arrive(self, device: int, barrier: str) -> None:
        """Say that ``device`` has reached ``barrier``."""

    def passed(self, barrier: str) -> bool:
        """Whether every device has reached ``barrier``."""

    def reduce(self, device: int, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Begin to sum a layer's gradients over all replicas, or all of a hybrid plan's devices, in
        place."""

    def reduced(self, device: int) -> bool:
        """Whether every sum that ``device`` began is there; False if others must begin theirs."""


class InProcess:
    """All devices in one process: a pull is a copy from one arena to the other."""

    def __init__(self, devices: int) -> None:
        self.exchanged_bytes = 0
        self._devices = devices
        self._posted: dict[str, torch.Tensor] = {}
        self._arrived: dict[str, set[int]] = {}
        self._sums: dict[str, dict[int, Sequence[torch.Tensor]]] = {}
        """By layer, the gradients of the devices that have begun."""

    def begin(self, exchanges: Sequence[Exchange], barriers: Sequence[str]) -> None:
        """Nothing to prepare."""

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

    def arrive(self, device: int, barrier: str) -> None:
        """Note an arrival; the first arrival after all had passed begins the next round."""
        arrived = self._arrived.setdefault(barrier, set())
        if len(arrived) == self._devices:
            arrived.clear()
        arrived.add(device)

    def passed(self, barrier: str) -> bool:
        """Whether all have arrived."""
        return len(self._arrived.get(barrier, ())) == self._devices

    def reduce(self, device: int, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Note a device's gradients; the last device's sums them, in order of devices."""
        begun = self._sums.setdefault(layer, {})
        begun[device] = gradients
        if len(begun) < self._devices:
            return
        del self._sums[layer]
        first, *others = (begun[name] for name in sorted(begun))
        for index, total in enumerate(first):
            for other in others:
                total.add_(other[index])
            for other in others:
                other[index].copy_(total)

    def reduced(self, device: int) -> bool:
        """Whether all devices have begun the sums that this device has."""
        return not any(device in begun for begun in self._sums.values())

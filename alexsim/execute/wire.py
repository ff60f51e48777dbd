"""The transport between processes: point to point, and sums over replicas, of torch.distributed.

Exchanges are sends and receives of exactly the planned bytes. Receives are posted when a step
begins, so that bytes flow while the device computes; what is sent is copied first, so that the
device may go on. On CUDA both ends are pinned memory of the host.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from alexsim.plan.exchanges import Exchange
from alexsim.plan.plan import Plan
from alexsim.processes.world import Connected

_BUCKET = 1 << 20
"""Values: larger gradients are summed by themselves, smaller ones together."""
_BARRIERS = 1 << 24
"""Tags of barriers begin here; those of exchanges and collectives are their places in the plan."""


@dataclass(slots=True)
class _End:
    """One end of an exchange: memory of the host, and what is on its way."""

    host: torch.Tensor
    rank: int
    tag: int
    work: dist.Work | None = None


class Wire:
    """What the device of this process needs of the others."""

    def __init__(self, plan: Plan, world: Connected, *, pinned: bool) -> None:
        self.exchanged_bytes = 0
        """Received here since the transport was made."""
        self.reduced_bytes = 0
        """Of gradients that were summed with others'."""
        self._world = world
        index = plan.devices[world.rank % world.columns].index
        shapes = {b.name: b.shape for device in plan.devices for b in device.buffers}
        first = world.replica * world.columns
        self._ends = {
            exchange.name: _End(
                host=_nhwc(shapes[exchange.source_buffer], pinned=pinned),
                rank=first
                + (
                    exchange.target_index
                    if exchange.source_index == index
                    else exchange.source_index
                ),
                tag=tag,
            )
            for tag, exchanges in enumerate(_exchanges_of(plan, index))
            for exchange in exchanges
        }
        ranks = range(first, first + world.columns)
        self._others = [rank for rank in ranks if rank != world.rank]
        self._barriers: dict[str, int] = {}
        self._tokens: list[dist.Work] = []
        self._token = torch.zeros(1, dtype=torch.int32)
        self._expected: dict[str, list[dist.Work | None]] = {}
        self._sums: list[tuple[str, dist.Work]] = []
        self._small: list[torch.Tensor] = []
        self._flat: list[tuple[torch.Tensor, list[torch.Tensor]]] = []

    def begin(self, exchanges: Sequence[Exchange], barriers: Sequence[str]) -> None:
        """Post all receives of a step: gloo sends only what it knows to be awaited, so that a late
        receive would cost another round trip."""
        for exchange in exchanges:
            end = self._ends[exchange.name]
            with self._named(exchange, end):
                end.work = dist.irecv(end.host, end.rank, tag=end.tag, group=self._world.all)
        for barrier in barriers:
            with self._world.named(_named(barrier), self._others):
                self._expected[barrier] = [
                    dist.irecv(
                        torch.zeros(1, dtype=torch.int32),
                        rank,
                        tag=self._barrier_tag(barrier),
                        group=self._world.all,
                    )
                    for rank in self._others
                ]

    def post(self, exchange: Exchange, source: torch.Tensor) -> None:
        """Send a copy, once the last copy has left."""
        end = self._ends[exchange.name]
        with self._named(exchange, end):
            if end.work is not None:
                self._world.wait(end.work)
            _seen(end.host, source).copy_(source)
            end.work = dist.isend(end.host, end.rank, tag=end.tag, group=self._world.all)

    def pull(self, exchange: Exchange, target: torch.Tensor) -> bool:
        """Wait for what was sent, and copy it."""
        end = self._ends[exchange.name]
        with self._named(exchange, end):
            self._world.wait(end.work)
        target.copy_(_seen(end.host, target))
        self.exchanged_bytes += target.numel() * target.element_size()
        return True

    def arrive(self, device: int, barrier: str) -> None:
        """Tell the replica's other devices."""
        del device
        tag = self._barrier_tag(barrier)
        with self._world.named(_named(barrier), self._others):
            for work in self._tokens:
                self._world.wait(work)
            sent = [
                dist.isend(self._token, rank, tag=tag, group=self._world.all)
                for rank in self._others
            ]
        self._tokens = [work for work in sent if work is not None]

    def passed(self, barrier: str) -> bool:
        """Wait for the replica's other devices."""
        for rank, work in zip(self._others, self._expected.pop(barrier), strict=True):
            with self._world.named(_named(barrier), (rank,)):
                self._world.wait(work)
        return True

    def _barrier_tag(self, barrier: str) -> int:
        """The same in every process: all come to barriers in the same order."""
        return _BARRIERS + self._barriers.setdefault(barrier, len(self._barriers))

    def reduce(self, device: int, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Begin to sum large gradients at once, small ones when there are enough of them."""
        del device
        for gradient in gradients:
            if gradient.numel() >= _BUCKET and gradient.device.type == "cpu":
                self._sum(layer, gradient)
            else:
                self._small.append(gradient)
        if sum(gradient.numel() for gradient in self._small) >= _BUCKET:
            self._flush(layer)

    def reduced(self, device: int) -> bool:
        """Wait for all sums."""
        del device
        if self._small:
            self._flush("the last layers")
        for layer, work in self._sums:
            with self._world.named(f"all_reduce of {layer}", self._world.alike):
                self._world.wait(work)
        for flat, parts in self._flat:
            start = 0
            for part in parts:
                part.copy_(flat[start : start + part.numel()].view(part.shape))
                start += part.numel()
        self._sums, self._flat = [], []
        return True

    def _flush(self, layer: str) -> None:
        flat = torch.cat([gradient.reshape(-1).cpu() for gradient in self._small])
        self._flat.append((flat, self._small))
        self._small = []
        self._sum(layer, flat)

    def _sum(self, layer: str, tensor: torch.Tensor) -> None:
        with self._world.named(f"all_reduce of {layer}", self._world.alike):
            work = dist.all_reduce(tensor, group=self._world.gradients, async_op=True)
        assert work is not None
        self.reduced_bytes += tensor.numel() * tensor.element_size()
        self._sums.append((layer, work))

    def _named(self, exchange: Exchange, end: _End) -> contextlib.AbstractContextManager[None]:
        return self._world.named(f"exchange {exchange.name}", (end.rank,))


def _exchanges_of(plan: Plan, device: int) -> Iterator[tuple[Exchange, ...]]:
    """A device's exchanges, by tag: of a collective, there is one from any device to another."""
    for exchange in plan.posted:
        is_end = device in (exchange.source_index, exchange.target_index)
        yield (exchange,) if is_end else ()
    for collective in plan.collectives:
        yield (*collective.sent_by(device), *collective.received_by(device))


def _named(barrier: str) -> str:
    return f"barrier {barrier}"


def _nhwc(shape: tuple[int, ...], *, pinned: bool) -> torch.Tensor:
    """Host memory for a buffer as it crosses: images channels-last, as most devices hold them."""
    if len(shape) == 4:
        n, c, h, w = shape
        shape = (n, h, w, c)
    return torch.empty(shape, pin_memory=pinned)


def _seen(host: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return host.permute(0, 3, 1, 2) if like.ndim == 4 else host

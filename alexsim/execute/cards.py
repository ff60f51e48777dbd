"""Virtual GPUs on CUDA: a stream each, events between them, exchanges over PCIe or peer to peer.

Every device enqueues its ops on its own stream, in issue order; the host runs ahead. What one
device must not do before another has done something is ordered by events that streams await.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alexsim.errors import AlexsimError
from alexsim.plan.choices import TransportName
from alexsim.plan.exchanges import Exchange
from alexsim.plan.plan import Op
from alexsim.trace import Span


def places(device: str, count: int) -> list[torch.device]:
    """Where ``count`` virtual GPUs live: on the CPU, on one card, or on a card each.

    Raises:
        AlexsimError: ``cuda`` is asked for, and PyTorch sees no CUDA device.
    """
    if device == "cpu":
        return [torch.device("cpu")] * count
    if not torch.cuda.is_available():
        built = "" if torch.version.cuda else " (this PyTorch is built without CUDA)"
        raise AlexsimError(f"--device cuda: PyTorch sees no CUDA device here{built}")
    cards = torch.cuda.device_count()
    return [torch.device("cuda", index if cards >= count else 0) for index in range(count)]


def cap(place: torch.device, budget_bytes: int | None) -> None:
    """Let PyTorch's allocator refuse what goes beyond this process's budget on a card, scratch of
    libraries included. A context, and what bypasses the allocator, still escape it:
    ``process_bytes`` counts them."""
    if place.type == "cuda" and budget_bytes is not None:
        total = torch.cuda.get_device_properties(place).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_bytes / total), place)


def process_bytes() -> int | None:
    """What the driver counts for this process, its context included; None without NVML."""
    try:
        import pynvml
    except ImportError:
        return None
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        for card in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(card)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == os.getpid():
                    return int(process.usedGpuMemory or 0)
    return None


@dataclass(slots=True)
class _Posted:
    source: torch.Tensor
    ready: torch.cuda.Event


@dataclass(slots=True)
class _Begun:
    """A device's part of a sum, from the event ``ready`` on."""

    device: int
    gradients: Sequence[torch.Tensor]
    ready: torch.cuda.Event


class Cards:
    """All devices in one process, each on its stream: the transport between them.

    ``peer``: the target copies from the source's memory. ``host``: the source copies to pinned
    memory of the host and the target from there, so that every exchange crosses PCIe twice, also
    where both devices share a card.
    """

    def __init__(self, devices: int, transport: TransportName) -> None:
        self.exchanged_bytes = 0
        self._devices, self._staged = devices, transport == "host"
        self._posted: dict[str, _Posted] = {}
        self._pinned: dict[str, torch.Tensor] = {}
        self._arrived: dict[str, dict[int, torch.cuda.Event]] = {}
        self._begun: dict[str, list[_Begun]] = {}
        self._summed: dict[int, list[torch.cuda.Event]] = {}

    def begin(self, exchanges: Sequence[Exchange], barriers: Sequence[str]) -> None:
        """Nothing to prepare."""

    def post(self, exchange: Exchange, source: torch.Tensor) -> None:
        """Offer ``source`` once the stream has got here; ``host``: stage it."""
        if self._staged:
            run = packed(source)
            if exchange.name not in self._pinned:
                self._pinned[exchange.name] = torch.empty(
                    run.shape, dtype=run.dtype, pin_memory=True
                )
            pinned = self._pinned[exchange.name]
            pinned.copy_(run, non_blocking=True)
            source = unpacked(pinned, source)
        self._posted[exchange.name] = _Posted(source, _event())

    def pull(self, exchange: Exchange, target: torch.Tensor) -> bool:
        """Copy what was posted, after the source's stream had got there."""
        posted = self._posted.pop(exchange.name, None)
        if posted is None:
            return False
        torch.cuda.current_stream(target.device).wait_event(posted.ready)
        if self._staged and target.stride() != posted.source.stride():
            # A transfer cannot rearrange: it lands as it lay, and is copied on the card.
            landed = torch.empty_like(posted.source, device=target.device)
            landed.copy_(posted.source, non_blocking=True)
            target.copy_(landed)
        else:
            target.copy_(posted.source, non_blocking=True)
        self.exchanged_bytes += target.numel() * target.element_size()
        return True

    def arrive(self, device: int, barrier: str) -> None:
        """Note how far the device's stream is."""
        arrived = self._arrived.setdefault(barrier, {})
        if len(arrived) == self._devices:
            arrived.clear()
        arrived[device] = _event()

    def passed(self, barrier: str) -> bool:
        """Whether all have arrived; then this stream waits for all their streams."""
        arrived = self._arrived.get(barrier, {})
        if len(arrived) < self._devices:
            return False
        for event in arrived.values():
            torch.cuda.current_stream().wait_event(event)
        return True

    def reduce(self, device: int, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Note how far the device's stream is; the last device's sums all gradients."""
        parts = self._begun.setdefault(layer, [])
        parts.append(_Begun(device, gradients, _event()))
        if len(parts) < self._devices:
            return
        del self._begun[layer]
        first, *others = sorted(parts, key=lambda part: part.device)
        # What crosses between two cards runs on a stream of either.
        places = {part.gradients[0].device for part in parts}
        streams = [torch.cuda.current_stream(place) for place in places]
        for stream in streams:
            for part in parts:
                stream.wait_event(part.ready)
        for index, total in enumerate(first.gradients):
            for other in others:
                total.add_(other.gradients[index].to(total.device))
            for other in others:
                other.gradients[index].copy_(total)
        done = [stream.record_event() for stream in streams]
        for part in parts:
            self._summed.setdefault(part.device, []).extend(done)

    def reduced(self, device: int) -> bool:
        """Whether all devices have begun this device's sums; then its stream waits for them."""
        if any(part.device == device for parts in self._begun.values() for part in parts):
            return False
        for event in self._summed.pop(device, []):
            torch.cuda.current_stream().wait_event(event)
        return True


def packed(x: torch.Tensor) -> torch.Tensor:
    """``x`` as one run of bytes, in the order in which it lies: only runs cross PCIe unaided."""
    return (x.permute(0, 2, 3, 1) if _channels_last(x) else x).contiguous()


def unpacked(run: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A run that ``packed`` made of ``like``, seen in the order of its dimensions again."""
    return run.permute(0, 3, 1, 2) if _channels_last(like) else run


def _channels_last(x: torch.Tensor) -> bool:
    return x.ndim == 4 and x.stride(1) == 1 and x.shape[1] > 1


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record()
    return event


class Timeline:
    """When ops ran on a card: events around each op, read when the step is over.

    ``begin`` is the zero of all devices' times.
    """

    def __init__(self, begin: torch.cuda.Event) -> None:
        self._begin = begin
        self._ops: list[tuple[Op, int, torch.cuda.Event, torch.cuda.Event]] = []

    @staticmethod
    def mark() -> torch.cuda.Event:
        """Now, on the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, op: Op, step: int, start: torch.cuda.Event) -> None:
        """Say that ``op`` ran since ``start``."""
        self._ops.append((op, step, start, self.mark()))

    def spans(self) -> list[Span]:
        """Everything that was timed; waits for the card."""
        torch.cuda.synchronize()
        return [
            op.span(
                step=step,
                start_s=self._begin.elapsed_time(start) / 1e3,
                end_s=self._begin.elapsed_time(end) / 1e3,
                source="measured",
            )
            for op, step, start, end in self._ops
        ]

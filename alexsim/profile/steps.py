"""What measured steps have in common: their minibatch, their turns, the end of their work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from alexsim.execute.choices import Device
from alexsim.plan.plan import Plan

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images ``[N, ...]`` and labels ``[N]``."""


def minibatch(plan: Plan) -> Batch:
    """Random images ``[N, C, H, W]``, channels last, and labels."""
    generator = torch.Generator().manual_seed(0)
    channels, height, width = plan.network.input_shape
    size = (plan.batch_size, height, width, channels)
    images = torch.randn(size, generator=generator).permute(0, 3, 1, 2)
    return images, torch.randint(plan.network.classes, (plan.batch_size,), generator=generator)


def take_turns(turns: Sequence[Callable[[], object]], index: int) -> None:
    """Run all, each round another first, so that a drift falls on all alike."""
    first = index % len(turns)
    for run in (*turns[first:], *turns[:first]):
        run()


def allocations(profiled: Any) -> list[tuple[int, int]]:
    """Nanoseconds of the wall clock, and bytes taken or, below zero, given back; in order.

    Of ``torch.profiler`` with ``profile_memory``.
    """
    return sorted(
        (event.start_ns(), event.nbytes())
        for event in profiled.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )


def wait(device: Device) -> None:
    """Until the device has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()

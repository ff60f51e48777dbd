"""Whether there is a card, before anything that needs one is begun."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row


def rows(_: Job) -> Iterator[Row]:
    """A row with the card's name, if there is one that computes."""
    if not torch.cuda.is_available():
        return
    name = torch.cuda.get_device_name()
    # A driver that lists a card may still refuse to work on it.
    torch.zeros(1, device="cuda").add_(1).item()
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = ""
    yield Row(op="card", text=name, detail={"name": name, "triton": triton})

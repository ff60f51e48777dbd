"""(b) Every kernel against float64, on real shapes: AlexNet's first, then ResNet-50's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import torch

from alexsim_kernels.bench import layer_cases
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.cases import Case, checked
from alexsim_kernels.bench.convolution_cases import convolutions
from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.shapes import ALEXNET, RESNET50, SMALL
from alexsim_kernels.bench.timing import CARD, PRECISIONS
from alexsim_kernels.common import Precision

NEEDS = ("torch", "triton")
BATCH, RESNET_BATCH = 128, 64
"""Images of a step of AlexNet, and of ResNet-50."""


def interpretable() -> tuple[Precision, ...]:
    """All but bf16, whose values Triton's interpreter takes for whole numbers."""
    return tuple(precision for precision in PRECISIONS if precision != "bf16")


def cases(*, rehearse: bool = False, place: str = CARD) -> Iterator[Iterable[Case]]:
    """All that is checked, a few cases at a time that share their tensors."""
    layers, batch = (SMALL, 2) if rehearse else (ALEXNET, BATCH)
    precisions = PRECISIONS if place != "cpu" else interpretable()
    sizes = layer_cases.SMALL if rehearse else layer_cases.Sizes(place=place)
    for (name, shape), precision in product(layers.items(), precisions):
        yield convolutions(name, shape, precision, batch, place=place)
    for precision in precisions:
        yield layer_cases.products(batch, precision, sizes)
    yield layer_cases.pools_and_norms(batch, sizes)
    yield layer_cases.others(batch, sizes)
    if not rehearse:
        for (name, shape), precision in product(RESNET50.items(), precisions):
            yield convolutions(f"res {name}", shape, precision, RESNET_BATCH, place=place)


def rows(job: Job) -> Iterator[Row]:
    """A row per kernel; the last says what there was no time for."""
    torch.manual_seed(0)
    left_out = 0
    for some in cases(rehearse=job.rehearse):
        if job.left_s < 1:
            left_out += 1
            continue
        yield from map(checked, some)
    if left_out:
        yield Row(op="right", text=f"left out: {left_out} groups of kernels, for time")

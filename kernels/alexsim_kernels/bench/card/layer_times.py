"""(c) Each layer beside what else does it: AlexNet's at 128 images, then ResNet-50's at 64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product

import torch

from alexsim_kernels.bench import layer_cases
from alexsim_kernels.bench.card.ceilings import ceilings_of
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.card.predicted import Predicted
from alexsim_kernels.bench.card.right import BATCH, ORDER, RESNET_BATCH, interpretable
from alexsim_kernels.bench.cases import Case, timed_or_broken
from alexsim_kernels.bench.convolution_cases import convolutions
from alexsim_kernels.bench.row import Row
from alexsim_kernels.shapes import ALEXNET, RESNET50, SMALL

NEEDS = ("numpy", "torch", "triton")


def cases(*, rehearse: bool) -> Iterator[Iterable[Case]]:
    """What is timed, the most valuable first."""
    layers, batch = (SMALL, 2) if rehearse else (ALEXNET, BATCH)
    sizes = layer_cases.SMALL if rehearse else layer_cases.Sizes()
    first, later = (ORDER[:2], ORDER[2:]) if not rehearse else (interpretable()[:1], ())
    for precision, (name, shape) in product(first, layers.items()):
        yield convolutions(name, shape, precision, batch)
    yield layer_cases.pools_and_norms(batch, sizes)
    for precision in first:
        yield layer_cases.products(batch, precision, sizes)
    if not rehearse:
        for precision, (name, shape) in product(first, RESNET50.items()):
            yield convolutions(f"res {name}", shape, precision, RESNET_BATCH)
    yield layer_cases.others(batch, sizes)
    for precision, (name, shape) in product(later, layers.items()):
        yield convolutions(name, shape, precision, batch)
    for precision in later:
        yield layer_cases.products(batch, precision, sizes)
    for precision, (name, shape) in product(later, RESNET50.items()):
        yield convolutions(f"res {name}", shape, precision, RESNET_BATCH)


def rows(job: Job) -> Iterator[Row]:
    """A row per pass, with what was predicted for it; the last says what there was no time for."""
    torch.manual_seed(0)
    peaks, predicted = ceilings_of(job), Predicted.of(job)
    left_out = 0
    for some in cases(rehearse=job.rehearse):
        if job.left_s < 2:
            left_out += 1
            continue
        for case in some:
            row = timed_or_broken(case, peaks)
            yield replace(row, predicted_ms=predicted.ms(row.op, row.precision, row.batch))
    if left_out:
        yield Row(op="layers", text=f"left out: {left_out} groups of layers, for time")

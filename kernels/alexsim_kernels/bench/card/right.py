"""(b) Every kernel against float64, on real shapes: AlexNet's first, then ResNet-50's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, product

import torch

from alexsim_kernels import tuning
from alexsim_kernels.bench import layer_cases
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.cases import Case, checked
from alexsim_kernels.bench.convolution_cases import Passes, convolution_case, convolutions
from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.tiles import few, key_of
from alexsim_kernels.bench.timing import CARD, PRECISIONS
from alexsim_kernels.candidates import kind_of, offered
from alexsim_kernels.common import Precision
from alexsim_kernels.shapes import ALEXNET, RESNET50, SMALL

NEEDS = ("numpy", "torch", "triton")
BATCH, RESNET_BATCH = 128, 64
"""Images of a step of AlexNet, and of ResNet-50."""
ORDER: tuple[Precision, ...] = ("bf16", "fp32x3", "tf32", "fp32")
"""Of what is timed: precisions that train come first."""
_BOLD = 4
_OF_KINDS = ("conv1", "conv2")
"""Layers on which other kinds of convolutions are checked: of few channels, and of many."""


def interpretable() -> tuple[Precision, ...]:
    """All but bf16, whose values Triton's interpreter takes for whole numbers."""
    return tuple(precision for precision in PRECISIONS if precision != "bf16")


def cases(*, rehearse: bool = False, place: str = CARD) -> Iterator[Iterable[Case]]:
    """AlexNet's kernels by their usual tiles, a few cases at a time that share their tensors."""
    layers, batch = (SMALL, 2) if rehearse else (ALEXNET, BATCH)
    precisions = PRECISIONS if place != "cpu" else interpretable()
    sizes = layer_cases.SMALL if rehearse else layer_cases.Sizes(place=place)
    for (name, shape), precision in product(layers.items(), precisions):
        yield convolutions(name, shape, precision, batch, place=place)
    for precision in precisions:
        yield layer_cases.products(batch, precision, sizes)
    yield layer_cases.pools_and_norms(batch, sizes)
    yield layer_cases.others(batch, sizes)


def kinds(*, bold: bool, rehearse: bool = False, place: str = CARD) -> Iterator[Iterable[Case]]:
    """Other kinds of convolutions, the boldest last: what breaks a context, or hangs, ends this
    part. ``bold``: those whose warps have roles."""
    layers, batch = (SMALL, 2) if rehearse else (ALEXNET, BATCH)
    of_each: list[tuple[int, Case]] = []
    card = tuning.Card("rehearsed", 90) if place == "cpu" else None
    for name, precision in product(_OF_KINDS, PRECISIONS if place != "cpu" else ("fp32x3",)):
        passes = Passes(shape=layers[name], precision=precision, batch=batch, place=place)
        for pass_ in passes.names:
            key = key_of(passes, pass_)
            made = offered(
                key, card or tuning.card_of(passes.x), stride=passes.shape.stride, groups=1
            )
            for config in few(key, made, interpreted=place == "cpu"):
                kind = kind_of(config)
                case = convolution_case(name, passes, pass_, config)
                of_each.append((_boldness(kind), replace(case, op=f"{case.op}, {kind}")))
    for boldness, case in sorted(of_each, key=lambda pair: pair[0]):
        if (boldness >= _BOLD) is bold:
            yield [case]


def _boldness(kind: str) -> int:
    return kind.count(",") + 2 * ("descriptors" in kind) + _BOLD * ("specialised" in kind)


def resnet(*, place: str = CARD) -> Iterator[Iterable[Case]]:
    """ResNet-50's convolutions."""
    for (name, shape), precision in product(RESNET50.items(), PRECISIONS):
        yield convolutions(f"res {name}", shape, precision, RESNET_BATCH, place=place)


def rows(job: Job) -> Iterator[Row]:
    """A row per kernel; the last says what there was no time for."""
    torch.manual_seed(0)
    left_out = 0
    groups = chain(
        cases(rehearse=job.rehearse), kinds(bold=False, rehearse=job.rehearse),
        () if job.rehearse else resnet(), kinds(bold=True, rehearse=job.rehearse),
    )  # fmt: skip
    for some in groups:
        if job.left_s < 1:
            left_out += 1
            continue
        for case in some:
            kind = case.op.partition(", ")[2]
            yield replace(checked(case), detail={"kind": kind} if kind else None)
    if left_out:
        yield Row(op="right", text=f"left out: {left_out} groups of kernels, for time")

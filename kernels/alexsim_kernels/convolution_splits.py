"""Sums that are computed in parts: each part is written apart, and added in a fixed order.

Results never depend on timing: no program adds to what another writes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from alexsim_kernels.common import Config, Tensor, block_of, image_strides

SPLIT_BYTES = 16 * 1024 * 1024
"""Most scratch that the parts of a sum take."""


@triton.jit
def _finish(
    partial, bias, y, count, splits, height, width, y_image, y_row, y_pixel,
    CHANNELS: tl.constexpr, HAS_BIAS: tl.constexpr, RELU: tl.constexpr, ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    acc = tl.zeros((BLOCK,), dtype=tl.float32)
    for split in range(splits):
        acc += tl.load(partial + split * count + index, mask=inside, other=0.0)
    channel, pixel = index % CHANNELS, index // CHANNELS
    row = pixel // width
    image = row // height
    target = y + image * y_image + (row % height) * y_row + (pixel % width) * y_pixel + channel
    if HAS_BIAS:
        acc += tl.load(bias + channel, mask=inside, other=0.0)
    if RELU:
        acc = tl.where(acc < 0, 0.0, acc)  # NaN stays NaN
    if ADD:
        acc += tl.load(target, mask=inside, other=0.0)
    tl.store(target, acc, mask=inside)


@triton.jit
def _sum_splits(partial, total, count, splits, BLOCK: tl.constexpr):
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), dtype=tl.float32)
    for split in range(splits):
        acc += tl.load(partial + split * count + index, mask=index < count, other=0.0)
    tl.store(total + index, acc, mask=index < count)


def parts_of(y: Tensor, config: Config) -> tuple[int, Tensor]:
    """How many parts the sums of ``y`` have, and memory for several: ``[parts, *y.shape]``.

    No more than fit ``SPLIT_BYTES``: a plan counts on that.
    """
    splits = max(1, min(config.splits, SPLIT_BYTES // (4 * y.numel())))
    if splits == 1:
        return 1, y
    return splits, torch.empty(splits * y.numel(), dtype=torch.float32, device=y.device)


def finish(
    partial: Tensor,
    y: Tensor,
    splits: int,
    *,
    bias: Tensor | None = None,
    relu: bool = False,
    accumulate: bool = False,
) -> None:
    """Add the parts of ``y``, ``[N, C, H, W]`` channels-last; then bias, ReLU, or what is there."""
    count = y.numel()
    block = block_of(count)
    _finish[(triton.cdiv(count, block),)](
        partial, bias if bias is not None else partial, y, count, splits, *y.shape[2:],
        *image_strides("y", y), CHANNELS=y.shape[1], HAS_BIAS=bias is not None, RELU=relu,
        ADD=accumulate, BLOCK=block,
    )  # fmt: skip


def sum_splits(partial: Tensor, total: Tensor, splits: int) -> None:
    """Add ``splits`` buffers that lie one after the other, in order."""
    count = total.numel()
    block = block_of(count)
    _sum_splits[(triton.cdiv(count, block),)](partial, total, count, splits, BLOCK=block)

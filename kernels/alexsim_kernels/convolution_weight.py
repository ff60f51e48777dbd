"""Weight gradient of a convolution, as an implicit matrix product: see ``convolution``.

Rows are filters, columns channels of one tap, the sum over output pixels, cut into ``splits`` parts
that a second kernel adds in a fixed order: results never depend on timing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from alexsim_kernels import convolution_descriptors as descriptors
from alexsim_kernels.common import (
    Config,
    Precision,
    Tensor,
    dot,
    image_strides,
    interpreted,
    triton_name,
    unravel,
)
from alexsim_kernels.convolution import check, is_flat, row_of_taps
from alexsim_kernels.convolution_splits import SPLIT_BYTES, sum_splits
from alexsim_kernels.tuning import Key, choose

MOST_SPLITS = 512
"""Programs that fill any card a few times over; no more parts are made than that takes."""


@triton.jit
def _grad_weight(
    x, dy, out, partial, partial_bias,
    pixels, height, width, out_height, out_width, per_split,
    x_image, x_row, x_pixel, dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    GROUPS: tl.constexpr, STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROW: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    taps: tl.constexpr = R * S * CHANNELS
    pieces: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    column_tile = tl.program_id(0)
    filter_tiles: tl.constexpr = (FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    group = tl.program_id(1) // filter_tiles
    split = tl.program_id(2)
    filter_ = (tl.program_id(1) % filter_tiles) * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    lane = tl.arange(0, BLOCK_CHANNELS)
    depth = tl.arange(0, BLOCK_PIXELS)
    if ROW > 0:
        r = (column_tile * BLOCK_CHANNELS + lane) // ROW
        along = (column_tile * BLOCK_CHANNELS + lane) % ROW
        exists = (r < R) & (along < S * CHANNELS)
        flat = r * (S * CHANNELS) + along
    else:
        tap = column_tile // pieces
        channel = (column_tile % pieces) * BLOCK_CHANNELS + lane
        exists = channel < CHANNELS
        flat = tap * CHANNELS + channel
    acc = tl.zeros((BLOCK_FILTERS, BLOCK_CHANNELS), dtype=tl.float32)
    total = tl.zeros((BLOCK_FILTERS,), dtype=tl.float32)
    first = split * per_split
    last = tl.minimum(first + per_split, pixels)
    for start in range(first, last, BLOCK_PIXELS):
        pixel = start + depth
        inside = pixel < last
        image, p, q = unravel(pixel, out_height, out_width)
        valid = inside[:, None] & (filter_ < FILTERS)[None, :]
        offset = image * dy_image + p * dy_row + q * dy_pixel + group * FILTERS
        gradients = tl.load(dy + offset[:, None] + filter_[None, :], mask=valid, other=0.0)
        if MASKED:
            offset = image * out_image + p * out_row + q * out_pixel + group * FILTERS
            passed = tl.load(out + offset[:, None] + filter_[None, :], mask=valid, other=0.0) > 0
            gradients = tl.where(passed, gradients, 0.0)
        total += tl.sum(gradients.to(tl.float32), axis=0)
        top, left = p * STRIDE - TOP, q * STRIDE - LEFT
        window = x + image * x_image + top * x_row + left * x_pixel + group * CHANNELS
        if ROW > 0:
            # Columns that do not exist may be read, which keeps loads wide, and are not written.
            row, run = top[:, None] + r[None, :], (left * CHANNELS)[:, None] + along[None, :]
            on_image = (row >= 0) & (row < height) & (run >= 0) & (run < width * CHANNELS)
            on_image = on_image & inside[:, None] & (r < R)[None, :]
            tap_at = window[:, None] + (r * x_row + along)[None, :]
            values = tl.load(tap_at, mask=on_image, other=0.0)
        else:
            row, column = top + tap // S, left + tap % S
            on_image = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            tap_at = window + (tap // S) * x_row + (tap % S) * x_pixel
            valid = on_image[:, None] & exists[None, :]
            values = tl.load(tap_at[:, None] + channel[None, :], mask=valid, other=0.0)
        acc = dot(tl.trans(gradients), values, acc, PRECISION)
    offset = split * (GROUPS * FILTERS) + group * FILTERS + filter_
    target = partial + offset[:, None] * taps + flat[None, :]
    tl.store(target, acc, mask=(filter_ < FILTERS)[:, None] & exists[None, :])
    if column_tile == 0:
        tl.store(partial_bias + offset, total, mask=filter_ < FILTERS)


def grad_weight(
    x: Tensor,
    dy: Tensor,
    dweight: Tensor,
    dbias: Tensor,
    *,
    stride: int,
    padding: tuple[int, int],
    groups: int = 1,
    relu_output: Tensor | None = None,
    precision: Precision = "fp32",
    config: Config | None = None,
    splits: int | None = None,
) -> None:
    """Write the gradients of weights and biases, summed over images and pixels.

    Args:
        x: ``[N, C, H, W]``, channels-last.
        dy: gradient of the output, ``[N, K, P, Q]``, channels-last.
        dweight: ``[K, C / groups, R, S]``, channels-last, float32.
        dbias: ``[K]``, float32.
        stride: of windows, both ways.
        padding: zeros above and to the left.
        groups: of channels and filters.
        relu_output: what the fused forward wrote; ``dy`` counts where it is positive.
        precision: see ``alexsim_kernels.common.PRECISIONS``.
        config: tile, warps and stages; chosen if None.
        splits: parts of the sum, at most; chosen if None.

    Raises:
        ValueError: shapes do not match, or a tensor lies otherwise.
    """
    check(x, dweight, dy, groups)
    channels, filters = x.shape[1] // groups, dweight.shape[0] // groups
    pixels = dy.shape[0] * dy.shape[2] * dy.shape[3]
    size = dweight.shape[2], dweight.shape[3]
    flat = is_flat(x, groups)
    key = Key(
        "grad_weight", filters, channels * size[0] * size[1], pixels, channels, flat, precision,
        x.element_size(),
    )  # fmt: skip
    config = config or choose(key, x)
    mask = dy if relu_output is None else relu_output
    row = row_of_taps(x, dweight, groups, config)
    columns = triton.cdiv(size[0] * row if row else channels, config.block_n)
    tiles = columns * (1 if row else size[0] * size[1])
    filter_tiles = triton.cdiv(filters, config.block_m) * groups
    described = config.loads == "descriptors" and descriptors.fit(
        x, dy, mask, weight=dweight, stride=stride, groups=groups
    )
    turns = (
        descriptors.pixel_tiles(dy, config.block_k) if described else -(-pixels // config.block_k)
    )
    splits = splits or _splits(tiles * filter_tiles, turns, config, dweight.numel())
    per_split = triton.cdiv(turns, splits)
    splits = triton.cdiv(turns, per_split)
    partial, partial_bias = dweight, dbias
    if splits > 1:
        partial = x.new_empty(splits * dweight.numel(), dtype=torch.float32)
        partial_bias = x.new_empty(splits * dbias.numel(), dtype=torch.float32)
    if described:
        descriptors.grad_weight(
            x, dy, dweight, (partial, partial_bias), splits=splits, padding=padding,
            relu_output=relu_output, precision=precision, config=config,
        )  # fmt: skip
    else:
        _grad_weight[(tiles, filter_tiles, splits)](
            x, dy, mask, partial, partial_bias,
            pixels, *x.shape[2:], *dy.shape[2:], per_split * config.block_k,
            *image_strides("x", x), *image_strides("dy", dy), *image_strides("relu_output", mask),
            CHANNELS=channels, FILTERS=filters, R=size[0], S=size[1], GROUPS=groups,
            STRIDE=stride, TOP=padding[0], LEFT=padding[1],
            ROW=row, MASKED=relu_output is not None, PRECISION=triton_name(precision),
            BLOCK_FILTERS=config.block_m, BLOCK_CHANNELS=config.block_n,
            BLOCK_PIXELS=config.block_k, num_warps=config.warps, num_stages=config.stages,
        )  # fmt: skip
    if splits > 1:
        sum_splits(partial, dweight, splits)
        sum_splits(partial_bias, dbias, splits)


def _splits(programs: int, turns: int, config: Config, numbers: int) -> int:
    """Parts that fill the card, each long enough to be worth it, within the scratch."""
    if interpreted():
        return 1
    wanted = config.splits or triton.cdiv(MOST_SPLITS, programs)
    long_enough = max(1, turns // 8)
    return max(1, min(wanted, long_enough, MOST_SPLITS, SPLIT_BYTES // (4 * numbers)))

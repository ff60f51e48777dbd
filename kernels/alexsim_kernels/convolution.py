"""Convolution forward, input gradient and weight gradient, as implicit matrix products.

``y[n, k, p, q] = sum over c, r, s of x[n, c, p * stride - top + r, q * stride - left + s]
* w[k, c, r, s] + b[k]``, channels in groups; what lies outside the image is zero. The matrix of
windows is never written: its rows are gathered while the product runs.

* Forward: rows are output pixels of all images, columns filters, the sum over taps and channels.
* Input gradient: rows are input pixels, columns channels, the sum over taps and filters.
* Weight gradient: rows are filters, columns channels of one tap, the sum over output pixels, cut
  into ``splits`` parts that a second kernel adds in a fixed order: results never depend on timing.

With up to 4 channels taps and channels are one flat index (a window's row of ``S * C`` values is
one run in memory), so that the three colours of conv1 do not pad every tap to 16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from alexsim_kernels.common import (
    Config,
    Precision,
    Tensor,
    block_of,
    dot,
    filters,
    images,
    interpreted,
    word,
)
from alexsim_kernels.tuning import Key, choose

SPLIT_BYTES = 16 * 1024 * 1024
"""Most scratch that the parts of a weight gradient take."""
MOST_SPLITS = 512
"""Programs that fill any card a few times over; no more parts are made than that takes."""
FLAT_CHANNELS = 4
"""Up to so many channels per pixel, taps and channels are one index."""


@triton.jit
def _forward(
    x, w, bias, y,
    rows, height, width, out_height, out_width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    FLAT: tl.constexpr, RELU: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    column_tiles: tl.constexpr = (FILTERS + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0)
    group = tl.program_id(1)
    m = (tile // column_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    k = (tile % column_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = m < rows
    q = m % out_width
    p = (m // out_width) % out_height
    n = m // (out_width * out_height)
    top, left = p * STRIDE - TOP, q * STRIDE - LEFT
    here = x + n * x_image + top * x_row + left * x_pixel + group * CHANNELS
    bank = w + (group * FILTERS + k) * (R * S * CHANNELS)
    depth = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    if FLAT:
        for start in range(0, R * S * CHANNELS, BLOCK_K):
            flat = start + depth
            r, along = flat // (S * CHANNELS), flat % (S * CHANNELS)
            row, column = top[:, None] + r[None, :], left[:, None] + (along // CHANNELS)[None, :]
            ok = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            ok = ok & inside[:, None] & (flat < R * S * CHANNELS)[None, :]
            a = tl.load(here[:, None] + (r * x_row + along)[None, :], mask=ok, other=0.0)
            known = (flat < R * S * CHANNELS)[:, None] & (k < FILTERS)[None, :]
            b = tl.load(bank[None, :] + flat[:, None], mask=known, other=0.0)
            acc = dot(a, b, acc, PRECISION)
    else:
        pieces: tl.constexpr = (CHANNELS + BLOCK_K - 1) // BLOCK_K
        for step in range(R * S * pieces):
            tap = step // pieces
            c = (step % pieces) * BLOCK_K + depth
            row, column = top + tap // S, left + tap % S
            ok = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            run = here + (tap // S) * x_row + (tap % S) * x_pixel
            a = tl.load(run[:, None] + c[None, :], mask=ok[:, None] & (c < CHANNELS)[None, :],
                        other=0.0)  # fmt: skip
            known = (c < CHANNELS)[:, None] & (k < FILTERS)[None, :]
            b = tl.load(bank[None, :] + (tap * CHANNELS + c)[:, None], mask=known, other=0.0)
            acc = dot(a, b, acc, PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias + group * FILTERS + k, mask=k < FILTERS, other=0.0)[None, :]
    if RELU:
        acc = tl.where(acc < 0, 0.0, acc)  # NaN stays NaN
    there = y + n * y_image + p * y_row + q * y_pixel + group * FILTERS
    tl.store(there[:, None] + k[None, :], acc, mask=inside[:, None] & (k < FILTERS)[None, :])


@triton.jit
def _grad_input(
    dy, w, out, dx,
    rows, height, width, out_height, out_width,
    dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel, dx_image, dx_row, dx_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    MASKED: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    column_tiles: tl.constexpr = (CHANNELS + BLOCK_N - 1) // BLOCK_N
    pieces: tl.constexpr = (FILTERS + BLOCK_K - 1) // BLOCK_K
    tile = tl.program_id(0)
    group = tl.program_id(1)
    m = (tile // column_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = (tile % column_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = m < rows
    column = m % width
    row = (m // width) % height
    n = m // (width * height)
    depth = tl.arange(0, BLOCK_K)
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(R * S * pieces):
        tap = step // pieces
        k = (step % pieces) * BLOCK_K + depth
        # The windows in which this pixel stands at this tap: one, or none between strides.
        down, across = row + TOP - tap // S, column + LEFT - tap % S
        ok = inside & (down >= 0) & (across >= 0)
        if STRIDE > 1:
            ok = ok & (down % STRIDE == 0) & (across % STRIDE == 0)
        p, q = down // STRIDE, across // STRIDE
        ok = ok & (p < out_height) & (q < out_width)
        known = ok[:, None] & (k < FILTERS)[None, :]
        at = n * dy_image + p * dy_row + q * dy_pixel + group * FILTERS
        a = tl.load(dy + at[:, None] + k[None, :], mask=known, other=0.0)
        if MASKED:
            at = n * out_image + p * out_row + q * out_pixel + group * FILTERS
            passed = tl.load(out + at[:, None] + k[None, :], mask=known, other=0.0) > 0
            a = tl.where(passed, a, 0.0)
        at = (group * FILTERS + k) * (R * S * CHANNELS) + tap * CHANNELS
        b = tl.load(w + at[:, None] + c[None, :],
                    mask=(k < FILTERS)[:, None] & (c < CHANNELS)[None, :], other=0.0)  # fmt: skip
        acc = dot(a, b, acc, PRECISION)
    there = n * dx_image + row * dx_row + column * dx_pixel + group * CHANNELS
    target = dx + there[:, None] + c[None, :]
    wanted = inside[:, None] & (c < CHANNELS)[None, :]
    if ADD:
        acc += tl.load(target, mask=wanted, other=0.0)
    tl.store(target, acc, mask=wanted)


@triton.jit
def _grad_weight(
    x, dy, out, partial, partial_bias,
    pixels, height, width, out_height, out_width, per_split,
    x_image, x_row, x_pixel, dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    GROUPS: tl.constexpr, STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    FLAT: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    taps: tl.constexpr = R * S * CHANNELS
    pieces: tl.constexpr = (CHANNELS + BLOCK_N - 1) // BLOCK_N
    column_tile = tl.program_id(0)
    filter_tiles: tl.constexpr = (FILTERS + BLOCK_M - 1) // BLOCK_M
    group = tl.program_id(1) // filter_tiles
    split = tl.program_id(2)
    k = (tl.program_id(1) % filter_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    if FLAT:
        flat = column_tile * BLOCK_N + columns
        r, along = flat // (S * CHANNELS), flat % (S * CHANNELS)
        s = along // CHANNELS
        wanted = flat < taps
    else:
        tap = column_tile // pieces
        c = (column_tile % pieces) * BLOCK_N + columns
        wanted = c < CHANNELS
        flat = tap * CHANNELS + c
    acc = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    first = split * per_split
    last = tl.minimum(first + per_split, pixels)
    for start in range(first, last, BLOCK_K):
        m = start + depth
        inside = m < last
        q = m % out_width
        p = (m // out_width) % out_height
        n = m // (out_width * out_height)
        known = inside[:, None] & (k < FILTERS)[None, :]
        at = n * dy_image + p * dy_row + q * dy_pixel + group * FILTERS
        a = tl.load(dy + at[:, None] + k[None, :], mask=known, other=0.0)
        if MASKED:
            at = n * out_image + p * out_row + q * out_pixel + group * FILTERS
            passed = tl.load(out + at[:, None] + k[None, :], mask=known, other=0.0) > 0
            a = tl.where(passed, a, 0.0)
        total += tl.sum(a.to(tl.float32), axis=0)
        top, left = p * STRIDE - TOP, q * STRIDE - LEFT
        here = x + n * x_image + top * x_row + left * x_pixel + group * CHANNELS
        if FLAT:
            row, column = top[:, None] + r[None, :], left[:, None] + s[None, :]
            ok = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            ok = ok & inside[:, None] & wanted[None, :]
            b = tl.load(here[:, None] + (r * x_row + along)[None, :], mask=ok, other=0.0)
        else:
            row, column = top + tap // S, left + tap % S
            ok = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            run = here + (tap // S) * x_row + (tap % S) * x_pixel
            b = tl.load(run[:, None] + c[None, :], mask=ok[:, None] & wanted[None, :], other=0.0)
        acc = dot(tl.trans(a), b, acc, PRECISION)
    at = split * (GROUPS * FILTERS) + group * FILTERS + k
    tl.store(partial + at[:, None] * taps + flat[None, :], acc,
             mask=(k < FILTERS)[:, None] & wanted[None, :])  # fmt: skip
    if column_tile == 0:
        tl.store(partial_bias + at, total, mask=k < FILTERS)


@triton.jit
def _sum_splits(partial, total, count, splits, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), dtype=tl.float32)
    for split in range(splits):
        acc += tl.load(partial + split * count + at, mask=at < count, other=0.0)
    tl.store(total + at, acc, mask=at < count)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    stride: int,
    padding: tuple[int, int],
    groups: int = 1,
    relu: bool = False,
    precision: Precision = "fp32",
    config: Config | None = None,
) -> None:
    """Write the convolution of ``x`` into ``y``, with bias and, if asked for, ReLU.

    Args:
        x: ``[N, C, H, W]``, channels-last.
        weight: ``[K, C / groups, R, S]``, channels-last.
        bias: ``[K]``.
        y: ``[N, K, P, Q]``, channels-last; its size says how far windows hang over the right and
            bottom edges.
        stride: of windows, both ways.
        padding: zeros above and to the left.
        groups: of channels and filters.
        relu: write ``max(y, 0)``.
        precision: see ``alexsim_kernels.common.PRECISIONS``.
        config: tile, warps and stages; chosen if None.

    Raises:
        ValueError: shapes do not match, or a tensor lies otherwise.
    """
    _check(x, weight, y, groups)
    channels, count = x.shape[1] // groups, weight.shape[0] // groups
    rows = y.shape[0] * y.shape[2] * y.shape[3]
    size = weight.shape[2], weight.shape[3]
    flat = _is_flat(x, groups)
    key = Key("forward", rows, count, channels * size[0] * size[1], channels, flat, precision)
    config = config or choose(key, x)
    grid = (triton.cdiv(rows, config.block_m) * triton.cdiv(count, config.block_n), groups)
    _forward[grid](
        x, weight, bias if bias is not None else x, y,
        rows, *x.shape[2:], *y.shape[2:], *images("x", x), *images("y", y),
        CHANNELS=channels, FILTERS=count, R=size[0], S=size[1],
        STRIDE=stride, TOP=padding[0], LEFT=padding[1],
        FLAT=flat, RELU=relu, HAS_BIAS=bias is not None, PRECISION=word(precision),
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def grad_input(
    dy: Tensor,
    weight: Tensor,
    dx: Tensor,
    *,
    stride: int,
    padding: tuple[int, int],
    groups: int = 1,
    relu_output: Tensor | None = None,
    accumulate: bool = False,
    precision: Precision = "fp32",
    config: Config | None = None,
) -> None:
    """Write the gradient of the input into ``dx``, or add it.

    Args:
        dy: gradient of the output, ``[N, K, P, Q]``, channels-last.
        weight: ``[K, C / groups, R, S]``, channels-last.
        dx: ``[N, C, H, W]``, channels-last.
        stride: of windows, both ways.
        padding: zeros above and to the left.
        groups: of channels and filters.
        relu_output: what the fused forward wrote; ``dy`` counts where it is positive.
        accumulate: add to ``dx``.
        precision: see ``alexsim_kernels.common.PRECISIONS``.
        config: tile, warps and stages; chosen if None.

    Raises:
        ValueError: shapes do not match, or a tensor lies otherwise.
    """
    _check(dx, weight, dy, groups)
    channels, count = dx.shape[1] // groups, weight.shape[0] // groups
    rows = dx.shape[0] * dx.shape[2] * dx.shape[3]
    size = weight.shape[2], weight.shape[3]
    key = Key("grad_input", rows, channels, count * size[0] * size[1], count, False, precision)
    config = config or choose(key, dy)
    mask = dy if relu_output is None else relu_output
    grid = (triton.cdiv(rows, config.block_m) * triton.cdiv(channels, config.block_n), groups)
    _grad_input[grid](
        dy, weight, mask, dx,
        rows, *dx.shape[2:], *dy.shape[2:],
        *images("dy", dy), *images("relu_output", mask), *images("dx", dx),
        CHANNELS=channels, FILTERS=count, R=size[0], S=size[1],
        STRIDE=stride, TOP=padding[0], LEFT=padding[1],
        MASKED=relu_output is not None, ADD=accumulate, PRECISION=word(precision),
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


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
    _check(x, dweight, dy, groups)
    channels, count = x.shape[1] // groups, dweight.shape[0] // groups
    pixels = dy.shape[0] * dy.shape[2] * dy.shape[3]
    size = dweight.shape[2], dweight.shape[3]
    flat = _is_flat(x, groups)
    key = Key("grad_weight", count, channels * size[0] * size[1], pixels, channels, flat, precision)
    config = config or choose(key, x)
    mask = dy if relu_output is None else relu_output
    columns = channels * size[0] * size[1] if flat else channels
    tiles = triton.cdiv(columns, config.block_n) * (1 if flat else size[0] * size[1])
    filter_tiles = triton.cdiv(count, config.block_m) * groups
    if splits is None:
        splits = _splits(tiles * filter_tiles, pixels, config.block_k, dweight.numel())
    per_split = triton.cdiv(triton.cdiv(pixels, splits), config.block_k) * config.block_k
    splits = triton.cdiv(pixels, per_split)
    partial, partial_bias = dweight, dbias
    if splits > 1:
        partial = x.new_empty(splits * dweight.numel(), dtype=torch.float32)
        partial_bias = x.new_empty(splits * dbias.numel(), dtype=torch.float32)
    _grad_weight[(tiles, filter_tiles, splits)](
        x, dy, mask, partial, partial_bias,
        pixels, *x.shape[2:], *dy.shape[2:], per_split,
        *images("x", x), *images("dy", dy), *images("relu_output", mask),
        CHANNELS=channels, FILTERS=count, R=size[0], S=size[1], GROUPS=groups,
        STRIDE=stride, TOP=padding[0], LEFT=padding[1],
        FLAT=flat, MASKED=relu_output is not None, PRECISION=word(precision),
        BLOCK_M=config.block_m, BLOCK_N=config.block_n, BLOCK_K=config.block_k,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    if splits > 1:
        sum_splits(partial, dweight, splits)
        sum_splits(partial_bias, dbias, splits)


def _splits(programs: int, pixels: int, block_k: int, numbers: int) -> int:
    """Parts that fill the card, each long enough to be worth it, within the scratch."""
    if interpreted():
        return 1
    wanted = triton.cdiv(MOST_SPLITS, programs)
    long_enough = max(1, pixels // (8 * block_k))
    return max(1, min(wanted, long_enough, SPLIT_BYTES // (4 * numbers)))


def _is_flat(x: Tensor, groups: int) -> bool:
    """Whether a window's row of all its taps and channels is one run in memory."""
    return groups == 1 and x.shape[1] <= FLAT_CHANNELS and x.stride(3) == x.shape[1]


def _check(x: Tensor, weight: Tensor, y: Tensor, groups: int) -> None:
    filters("weight", weight)
    if weight.shape[1] * groups != x.shape[1] or weight.shape[0] != y.shape[1]:
        raise ValueError(
            f"weight {list(weight.shape)} in {groups} group(s) does not lead from"
            f" {list(x.shape)} to {list(y.shape)}"
        )
    if weight.shape[0] % groups or x.shape[0] != y.shape[0]:
        raise ValueError(f"{list(weight.shape)} in {groups} groups, {len(x)} and {len(y)} images")


def sum_splits(partial: Tensor, total: Tensor, splits: int) -> None:
    """Add ``splits`` buffers that lie one after the other, in order."""
    count = total.numel()
    block = block_of(count)
    _sum_splits[(triton.cdiv(count, block),)](partial, total, count, splits, BLOCK=block)

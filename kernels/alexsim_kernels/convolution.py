"""Convolution forward and input gradient, as implicit matrix products.

``y[n, k, p, q] = sum over c, r, s of x[n, c, p * stride - top + r, q * stride - left + s]
* w[k, c, r, s] + b[k]``, channels in groups; what lies outside the image is zero. The matrix of
windows is never written: its rows are gathered while the product runs.

* Forward: rows are output pixels of all images, columns filters, the sum over taps and channels.
* Input gradient: rows are input pixels, columns channels, the sum over taps and filters.

The weight gradient is in ``convolution_weight``.

With up to 4 channels taps and channels are one flat index (a window's row of ``S * C`` values is
one run in memory), so that the three colours of conv1 do not pad every tap to 16.

In the kernels ``x_image``, ``x_row`` and ``x_pixel`` are strides of ``x``, in elements; ``p`` and
``q`` are an output pixel's row and column, ``r`` and ``s`` a tap's. ``BLOCK_DEPTH`` counts what
one turn of the loop adds to a sum: channels of a tap forward, filters at a tap in the input
gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import (
    Config,
    Precision,
    Tensor,
    check_filters,
    dot,
    image_strides,
    triton_name,
    unravel,
)
from alexsim_kernels.tuning import Key, choose

FLAT_CHANNELS = 4
"""Up to so many channels per pixel, taps and channels are one index."""


@triton.jit
def _forward(
    x, weight, bias, y,
    pixels, height, width, out_height, out_width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    FLAT: tl.constexpr, RELU: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_FILTERS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    filter_tiles: tl.constexpr = (FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    tile = tl.program_id(0)
    group = tl.program_id(1)
    pixel = (tile // filter_tiles) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    filter_ = (tile % filter_tiles) * BLOCK_FILTERS + tl.arange(0, BLOCK_FILTERS)
    inside = pixel < pixels
    image, p, q = unravel(pixel, out_height, out_width)
    top, left = p * STRIDE - TOP, q * STRIDE - LEFT
    window = x + image * x_image + top * x_row + left * x_pixel + group * CHANNELS
    bank = weight + (group * FILTERS + filter_) * (R * S * CHANNELS)
    depth = tl.arange(0, BLOCK_DEPTH)
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_FILTERS), dtype=tl.float32)
    if FLAT:
        for start in range(0, R * S * CHANNELS, BLOCK_DEPTH):
            flat = start + depth
            r, along = flat // (S * CHANNELS), flat % (S * CHANNELS)
            row, column = top[:, None] + r[None, :], left[:, None] + (along // CHANNELS)[None, :]
            on_image = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            on_image = on_image & inside[:, None] & (flat < R * S * CHANNELS)[None, :]
            tap_at = window[:, None] + (r * x_row + along)[None, :]
            values = tl.load(tap_at, mask=on_image, other=0.0)
            valid = (flat < R * S * CHANNELS)[:, None] & (filter_ < FILTERS)[None, :]
            weights = tl.load(bank[None, :] + flat[:, None], mask=valid, other=0.0)
            acc = dot(values, weights, acc, PRECISION)
    else:
        pieces: tl.constexpr = (CHANNELS + BLOCK_DEPTH - 1) // BLOCK_DEPTH
        for step in range(R * S * pieces):
            tap = step // pieces
            channel = (step % pieces) * BLOCK_DEPTH + depth
            row, column = top + tap // S, left + tap % S
            on_image = inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            tap_at = window + (tap // S) * x_row + (tap % S) * x_pixel
            valid = on_image[:, None] & (channel < CHANNELS)[None, :]
            values = tl.load(tap_at[:, None] + channel[None, :], mask=valid, other=0.0)
            valid = (channel < CHANNELS)[:, None] & (filter_ < FILTERS)[None, :]
            offset = (tap * CHANNELS + channel)[:, None]
            weights = tl.load(bank[None, :] + offset, mask=valid, other=0.0)
            acc = dot(values, weights, acc, PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias + group * FILTERS + filter_, mask=filter_ < FILTERS, other=0.0)[None, :]
    if RELU:
        acc = tl.where(acc < 0, 0.0, acc)  # NaN stays NaN
    target = y + image * y_image + p * y_row + q * y_pixel + group * FILTERS
    valid = inside[:, None] & (filter_ < FILTERS)[None, :]
    tl.store(target[:, None] + filter_[None, :], acc, mask=valid)


@triton.jit
def _grad_input(
    dy, weight, out, dx,
    pixels, height, width, out_height, out_width,
    dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel, dx_image, dx_row, dx_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    MASKED: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    channel_tiles: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    pieces: tl.constexpr = (FILTERS + BLOCK_DEPTH - 1) // BLOCK_DEPTH
    tile = tl.program_id(0)
    group = tl.program_id(1)
    pixel = (tile // channel_tiles) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    channel = (tile % channel_tiles) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    inside = pixel < pixels
    image, row, column = unravel(pixel, height, width)
    depth = tl.arange(0, BLOCK_DEPTH)
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), dtype=tl.float32)
    for step in range(R * S * pieces):
        tap = step // pieces
        filter_ = (step % pieces) * BLOCK_DEPTH + depth
        # The windows in which this pixel stands at this tap: one, or none between strides.
        down, across = row + TOP - tap // S, column + LEFT - tap % S
        in_window = inside & (down >= 0) & (across >= 0)
        if STRIDE > 1:
            in_window = in_window & (down % STRIDE == 0) & (across % STRIDE == 0)
        p, q = down // STRIDE, across // STRIDE
        in_window = in_window & (p < out_height) & (q < out_width)
        valid = in_window[:, None] & (filter_ < FILTERS)[None, :]
        offset = image * dy_image + p * dy_row + q * dy_pixel + group * FILTERS
        gradients = tl.load(dy + offset[:, None] + filter_[None, :], mask=valid, other=0.0)
        if MASKED:
            offset = image * out_image + p * out_row + q * out_pixel + group * FILTERS
            passed = tl.load(out + offset[:, None] + filter_[None, :], mask=valid, other=0.0) > 0
            gradients = tl.where(passed, gradients, 0.0)
        offset = (group * FILTERS + filter_) * (R * S * CHANNELS) + tap * CHANNELS
        valid = (filter_ < FILTERS)[:, None] & (channel < CHANNELS)[None, :]
        weights = tl.load(weight + offset[:, None] + channel[None, :], mask=valid, other=0.0)
        acc = dot(gradients, weights, acc, PRECISION)
    offset = image * dx_image + row * dx_row + column * dx_pixel + group * CHANNELS
    target = dx + offset[:, None] + channel[None, :]
    stored = inside[:, None] & (channel < CHANNELS)[None, :]
    if ADD:
        acc += tl.load(target, mask=stored, other=0.0)
    tl.store(target, acc, mask=stored)


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
    check(x, weight, y, groups)
    channels, filters = x.shape[1] // groups, weight.shape[0] // groups
    pixels = y.shape[0] * y.shape[2] * y.shape[3]
    size = weight.shape[2], weight.shape[3]
    flat = is_flat(x, groups)
    key = Key("forward", pixels, filters, channels * size[0] * size[1], channels, flat, precision)
    config = config or choose(key, x)
    grid = (triton.cdiv(pixels, config.block_m) * triton.cdiv(filters, config.block_n), groups)
    _forward[grid](
        x, weight, bias if bias is not None else x, y,
        pixels, *x.shape[2:], *y.shape[2:], *image_strides("x", x), *image_strides("y", y),
        CHANNELS=channels, FILTERS=filters, R=size[0], S=size[1],
        STRIDE=stride, TOP=padding[0], LEFT=padding[1],
        FLAT=flat, RELU=relu, HAS_BIAS=bias is not None, PRECISION=triton_name(precision),
        BLOCK_PIXELS=config.block_m, BLOCK_FILTERS=config.block_n, BLOCK_DEPTH=config.block_k,
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
    check(dx, weight, dy, groups)
    channels, filters = dx.shape[1] // groups, weight.shape[0] // groups
    pixels = dx.shape[0] * dx.shape[2] * dx.shape[3]
    size = weight.shape[2], weight.shape[3]
    key = Key(
        "grad_input", pixels, channels, filters * size[0] * size[1], filters, False, precision
    )
    config = config or choose(key, dy)
    mask = dy if relu_output is None else relu_output
    grid = (triton.cdiv(pixels, config.block_m) * triton.cdiv(channels, config.block_n), groups)
    _grad_input[grid](
        dy, weight, mask, dx,
        pixels, *dx.shape[2:], *dy.shape[2:],
        *image_strides("dy", dy), *image_strides("relu_output", mask), *image_strides("dx", dx),
        CHANNELS=channels, FILTERS=filters, R=size[0], S=size[1],
        STRIDE=stride, TOP=padding[0], LEFT=padding[1],
        MASKED=relu_output is not None, ADD=accumulate, PRECISION=triton_name(precision),
        BLOCK_PIXELS=config.block_m, BLOCK_CHANNELS=config.block_n, BLOCK_DEPTH=config.block_k,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip


def is_flat(x: Tensor, groups: int) -> bool:
    """Whether a window's row of all its taps and channels is one run in memory."""
    return groups == 1 and x.shape[1] <= FLAT_CHANNELS and x.stride(3) == x.shape[1]


def check(x: Tensor, weight: Tensor, y: Tensor, groups: int) -> None:
    """Refuse filters that do not lead from ``x`` to ``y``."""
    check_filters("weight", weight)
    if weight.shape[1] * groups != x.shape[1] or weight.shape[0] != y.shape[1]:
        raise ValueError(
            f"weight {list(weight.shape)} in {groups} group(s) does not lead from"
            f" {list(x.shape)} to {list(y.shape)}"
        )
    if weight.shape[0] % groups or x.shape[0] != y.shape[0]:
        raise ValueError(f"{list(weight.shape)} in {groups} groups, {len(x)} and {len(y)} images")

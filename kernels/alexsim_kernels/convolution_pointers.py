"""Convolutions whose windows are gathered through pointers: any strides, padding and groups.

With up to ``FLAT_CHANNELS`` channels a window's row of ``S * C`` values is one run in memory, and a
sum's index runs over rows of ``ROW`` values, which are at least that run; ``ROW`` is 0 where taps
are looked up one by one. A row may be longer than the run, so that it is a multiple of four values
and loads are 16 bytes wide.

``SPLITS`` parts of a sum are written apart, and added by ``convolution_splits``. A program computes
one tile, or (``PERSISTENT``) one after another.

In the kernels ``x_image``, ``x_row`` and ``x_pixel`` are strides of ``x``, in elements; ``p`` and
``q`` are an output pixel's row and column, ``r`` and ``s`` a tap's. ``BLOCK_DEPTH`` counts what
one turn of the loop adds to a sum: channels of a tap forward, filters at a tap in the input
gradient.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import dot, unravel


@triton.jit
def _turns(turns: tl.constexpr, SPLITS: tl.constexpr):
    """The turns of the loop over a sum that a program has: all, known when it is compiled, or those
    of its part."""
    if SPLITS == 1:
        return 0, turns
    else:
        per_split: tl.constexpr = (turns + SPLITS - 1) // SPLITS
        first = tl.program_id(2) * per_split
        return first, tl.minimum(first + per_split, turns)


@triton.jit
def _forward_tile(
    tile, x, weight, bias, y, partial,
    pixels, height, width, out_height, out_width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROW: tl.constexpr, RELU: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_FILTERS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    filter_tiles: tl.constexpr = (FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
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
    if ROW > 0:
        turns: tl.constexpr = (R * ROW + BLOCK_DEPTH - 1) // BLOCK_DEPTH
        first, last = _turns(turns, SPLITS)
        for turn in range(first, last):
            flat = turn * BLOCK_DEPTH + depth
            r, along = flat // ROW, flat % ROW
            row, run = top[:, None] + r[None, :], (left * CHANNELS)[:, None] + along[None, :]
            on_image = (row >= 0) & (row < height) & (run >= 0) & (run < width * CHANNELS)
            on_image = on_image & inside[:, None] & (r < R)[None, :]
            tap_at = window[:, None] + (r * x_row + along)[None, :]
            values = tl.load(tap_at, mask=on_image, other=0.0)
            exists = (r < R) & (along < S * CHANNELS)
            if ROW > S * CHANNELS:
                # Loads of 16 bytes reach into the next pixel, which may hold anything.
                values = tl.where(exists[None, :], values, 0.0)
            valid = exists[:, None] & (filter_ < FILTERS)[None, :]
            tap = (r * (S * CHANNELS) + along)[:, None]
            weights = tl.load(bank[None, :] + tap, mask=valid, other=0.0)
            acc = dot(values, weights, acc, PRECISION)
    else:
        pieces: tl.constexpr = (CHANNELS + BLOCK_DEPTH - 1) // BLOCK_DEPTH
        first, last = _turns(R * S * pieces, SPLITS)
        for step in range(first, last):
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
    valid = inside[:, None] & (filter_ < FILTERS)[None, :]
    number = group * FILTERS + filter_
    if SPLITS > 1:
        place = tl.program_id(2) * pixels + pixel
        at = place[:, None] * (tl.num_programs(1) * FILTERS) + number[None, :]
        tl.store(partial + at, acc, mask=valid)
    else:
        if HAS_BIAS:
            acc += tl.load(bias + number, mask=filter_ < FILTERS, other=0.0)[None, :]
        if RELU:
            acc = tl.where(acc < 0, 0.0, acc)  # NaN stays NaN
        target = y + image * y_image + p * y_row + q * y_pixel
        tl.store(target[:, None] + number[None, :], acc, mask=valid)


@triton.jit
def forward(
    x, weight, bias, y, partial,
    pixels, height, width, out_height, out_width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel, tiles,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROW: tl.constexpr, RELU: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    SPLITS: tl.constexpr, PERSISTENT: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_FILTERS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    if PERSISTENT:
        for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
            _forward_tile(
                tile, x, weight, bias, y, partial, pixels, height, width, out_height, out_width,
                x_image, x_row, x_pixel, y_image, y_row, y_pixel,
                CHANNELS, FILTERS, R, S, STRIDE, TOP, LEFT, ROW, RELU, HAS_BIAS, PRECISION, SPLITS,
                BLOCK_PIXELS, BLOCK_FILTERS, BLOCK_DEPTH,
            )  # fmt: skip
    else:
        _forward_tile(
            tl.program_id(0), x, weight, bias, y, partial, pixels, height, width,
            out_height, out_width, x_image, x_row, x_pixel, y_image, y_row, y_pixel,
            CHANNELS, FILTERS, R, S, STRIDE, TOP, LEFT, ROW, RELU, HAS_BIAS, PRECISION, SPLITS,
            BLOCK_PIXELS, BLOCK_FILTERS, BLOCK_DEPTH,
        )  # fmt: skip


@triton.jit
def _grad_input_tile(
    tile, dy, weight, out, dx, partial,
    pixels, height, width, out_height, out_width,
    dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel, dx_image, dx_row, dx_pixel,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    MASKED: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr, SPLITS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    channel_tiles: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    pieces: tl.constexpr = (FILTERS + BLOCK_DEPTH - 1) // BLOCK_DEPTH
    group = tl.program_id(1)
    pixel = (tile // channel_tiles) * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    channel = (tile % channel_tiles) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    inside = pixel < pixels
    image, row, column = unravel(pixel, height, width)
    depth = tl.arange(0, BLOCK_DEPTH)
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), dtype=tl.float32)
    first, last = _turns(R * S * pieces, SPLITS)
    for step in range(first, last):
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
    stored = inside[:, None] & (channel < CHANNELS)[None, :]
    number = group * CHANNELS + channel
    if SPLITS > 1:
        place = tl.program_id(2) * pixels + pixel
        at = place[:, None] * (tl.num_programs(1) * CHANNELS) + number[None, :]
        tl.store(partial + at, acc, mask=stored)
    else:
        target = dx + image * dx_image + row * dx_row + column * dx_pixel
        if ADD:
            acc += tl.load(target[:, None] + number[None, :], mask=stored, other=0.0)
        tl.store(target[:, None] + number[None, :], acc, mask=stored)


@triton.jit
def grad_input(
    dy, weight, out, dx, partial,
    pixels, height, width, out_height, out_width,
    dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel, dx_image, dx_row, dx_pixel, tiles,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    STRIDE: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    MASKED: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr,
    SPLITS: tl.constexpr, PERSISTENT: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    if PERSISTENT:
        for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
            _grad_input_tile(
                tile, dy, weight, out, dx, partial, pixels, height, width, out_height, out_width,
                dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel,
                dx_image, dx_row, dx_pixel,
                CHANNELS, FILTERS, R, S, STRIDE, TOP, LEFT, MASKED, ADD, PRECISION, SPLITS,
                BLOCK_PIXELS, BLOCK_CHANNELS, BLOCK_DEPTH,
            )  # fmt: skip
    else:
        _grad_input_tile(
            tl.program_id(0), dy, weight, out, dx, partial, pixels, height, width,
            out_height, out_width, dy_image, dy_row, dy_pixel, out_image, out_row, out_pixel,
            dx_image, dx_row, dx_pixel,
            CHANNELS, FILTERS, R, S, STRIDE, TOP, LEFT, MASKED, ADD, PRECISION, SPLITS,
            BLOCK_PIXELS, BLOCK_CHANNELS, BLOCK_DEPTH,
        )  # fmt: skip

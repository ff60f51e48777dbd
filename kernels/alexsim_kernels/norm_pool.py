"""Response norm across channels and the max-pool that follows it, in one pass over memory.

The norm's output is never stored: forward writes the pooled values and, per window, a bit for each
tap that equals the maximum; backward works the norm out again from its input. Of an input of one
unit, the separate kernels read and write 1 + 1 + 1 units before the pool's quarter, the fused
kernel 1; backward 3 + 4 against 2 and the quarter's.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from alexsim_kernels.common import Tensor, image_strides, interpreted, power_of_two, unravel
from alexsim_kernels.norm import inverse_power, sum_of_squares
from alexsim_kernels.pool import Ties, check


@triton.jit
def _forward(
    x, y, winners, windows, channels, height, width, out_height, out_width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel, w_image, w_row, w_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    WINDOW: tl.constexpr, STRIDE: tl.constexpr, FIRST: tl.constexpr,
    PIXELS_PER_PROGRAM: tl.constexpr, CHANNELS_PADDED: tl.constexpr,
):  # fmt: skip
    window = (tl.program_id(0) * PIXELS_PER_PROGRAM + tl.arange(0, PIXELS_PER_PROGRAM))[:, None]
    channel = tl.arange(0, CHANNELS_PADDED)[None, :]
    inside = (window < windows) & (channel < channels)
    image, p, q = unravel(window, out_height, out_width)
    largest = tl.full((PIXELS_PER_PROGRAM, CHANNELS_PADDED), float("-inf"), dtype=tl.float32)
    bits = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.int32)
    for tap in tl.static_range(WINDOW * WINDOW):
        row, column = p * STRIDE + tap // WINDOW, q * STRIDE + tap % WINDOW
        on_image = inside & (row < height) & (column < width)
        pixel_at = x + image * x_image + row * x_row + column * x_pixel
        total = K + ALPHA * sum_of_squares(pixel_at, channel, channels, on_image, SIZE)
        value = tl.load(pixel_at + channel, mask=on_image, other=0.0).to(tl.float32)
        power = inverse_power(tl.where(on_image, total, 1.0), BETA)
        value = tl.where(on_image, value * power, float("-inf"))
        above = (value > largest) | (value != value)
        if FIRST:
            bits = tl.where(above, 1 << tap, bits)
        else:
            equal = on_image & (value == largest)
            bits = tl.where(above, 1 << tap, tl.where(equal, bits | (1 << tap), bits))
        largest = tl.where(above, value, largest)
    tl.store(y + image * y_image + p * y_row + q * y_pixel + channel, largest, mask=inside)
    tl.store(winners + image * w_image + p * w_row + q * w_pixel + channel, bits, mask=inside)


@triton.jit
def _backward(
    x, winners, dy, dx, pixels, channels, height, width, out_height, out_width,
    x_image, x_row, x_pixel, w_image, w_row, w_pixel,
    dy_image, dy_row, dy_pixel, dx_image, dx_row, dx_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    WINDOW: tl.constexpr, STRIDE: tl.constexpr,
    PIXELS_PER_PROGRAM: tl.constexpr, CHANNELS_PADDED: tl.constexpr,
):  # fmt: skip
    reach: tl.constexpr = (WINDOW + STRIDE - 1) // STRIDE
    pixel = (tl.program_id(0) * PIXELS_PER_PROGRAM + tl.arange(0, PIXELS_PER_PROGRAM))[:, None]
    channel = tl.arange(0, CHANNELS_PADDED)[None, :]
    inside = (pixel < pixels) & (channel < channels)
    image, row, column = unravel(pixel, height, width)
    x_at = x + image * x_image + row * x_row + column * x_pixel
    around = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.float32)
    scaled = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.float32)
    centre = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.float32)
    for offset in tl.static_range(SIZE):
        neighbour = channel + offset - (SIZE - 1 - SIZE // 2)
        exists = inside & (neighbour >= 0) & (neighbour < channels)
        gradient = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.float32)
        for down in tl.static_range(reach):
            for across in tl.static_range(reach):
                p, q = row // STRIDE - down, column // STRIDE - across
                r, s = row - p * STRIDE, column - q * STRIDE
                in_window = exists & (p >= 0) & (q >= 0) & (r < WINDOW) & (s < WINDOW)
                in_window = in_window & (p < out_height) & (q < out_width)
                w_offset = image * w_image + p * w_row + q * w_pixel + neighbour
                bits = tl.load(winners + w_offset, mask=in_window, other=0).to(tl.int32)
                takes = in_window & (((bits >> (r * WINDOW + s)) & 1) == 1)
                dy_offset = image * dy_image + p * dy_row + q * dy_pixel + neighbour
                gradient += tl.load(dy + dy_offset, mask=takes, other=0.0).to(tl.float32)
        value = tl.load(x_at + neighbour, mask=exists, other=0.0).to(tl.float32)
        total = K + ALPHA * sum_of_squares(x_at, neighbour, channels, exists, SIZE)
        total = tl.where(exists, total, 1.0)
        power = inverse_power(total, BETA)
        around += gradient * value * power / total
        if offset == SIZE - 1 - SIZE // 2:
            scaled, centre = gradient * power, value
    result = scaled - 2 * ALPHA * BETA * centre * around
    dx_at = dx + image * dx_image + row * dx_row + column * dx_pixel + channel
    tl.store(dx_at, result, mask=inside)


def winners_like(y: Tensor, window: int) -> Tensor:
    """Room for the bits of every window of ``y``.

    Raises:
        ValueError: a window has more taps than a word has bits.
    """
    if window > 5:
        raise ValueError(f"windows of at most 5 x 5 have room for their bits, got {window}")
    return torch.empty_like(y, dtype=torch.int16 if window <= 3 else torch.int32)


def forward(
    x: Tensor,
    y: Tensor,
    winners: Tensor,
    *,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    window: int,
    stride: int,
    ties: Ties,
) -> None:
    """Normalise over ``size`` channels, then pool.

    Args:
        x: ``[N, C, H, W]``, channels-last.
        y: ``[N, C, P, Q]``, channels-last; written.
        winners: as ``winners_like`` makes it; written.
        size: channels that the norm sums over.
        k: added to the sum.
        alpha: multiplies the sum of squares.
        beta: the power.
        window: pixels of a pooling window, both ways.
        stride: of windows.
        ties: who gets a window's gradient: ``all`` that equal the maximum, or the ``first``.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    _check(x, y, winners, stride, ties)
    windows = y.shape[0] * y.shape[2] * y.shape[3]
    grid, blocks = _blocks(windows, x.shape[1])
    _forward[grid](
        x, y, winners, windows, *x.shape[1:], *y.shape[2:],
        *image_strides("x", x), *image_strides("y", y), *image_strides("winners", winners),
        SIZE=size, K=k, ALPHA=alpha, BETA=beta, WINDOW=window, STRIDE=stride,
        FIRST=ties == "first", **blocks,
    )  # fmt: skip


def backward(
    x: Tensor,
    winners: Tensor,
    dy: Tensor,
    dx: Tensor,
    *,
    size: int,
    k: float,
    alpha: float,
    beta: float,
    window: int,
    stride: int,
) -> None:
    """Write the gradient of the norm's input into ``dx``; ``winners`` as the forward left them.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    _check(x, dy, winners, stride, "all")
    if dx.shape != x.shape:
        raise ValueError(f"shapes differ: {list(x.shape)} and {list(dx.shape)}")
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    grid, blocks = _blocks(pixels, x.shape[1])
    _backward[grid](
        x, winners, dy, dx, pixels, *x.shape[1:], *dy.shape[2:],
        *image_strides("x", x), *image_strides("winners", winners),
        *image_strides("dy", dy), *image_strides("dx", dx),
        SIZE=size, K=k, ALPHA=alpha, BETA=beta, WINDOW=window, STRIDE=stride, **blocks,
    )  # fmt: skip


def _blocks(pixels: int, channels: int) -> tuple[tuple[int], dict[str, int]]:
    padded = power_of_two(16, channels, 1 << 16)
    count = power_of_two(1, pixels, (1 << 20 if interpreted() else 512) // padded)
    return (triton.cdiv(pixels, count),), {"PIXELS_PER_PROGRAM": count, "CHANNELS_PADDED": padded}


def _check(x: Tensor, y: Tensor, winners: Tensor, stride: int, ties: Ties) -> None:
    check(x, y, stride)
    if winners.shape != y.shape:
        raise ValueError(f"winners of {list(winners.shape)} are not those of {list(y.shape)}")
    if ties not in ("all", "first"):
        raise ValueError(f"ties must be 'all' or 'first', got {ties!r}")

"""Response norms across channels and over pixels, forward and backward.

``d = k + alpha * sum over the window of x^2``, ``y = x * d^-beta``; with the window's offsets
``-(size // 2) .. size - 1 - size // 2``, over channels (the paper's local response normalisation,
section 3.3) or over rows and columns (cuda-convnet's map norm). Values outside count as zero.
With ``t = dy * x * d^-(beta + 1)``, ``dx = dy * d^-beta - 2 alpha beta x * sum over the mirrored
window of t``.

``alpha`` is what multiplies the sum: the original divides the stated 1e-4 by the window's size.
``d`` is kept for the backward pass, or worked out again from ``x`` where ``d`` is None: that moves
a third less memory forward, and costs arithmetic backward.

In the kernels ``x_image``, ``x_row`` and ``x_pixel`` are strides of ``x``, in elements.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import (
    Tensor,
    block_of,
    image_strides,
    interpreted,
    power_of_two,
    unravel,
)


@triton.jit
def inverse_power(d, BETA: tl.constexpr):
    """``d^-beta``; the paper's 0.75 by square roots."""
    if BETA == 0.75:
        root = tl.rsqrt(d)
        return root * tl.sqrt(root)
    else:
        return tl.exp2(-BETA * tl.log2(d))


@triton.jit
def sum_of_squares(first, channel, channels, inside, SIZE: tl.constexpr):
    """Sum over the neighbours of ``channel``; ``first`` points to a pixel's first channel."""
    total = tl.zeros(inside.shape, dtype=tl.float32)
    for offset in tl.static_range(SIZE):
        neighbour = channel + offset - SIZE // 2
        exists = inside & (neighbour >= 0) & (neighbour < channels)
        value = tl.load(first + neighbour, mask=exists, other=0.0).to(tl.float32)
        total += value * value
    return total


@triton.jit
def _across_forward(
    x, y, d, pixels, channels, height, width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel, d_image, d_row, d_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    KEEP: tl.constexpr, PIXELS_PER_PROGRAM: tl.constexpr, CHANNELS_PADDED: tl.constexpr,
):  # fmt: skip
    pixel = (tl.program_id(0) * PIXELS_PER_PROGRAM + tl.arange(0, PIXELS_PER_PROGRAM))[:, None]
    channel = tl.arange(0, CHANNELS_PADDED)[None, :]
    inside = (pixel < pixels) & (channel < channels)
    image, row, column = unravel(pixel, height, width)
    x_at = x + image * x_image + row * x_row + column * x_pixel
    total = K + ALPHA * sum_of_squares(x_at, channel, channels, inside, SIZE)
    value = tl.load(x_at + channel, mask=inside, other=0.0).to(tl.float32)
    y_offset = image * y_image + row * y_row + column * y_pixel + channel
    tl.store(y + y_offset, value * inverse_power(total, BETA), mask=inside)
    if KEEP:
        tl.store(d + image * d_image + row * d_row + column * d_pixel + channel, total, mask=inside)


@triton.jit
def _across_backward(
    x, d, dy, dx, pixels, channels, height, width,
    x_image, x_row, x_pixel, d_image, d_row, d_pixel,
    dy_image, dy_row, dy_pixel, dx_image, dx_row, dx_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    KEPT: tl.constexpr, PIXELS_PER_PROGRAM: tl.constexpr, CHANNELS_PADDED: tl.constexpr,
):  # fmt: skip
    pixel = (tl.program_id(0) * PIXELS_PER_PROGRAM + tl.arange(0, PIXELS_PER_PROGRAM))[:, None]
    channel = tl.arange(0, CHANNELS_PADDED)[None, :]
    inside = (pixel < pixels) & (channel < channels)
    image, row, column = unravel(pixel, height, width)
    x_at = x + image * x_image + row * x_row + column * x_pixel
    d_at = d + image * d_image + row * d_row + column * d_pixel
    dy_at = dy + image * dy_image + row * dy_row + column * dy_pixel
    around = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.float32)
    scaled = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.float32)
    centre = tl.zeros((PIXELS_PER_PROGRAM, CHANNELS_PADDED), dtype=tl.float32)
    for offset in tl.static_range(SIZE):
        neighbour = channel + offset - (SIZE - 1 - SIZE // 2)
        exists = inside & (neighbour >= 0) & (neighbour < channels)
        value = tl.load(x_at + neighbour, mask=exists, other=0.0).to(tl.float32)
        gradient = tl.load(dy_at + neighbour, mask=exists, other=0.0).to(tl.float32)
        if KEPT:
            total = tl.load(d_at + neighbour, mask=exists, other=1.0).to(tl.float32)
        else:
            total = K + ALPHA * sum_of_squares(x_at, neighbour, channels, exists, SIZE)
            total = tl.where(exists, total, 1.0)
        power = inverse_power(total, BETA)
        around += gradient * value * power / total
        if offset == SIZE - 1 - SIZE // 2:
            scaled, centre = gradient * power, value
    result = scaled - 2 * ALPHA * BETA * centre * around
    dx_at = dx + image * dx_image + row * dx_row + column * dx_pixel + channel
    tl.store(dx_at, result, mask=inside)


@triton.jit
def _over_forward(
    x, y, d, count, channels, height, width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel, d_image, d_row, d_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    channel, pixel = index % channels, index // channels
    image, row, column = unravel(pixel, height, width)
    x_at = x + image * x_image + channel
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for r in tl.static_range(SIZE):
        for s in tl.static_range(SIZE):
            down, across = row + r - SIZE // 2, column + s - SIZE // 2
            exists = inside & (down >= 0) & (down < height) & (across >= 0) & (across < width)
            neighbour = tl.load(x_at + down * x_row + across * x_pixel, mask=exists, other=0.0)
            total += neighbour.to(tl.float32) * neighbour.to(tl.float32)
    total = K + ALPHA * total
    value = tl.load(x_at + row * x_row + column * x_pixel, mask=inside, other=0.0).to(tl.float32)
    y_offset = image * y_image + row * y_row + column * y_pixel + channel
    tl.store(y + y_offset, value * inverse_power(total, BETA), mask=inside)
    tl.store(d + image * d_image + row * d_row + column * d_pixel + channel, total, mask=inside)


@triton.jit
def _over_backward(
    x, d, dy, dx, count, channels, height, width,
    x_image, x_row, x_pixel, d_image, d_row, d_pixel,
    dy_image, dy_row, dy_pixel, dx_image, dx_row, dx_pixel,
    SIZE: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    channel, pixel = index % channels, index // channels
    image, row, column = unravel(pixel, height, width)
    x_at, d_at = x + image * x_image + channel, d + image * d_image + channel
    dy_at = dy + image * dy_image + channel
    around = tl.zeros((BLOCK,), dtype=tl.float32)
    scaled = tl.zeros((BLOCK,), dtype=tl.float32)
    centre = tl.zeros((BLOCK,), dtype=tl.float32)
    for r in tl.static_range(SIZE):
        for s in tl.static_range(SIZE):
            down, across = row + r - (SIZE - 1 - SIZE // 2), column + s - (SIZE - 1 - SIZE // 2)
            exists = inside & (down >= 0) & (down < height) & (across >= 0) & (across < width)
            value = tl.load(x_at + down * x_row + across * x_pixel, mask=exists, other=0.0)
            total = tl.load(d_at + down * d_row + across * d_pixel, mask=exists, other=1.0)
            gradient = tl.load(dy_at + down * dy_row + across * dy_pixel, mask=exists, other=0.0)
            value, total = value.to(tl.float32), total.to(tl.float32)
            gradient = gradient.to(tl.float32)
            power = inverse_power(total, BETA)
            around += gradient * value * power / total
            if r == SIZE - 1 - SIZE // 2 and s == SIZE - 1 - SIZE // 2:
                scaled, centre = gradient * power, value
    result = scaled - 2 * ALPHA * BETA * centre * around
    dx_offset = image * dx_image + row * dx_row + column * dx_pixel + channel
    tl.store(dx + dx_offset, result, mask=inside)


def across_channels_forward(
    x: Tensor, y: Tensor, d: Tensor | None, *, size: int, k: float, alpha: float, beta: float
) -> None:
    """Normalise over ``size`` channels.

    Args:
        x: ``[N, C, H, W]``, channels-last.
        y: the same; written.
        d: the same: the denominators before the power, written; not if None.
        size: of the window.
        k: added to the sum.
        alpha: multiplies the sum of squares.
        beta: the power.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    _alike(x, y, *([] if d is None else [d]))
    pixels, grid, blocks = _pixels(x)
    _across_forward[grid](
        x, y, y if d is None else d, pixels, *x.shape[1:],
        *image_strides("x", x), *image_strides("y", y), *image_strides("d", y if d is None else d),
        SIZE=size, K=k, ALPHA=alpha, BETA=beta, KEEP=d is not None, **blocks,
    )  # fmt: skip


def across_channels_backward(
    x: Tensor,
    d: Tensor | None,
    dy: Tensor,
    dx: Tensor,
    *,
    size: int,
    k: float,
    alpha: float,
    beta: float,
) -> None:
    """Write the gradient of the input into ``dx``; ``d`` as the forward kept it, or None.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    _alike(x, dy, dx, *([] if d is None else [d]))
    pixels, grid, blocks = _pixels(x)
    _across_backward[grid](
        x, x if d is None else d, dy, dx, pixels, *x.shape[1:],
        *image_strides("x", x), *image_strides("d", x if d is None else d),
        *image_strides("dy", dy), *image_strides("dx", dx),
        SIZE=size, K=k, ALPHA=alpha, BETA=beta, KEPT=d is not None, **blocks,
    )  # fmt: skip


def over_pixels_forward(
    x: Tensor, y: Tensor, d: Tensor, *, size: int, k: float, alpha: float, beta: float
) -> None:
    """Normalise over ``size`` x ``size`` pixels of one channel; arguments as across channels.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    _alike(x, y, d)
    block = block_of(x.numel(), most=256)
    _over_forward[(triton.cdiv(x.numel(), block),)](
        x, y, d, x.numel(), *x.shape[1:],
        *image_strides("x", x), *image_strides("y", y), *image_strides("d", d),
        SIZE=size, K=k, ALPHA=alpha, BETA=beta, BLOCK=block,
    )  # fmt: skip


def over_pixels_backward(
    x: Tensor, d: Tensor, dy: Tensor, dx: Tensor, *, size: int, alpha: float, beta: float
) -> None:
    """Write the gradient of the input into ``dx``; ``d`` as the forward kept it.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    _alike(x, d, dy, dx)
    block = block_of(x.numel(), most=256)
    _over_backward[(triton.cdiv(x.numel(), block),)](
        x, d, dy, dx, x.numel(), *x.shape[1:], *image_strides("x", x), *image_strides("d", d),
        *image_strides("dy", dy), *image_strides("dx", dx),
        SIZE=size, ALPHA=alpha, BETA=beta, BLOCK=block,
    )  # fmt: skip


def _pixels(x: Tensor) -> tuple[int, tuple[int], dict[str, int]]:
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    padded = power_of_two(16, x.shape[1], 1 << 16)
    count = power_of_two(1, pixels, (1 << 20 if interpreted() else 1024) // padded)
    blocks = {"PIXELS_PER_PROGRAM": count, "CHANNELS_PADDED": padded}
    return pixels, (triton.cdiv(pixels, count),), blocks


def _alike(x: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.shape != x.shape:
            raise ValueError(f"shapes differ: {list(x.shape)} and {list(other.shape)}")

"""Response norms across channels and over pixels, forward and backward.

``d = k + alpha * sum over the window of x^2``, ``y = x * d^-beta``; with the window's offsets
``-(size // 2) .. size - 1 - size // 2``, over channels (the paper's local response normalisation,
section 3.3) or over rows and columns (cuda-convnet's map norm). Values outside count as zero.
With ``t = dy * x * d^-(beta + 1)``, ``dx = dy * d^-beta - 2 alpha beta x * sum over the mirrored
window of t``.

``alpha`` is what multiplies the sum: the original divides the stated 1e-4 by the window's size.
``d`` is kept for the backward pass, or worked out again from ``x`` where ``d`` is None: that moves
a third less memory forward, and costs arithmetic backward.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import Tensor, block_of, images, interpreted, power_of_two


@triton.jit
def inverse_power(d, BETA: tl.constexpr):
    """``d^-beta``; the paper's 0.75 by square roots."""
    if BETA == 0.75:
        root = tl.rsqrt(d)
        return root * tl.sqrt(root)
    else:
        return tl.exp2(-BETA * tl.log2(d))


@triton.jit
def sum_of_squares(at, c, channels, inside, SIZE: tl.constexpr):
    """Of the channels near ``c``, which lie from ``at`` on."""
    total = tl.zeros(inside.shape, dtype=tl.float32)
    for offset in tl.static_range(SIZE):
        near = c + offset - SIZE // 2
        ok = inside & (near >= 0) & (near < channels)
        value = tl.load(at + near, mask=ok, other=0.0).to(tl.float32)
        total += value * value
    return total


@triton.jit
def _across_forward(
    x, y, d, pixels, channels, height, width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel, d_image, d_row, d_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    KEEP: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    m = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
    c = tl.arange(0, BLOCK_C)[None, :]
    inside = (m < pixels) & (c < channels)
    column, row, n = m % width, (m // width) % height, m // (width * height)
    at = x + n * x_image + row * x_row + column * x_pixel
    total = K + ALPHA * sum_of_squares(at, c, channels, inside, SIZE)
    value = tl.load(at + c, mask=inside, other=0.0).to(tl.float32)
    there = n * y_image + row * y_row + column * y_pixel + c
    tl.store(y + there, value * inverse_power(total, BETA), mask=inside)
    if KEEP:
        tl.store(d + n * d_image + row * d_row + column * d_pixel + c, total, mask=inside)


@triton.jit
def _across_backward(
    x, d, dy, dx, pixels, channels, height, width,
    x_image, x_row, x_pixel, d_image, d_row, d_pixel,
    dy_image, dy_row, dy_pixel, dx_image, dx_row, dx_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    KEPT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    m = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P))[:, None]
    c = tl.arange(0, BLOCK_C)[None, :]
    inside = (m < pixels) & (c < channels)
    column, row, n = m % width, (m // width) % height, m // (width * height)
    x_at = x + n * x_image + row * x_row + column * x_pixel
    d_at = d + n * d_image + row * d_row + column * d_pixel
    dy_at = dy + n * dy_image + row * dy_row + column * dy_pixel
    around = tl.zeros((BLOCK_P, BLOCK_C), dtype=tl.float32)
    own = tl.zeros((BLOCK_P, BLOCK_C), dtype=tl.float32)
    mine = tl.zeros((BLOCK_P, BLOCK_C), dtype=tl.float32)
    for offset in tl.static_range(SIZE):
        near = c + offset - (SIZE - 1 - SIZE // 2)
        ok = inside & (near >= 0) & (near < channels)
        value = tl.load(x_at + near, mask=ok, other=0.0).to(tl.float32)
        gradient = tl.load(dy_at + near, mask=ok, other=0.0).to(tl.float32)
        if KEPT:
            total = tl.load(d_at + near, mask=ok, other=1.0).to(tl.float32)
        else:
            total = K + ALPHA * sum_of_squares(x_at, near, channels, ok, SIZE)
            total = tl.where(ok, total, 1.0)
        power = inverse_power(total, BETA)
        around += gradient * value * power / total
        if offset == SIZE - 1 - SIZE // 2:
            own, mine = gradient * power, value
    result = own - 2 * ALPHA * BETA * mine * around
    tl.store(dx + n * dx_image + row * dx_row + column * dx_pixel + c, result, mask=inside)


@triton.jit
def _over_forward(
    x, y, d, count, channels, height, width,
    x_image, x_row, x_pixel, y_image, y_row, y_pixel, d_image, d_row, d_pixel,
    SIZE: tl.constexpr, K: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    c, m = i % channels, i // channels
    column, row, n = m % width, (m // width) % height, m // (width * height)
    at = x + n * x_image + c
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for r in tl.static_range(SIZE):
        for s in tl.static_range(SIZE):
            down, across = row + r - SIZE // 2, column + s - SIZE // 2
            ok = inside & (down >= 0) & (down < height) & (across >= 0) & (across < width)
            near = tl.load(at + down * x_row + across * x_pixel, mask=ok, other=0.0)
            total += near.to(tl.float32) * near.to(tl.float32)
    total = K + ALPHA * total
    value = tl.load(at + row * x_row + column * x_pixel, mask=inside, other=0.0).to(tl.float32)
    there = n * y_image + row * y_row + column * y_pixel + c
    tl.store(y + there, value * inverse_power(total, BETA), mask=inside)
    tl.store(d + n * d_image + row * d_row + column * d_pixel + c, total, mask=inside)


@triton.jit
def _over_backward(
    x, d, dy, dx, count, channels, height, width,
    x_image, x_row, x_pixel, d_image, d_row, d_pixel,
    dy_image, dy_row, dy_pixel, dx_image, dx_row, dx_pixel,
    SIZE: tl.constexpr, ALPHA: tl.constexpr, BETA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    c, m = i % channels, i // channels
    column, row, n = m % width, (m // width) % height, m // (width * height)
    x_at, d_at, dy_at = x + n * x_image + c, d + n * d_image + c, dy + n * dy_image + c
    around = tl.zeros((BLOCK,), dtype=tl.float32)
    own = tl.zeros((BLOCK,), dtype=tl.float32)
    mine = tl.zeros((BLOCK,), dtype=tl.float32)
    for r in tl.static_range(SIZE):
        for s in tl.static_range(SIZE):
            down, across = row + r - (SIZE - 1 - SIZE // 2), column + s - (SIZE - 1 - SIZE // 2)
            ok = inside & (down >= 0) & (down < height) & (across >= 0) & (across < width)
            value = tl.load(x_at + down * x_row + across * x_pixel, mask=ok, other=0.0)
            total = tl.load(d_at + down * d_row + across * d_pixel, mask=ok, other=1.0)
            gradient = tl.load(dy_at + down * dy_row + across * dy_pixel, mask=ok, other=0.0)
            value, total = value.to(tl.float32), total.to(tl.float32)
            gradient = gradient.to(tl.float32)
            power = inverse_power(total, BETA)
            around += gradient * value * power / total
            if r == SIZE - 1 - SIZE // 2 and s == SIZE - 1 - SIZE // 2:
                own, mine = gradient * power, value
    result = own - 2 * ALPHA * BETA * mine * around
    there = n * dx_image + row * dx_row + column * dx_pixel + c
    tl.store(dx + there, result, mask=inside)


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
        x, y, y if d is None else d, pixels, *x.shape[1:], *images("x", x), *images("y", y),
        *images("d", y if d is None else d),
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
        x, x if d is None else d, dy, dx, pixels, *x.shape[1:], *images("x", x),
        *images("d", x if d is None else d), *images("dy", dy), *images("dx", dx),
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
        x, y, d, x.numel(), *x.shape[1:], *images("x", x), *images("y", y), *images("d", d),
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
        x, d, dy, dx, x.numel(), *x.shape[1:], *images("x", x), *images("d", d),
        *images("dy", dy), *images("dx", dx), SIZE=size, ALPHA=alpha, BETA=beta, BLOCK=block,
    )  # fmt: skip


def _pixels(x: Tensor) -> tuple[int, tuple[int], dict[str, int]]:
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    channels = power_of_two(16, x.shape[1], 1 << 16)
    rows = power_of_two(1, pixels, (1 << 20 if interpreted() else 1024) // channels)
    return pixels, (triton.cdiv(pixels, rows),), {"BLOCK_P": rows, "BLOCK_C": channels}


def _alike(x: Tensor, *others: Tensor) -> None:
    for other in others:
        if other.shape != x.shape:
            raise ValueError(f"shapes differ: {list(x.shape)} and {list(other.shape)}")

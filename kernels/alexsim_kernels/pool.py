"""Max pooling with overlapping windows, forward and backward, without atomics.

``y[n, c, p, q] = max over r, s of x[n, c, p * stride + r, q * stride + s]``. The gradient of an
output goes to the inputs that equal it: to every one of them (``ties="all"``, as the original did)
or to the first in row-major order (``"first"``, as most libraries do). Backward is a gather: each
input looks at the windows that it stands in, so nothing is added to by two programs.

In the kernels ``x_image``, ``x_channel``, ``x_row`` and ``x_pixel`` are strides of ``x``, in
elements; ``p`` and ``q`` are a window's row and column, ``r`` and ``s`` a tap's.
"""

from __future__ import annotations

from typing import Literal

import triton
import triton.language as tl

from alexsim_kernels.common import Tensor, block_of, offsets_fit, unravel

Ties = Literal["all", "first"]


@triton.jit
def _forward(
    x, y, count, channels, height, width, out_height, out_width,
    x_image, x_channel, x_row, x_pixel, y_image, y_channel, y_row, y_pixel,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    channel = index % channels
    image, p, q = unravel(index, out_height, out_width, channels)
    top, left = p * STRIDE, q * STRIDE
    channel_at = x + image * x_image + channel * x_channel
    largest = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    for r in tl.static_range(SIZE):
        for s in tl.static_range(SIZE):
            row, column = top + r, left + s
            on_image = inside & (row < height) & (column < width)
            x_at = channel_at + row * x_row + column * x_pixel
            value = tl.load(x_at, mask=on_image, other=float("-inf"))
            largest = tl.maximum(largest, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    y_at = y + image * y_image + channel * y_channel + p * y_row + q * y_pixel
    tl.store(y_at, largest, mask=inside)


@triton.jit
def _backward(
    x, y, dy, dx, count, channels, height, width, out_height, out_width,
    x_image, x_channel, x_row, x_pixel, y_image, y_channel, y_row, y_pixel,
    dy_image, dy_channel, dy_row, dy_pixel, dx_image, dx_channel, dx_row, dx_pixel,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    windows: tl.constexpr = (SIZE + STRIDE - 1) // STRIDE
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    channel = index % channels
    image, row, column = unravel(index, height, width, channels)
    channel_at = x + image * x_image + channel * x_channel
    value = tl.load(channel_at + row * x_row + column * x_pixel, mask=inside, other=0.0)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for down in tl.static_range(windows):
        for across in tl.static_range(windows):
            p, q = row // STRIDE - down, column // STRIDE - across
            r, s = row - p * STRIDE, column - q * STRIDE
            in_window = inside & (p >= 0) & (q >= 0) & (r < SIZE) & (s < SIZE)
            in_window = in_window & (p < out_height) & (q < out_width)
            offset = image * y_image + channel * y_channel + p * y_row + q * y_pixel
            largest = tl.load(y + offset, mask=in_window, other=0.0)
            offset = image * dy_image + channel * dy_channel + p * dy_row + q * dy_pixel
            gradient = tl.load(dy + offset, mask=in_window, other=0.0)
            takes = in_window & (value == largest)
            if FIRST:
                for tap in tl.static_range(SIZE * SIZE):
                    # Rows before this pixel's are in the image; columns may hang over its edge.
                    earlier = (tap < r * SIZE + s) & (q * STRIDE + tap % SIZE < width)
                    tap_row, tap_column = p * STRIDE + tap // SIZE, q * STRIDE + tap % SIZE
                    offset = tap_row * x_row + tap_column * x_pixel
                    mask = takes & earlier
                    before = tl.load(channel_at + offset, mask=mask, other=float("-inf"))
                    takes = takes & ((before != largest) | ~earlier)
            total += tl.where(takes, gradient.to(tl.float32), 0.0)
    dx_at = dx + image * dx_image + channel * dx_channel + row * dx_row + column * dx_pixel
    tl.store(dx_at, total, mask=inside)


def forward(x: Tensor, y: Tensor, *, size: int, stride: int) -> None:
    """Write the maxima of the windows of ``x`` into ``y``; NaN wins.

    Args:
        x: ``[N, C, H, W]``, any strides; fastest channels-last.
        y: ``[N, C, P, Q]``; windows may hang over the right and bottom edges.
        size: of a window, both ways.
        stride: of windows, both ways.

    Raises:
        ValueError: shapes do not match, or a tensor is too large.
    """
    check(x, y, stride)
    block = block_of(y.numel())
    _forward[(triton.cdiv(y.numel(), block),)](
        x, y, y.numel(), x.shape[1], *x.shape[2:], *y.shape[2:], *x.stride(), *y.stride(),
        SIZE=size, STRIDE=stride, BLOCK=block,
    )  # fmt: skip


def backward(
    x: Tensor, y: Tensor, dy: Tensor, dx: Tensor, *, size: int, stride: int, ties: Ties
) -> None:
    """Write the gradient of the input into ``dx``.

    Args:
        x: the forward's input, ``[N, C, H, W]``.
        y: its output, ``[N, C, P, Q]``.
        dy: gradient of the output.
        dx: gradient of the input; written whole.
        size: of a window, both ways.
        stride: of windows, both ways.
        ties: ``all`` equal inputs get an output's gradient, or the ``first`` in row-major order.

    Raises:
        ValueError: shapes do not match, or a tensor is too large.
    """
    check(x, y, stride)
    check(dx, dy, stride)
    if ties not in ("all", "first"):
        raise ValueError(f"ties must be 'all' or 'first', got {ties!r}")
    block = block_of(x.numel(), most=512)
    _backward[(triton.cdiv(x.numel(), block),)](
        x, y, dy, dx, x.numel(), x.shape[1], *x.shape[2:], *y.shape[2:],
        *x.stride(), *y.stride(), *dy.stride(), *dx.stride(),
        SIZE=size, STRIDE=stride, FIRST=ties == "first", BLOCK=block,
    )  # fmt: skip


def check(x: Tensor, y: Tensor, stride: int) -> None:
    """Refuse an output that is none of the input's: every window must begin on a pixel.

    Raises:
        ValueError: it is none, or a tensor is too large.
    """
    alike = x.ndim == y.ndim == 4 and x.shape[:2] == y.shape[:2]
    ends = zip(x.shape[2:], y.shape[2:], strict=False)
    if not alike or any((outputs - 1) * stride >= extent for extent, outputs in ends):
        raise ValueError(f"{list(x.shape)} does not pool to {list(y.shape)}")
    offsets_fit("input", x)
    offsets_fit("output", y)

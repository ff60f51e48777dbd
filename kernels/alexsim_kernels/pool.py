"""Max pooling with overlapping windows, forward and backward, without atomics.

``y[n, c, p, q] = max over r, s of x[n, c, p * stride + r, q * stride + s]``. The gradient of an
output goes to the inputs that equal it: to every one of them (``ties="all"``, as the original did)
or to the first in row-major order (``"first"``, as most libraries do). Backward is a gather: each
input looks at the windows that it stands in, so nothing is added to by two programs.
"""

from __future__ import annotations

from typing import Literal

import triton
import triton.language as tl

from alexsim_kernels.common import Tensor, block_of, offsets_fit

Ties = Literal["all", "first"]


@triton.jit
def _forward(
    x, y, count, channels, height, width, out_height, out_width,
    x_image, x_channel, x_row, x_pixel, y_image, y_channel, y_row, y_pixel,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    c = i % channels
    q = (i // channels) % out_width
    p = (i // (channels * out_width)) % out_height
    n = i // (channels * out_width * out_height)
    top, left = p * STRIDE, q * STRIDE
    here = x + n * x_image + c * x_channel
    largest = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    for r in tl.static_range(SIZE):
        for s in tl.static_range(SIZE):
            row, column = top + r, left + s
            ok = inside & (row < height) & (column < width)
            value = tl.load(here + row * x_row + column * x_pixel, mask=ok, other=float("-inf"))
            largest = tl.maximum(largest, value.to(tl.float32), propagate_nan=tl.PropagateNan.ALL)
    tl.store(y + n * y_image + c * y_channel + p * y_row + q * y_pixel, largest, mask=inside)


@triton.jit
def _backward(
    x, y, dy, dx, count, channels, height, width, out_height, out_width,
    x_image, x_channel, x_row, x_pixel, y_image, y_channel, y_row, y_pixel,
    dy_image, dy_channel, dy_row, dy_pixel, dx_image, dx_channel, dx_row, dx_pixel,
    SIZE: tl.constexpr, STRIDE: tl.constexpr, FIRST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    windows: tl.constexpr = (SIZE + STRIDE - 1) // STRIDE
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    c = i % channels
    column = (i // channels) % width
    row = (i // (channels * width)) % height
    n = i // (channels * width * height)
    here = x + n * x_image + c * x_channel
    mine = tl.load(here + row * x_row + column * x_pixel, mask=inside, other=0.0)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for down in tl.static_range(windows):
        for across in tl.static_range(windows):
            p, q = row // STRIDE - down, column // STRIDE - across
            r, s = row - p * STRIDE, column - q * STRIDE
            ok = inside & (p >= 0) & (q >= 0) & (r < SIZE) & (s < SIZE)
            ok = ok & (p < out_height) & (q < out_width)
            at = n * y_image + c * y_channel + p * y_row + q * y_pixel
            largest = tl.load(y + at, mask=ok, other=0.0)
            at = n * dy_image + c * dy_channel + p * dy_row + q * dy_pixel
            gradient = tl.load(dy + at, mask=ok, other=0.0)
            takes = ok & (mine == largest)
            if FIRST:
                for tap in tl.static_range(SIZE * SIZE):
                    # Rows before mine are in the image; columns may hang over its edge.
                    earlier = (tap < r * SIZE + s) & (q * STRIDE + tap % SIZE < width)
                    at = (p * STRIDE + tap // SIZE) * x_row + (q * STRIDE + tap % SIZE) * x_pixel
                    other = tl.load(here + at, mask=takes & earlier, other=float("-inf"))
                    takes = takes & ((other != largest) | ~earlier)
            total += tl.where(takes, gradient.to(tl.float32), 0.0)
    tl.store(dx + n * dx_image + c * dx_channel + row * dx_row + column * dx_pixel, total,
             mask=inside)  # fmt: skip


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

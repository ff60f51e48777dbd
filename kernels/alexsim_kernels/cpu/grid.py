"""Which source pixels a target pixel of a convolution sees: grids and their taps."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from alexsim_kernels.cpu.algorithm import Shape
from alexsim_kernels.cpu.tensors import Filters, Tensor


class Tap(ctypes.Structure):
    """``Tap`` of ``grid.h``."""

    _fields_ = [(name, ctypes.c_long) for name in ("row", "column", "r", "s")]


class Grid(ctypes.Structure):
    """``Grid`` of ``grid.h``."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "rows", "columns", "top", "left", "down", "across", "source_down", "source_across",
        )
    ]  # fmt: skip


def forward_grid(shape: Shape) -> tuple[Grid, list[Tap]]:
    """Output pixels, and the input that their taps see."""
    (down, across), (above, left) = shape.dilation, shape.padding
    taps = [
        Tap(r * down - above, s * across - left, r, s)
        for r in range(shape.taps[0])
        for s in range(shape.taps[1])
    ]
    return Grid(*shape.out, 0, 0, 1, 1, *shape.stride), taps


def input_grids(shape: Shape) -> Iterator[tuple[Grid, list[Tap]]]:
    """Input pixels, and the output's gradients that meet them: a grid for each place of a pixel
    between strides.

    Row ``h = top + stride i`` meets tap ``r`` of output row
    ``i + (top + padding - r dilation) / stride``, where that is whole.
    """
    for top in range(min(shape.stride[0], shape.extent[0])):
        rows = _meeting(shape, 0, top)
        for left in range(min(shape.stride[1], shape.extent[1])):
            columns = _meeting(shape, 1, left)
            grid = Grid(
                -(-(shape.extent[0] - top) // shape.stride[0]),
                -(-(shape.extent[1] - left) // shape.stride[1]),
                top, left, *shape.stride, 1, 1,
            )  # fmt: skip
            yield grid, [Tap(i, j, r, s) for i, r in rows for j, s in columns]


def _meeting(shape: Shape, axis: int, first: int) -> list[tuple[int, int]]:
    """Taps that meet a pixel at that place between strides: where in the output, and which."""
    offsets = (
        (first + shape.padding[axis] - tap * shape.dilation[axis], tap)
        for tap in range(shape.taps[axis])
    )
    stride = shape.stride[axis]
    return [(offset // stride, tap) for offset, tap in offsets if offset % stride == 0]


def bank(weight: Tensor, shape: Shape) -> Filters:
    """The first group's filters, as they lie."""
    return Filters(
        weight.data_ptr(), shape.group_filters, shape.group_channels, *shape.taps,
        *weight.stride(), *shape.taps, 1, 0,
    )  # fmt: skip


def turned(filters: Filters) -> Filters:
    """Filters and channels swapped, as the gradient of the input reads them."""
    filters.filters, filters.channels = filters.channels, filters.filters
    filters.filter, filters.channel = filters.channel, filters.filter
    return filters

"""Pools on CPUs: largest values and means of windows, forward and backward.

Windows may hang over the right and bottom edges, and into padding: pixels outside are no part of
them. A NaN in a window is its maximum. The gradient of a maximum goes to every input that equals it
(``ties="all"``, as the kernels of 2012 did) or to the first in row-major order (``"first"``, as
PyTorch does); a NaN counts as equal. Sums over windows run in the order of the windows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Literal

from alexsim_kernels.cpu import sizes
from alexsim_kernels.cpu.tensors import (
    Map,
    Parts,
    Tensor,
    call,
    check_type,
    image_map,
    same_shape,
    threads,
)
from alexsim_kernels.cpu.windows import Span, Windows

Ties = Literal["all", "first"]


class _Pool(ctypes.Structure):
    _fields_ = [
        *((name, Map) for name in ("x", "y", "dy", "dx")),
        *(
            (name, ctypes.POINTER(ctypes.c_long))
            for name in ("row_begin", "row_end", "column_begin", "column_end")
        ),
        ("share", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("first", "add", "threads")),
        ("band", ctypes.c_void_p),
        ("band_rows", ctypes.c_long),
    ]


def max_forward(x: Tensor, y: Tensor, windows: Windows) -> None:
    """Write the largest value of each window into ``y``.

    Args:
        x: ``[N, C, H, W]``, channels-last; a slice of a wider block's channels will do.
        y: ``[N, C, P, Q]``, likewise.
        windows: P x Q of them.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    check_type(x=x, y=y)
    made = _described(x, y, windows)
    made.x, made.y = image_map("x", x), image_map("y", y)
    call("max_pool_forward", x, ctypes.byref(made))


def max_backward(
    x: Tensor,
    y: Tensor,
    dy: Tensor,
    dx: Tensor,
    windows: Windows,
    *,
    ties: Ties,
    add: bool = False,
    scratch: Tensor | None = None,
) -> None:
    """Write the gradient of the input into ``dx``.

    Args:
        x: the forward's input.
        y: its output.
        dy: gradient of the output.
        dx: gradient of the input; written whole, or added to.
        windows: the forward's.
        ties: who gets a window's gradient: ``all`` that equal the maximum, or the ``first``.
        add: whether to add to ``dx``.
        scratch: bytes of ``sizes.pool``, uint8; allocated if not given.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    if ties not in ("all", "first"):
        raise ValueError(f"ties must be 'all' or 'first', got {ties!r}")
    check_type(x=x, y=y, dy=dy, dx=dx)
    same_shape("dx", dx, tuple(x.shape))
    same_shape("dy", dy, tuple(y.shape))
    made = _described(x, y, windows)
    made.x, made.y = image_map("x", x), image_map("y", y)
    made.first = ties == "first"
    _backward("max_pool_backward", made, dy, dx, windows, add, scratch)


def average_forward(x: Tensor, y: Tensor, windows: Windows) -> None:
    """Write the mean of each window into ``y``; arguments as ``max_forward``'s.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    check_type(x=x, y=y)
    made = _described(x, y, windows)
    made.x, made.y = image_map("x", x), image_map("y", y)
    shares = _shares(windows, x)
    made.share = shares.data_ptr()
    call("average_pool_forward", x, ctypes.byref(made))


def average_backward(
    dy: Tensor,
    dx: Tensor,
    windows: Windows,
    *,
    add: bool = False,
    scratch: Tensor | None = None,
) -> None:
    """Write the gradient of the input into ``dx``; arguments as ``max_backward``'s.

    Raises:
        ValueError: shapes do not match, or a tensor is not channels-last.
    """
    check_type(dy=dy, dx=dx)
    made = _described(dx, dy, windows)
    shares = _shares(windows, dy)
    made.share = shares.data_ptr()
    _backward("average_pool_backward", made, dy, dx, windows, add, scratch)


def _described(x: Tensor, y: Tensor, windows: Windows) -> _Pool:
    out = (len(windows.rows), len(windows.columns))
    if x.ndim != 4 or tuple(y.shape) != (*x.shape[:2], *out):
        raise ValueError(f"{list(x.shape)} does not pool to {list(y.shape)} by {out} windows")
    ends = (windows.rows[-1][1], windows.columns[-1][1])
    if any(end > extent for end, extent in zip(ends, x.shape[2:], strict=True)):
        raise ValueError(f"windows reach to {list(ends)}, the image ends at {list(x.shape[2:])}")
    made = _Pool(threads=threads(), band_rows=windows.band_rows())
    made.row_begin, made.row_end = _ends(windows.rows)
    made.column_begin, made.column_end = _ends(windows.columns)
    return made


def _ends(spans: Sequence[Span]) -> tuple[ctypes.Array[ctypes.c_long], ...]:
    return tuple((ctypes.c_long * len(spans))(*side) for side in zip(*spans, strict=True))


def _shares(windows: Windows, like: Tensor) -> Tensor:
    down, across = (
        like.new_tensor([1 / count for count in counts])
        for counts in (windows.row_counts, windows.column_counts)
    )
    return (down[:, None] * across).contiguous()


def _backward(
    kernel: str,
    made: _Pool,
    dy: Tensor,
    dx: Tensor,
    windows: Windows,
    add: bool,
    scratch: Tensor | None,
) -> None:
    made.dy, made.dx, made.add = image_map("dy", dy), image_map("dx", dx), add
    parts = Parts(sizes.pool(windows, dx.shape[1], dx.shape[3], threads=made.threads), dx, scratch)
    made.band = parts["band"]
    call(kernel, dx, ctypes.byref(made))

"""Pools as maxima and sums of shifted views, rows first."""

from __future__ import annotations

import torch

from alexsim.execute.aten.chunks import channels_last, chunks
from alexsim.network.layers import AveragePool, MaxPool

Tensor = torch.Tensor


def _taps(size: int, stride: int, outputs: int) -> list[slice]:
    """For each position in a window: the inputs that stand there, over all windows."""
    return [slice(tap, tap + stride * (outputs - 1) + 1, stride) for tap in range(size)]


def max_pool_forward(layer: MaxPool, x: Tensor, y: Tensor, size: int) -> None:
    """Row maxima first, then maxima of those: ``2 w`` comparisons per output for ``w * w``."""
    rows = _taps(layer.size, layer.stride, y.shape[2])
    columns = _taps(layer.size, layer.stride, y.shape[3])
    x, y = channels_last(x), channels_last(y)
    scratch = _row_scratch(x, y, size)
    for part in chunks(x.shape[0], size):
        wide = scratch[: part.stop - part.start]
        _row_maxima(x[part], columns, wide)
        _maxima([wide[:, row] for row in rows], y[part])


def max_pool_grad_input(
    layer: MaxPool, x: Tensor, y: Tensor, dy: Tensor, dx: Tensor, size: int
) -> None:
    """Route each output's gradient to its maximum, through the maxima of the rows.

    An input equals its window's maximum exactly if it equals its row's maximum and that equals the
    window's. So both tie rules split into rows, then columns: all equal inputs, or the first row
    that attains the maximum and the first input in it.
    """
    rows = _taps(layer.size, layer.stride, y.shape[2])
    columns = _taps(layer.size, layer.stride, y.shape[3])
    x, y, dy, dx = channels_last(x), channels_last(y), channels_last(dy), channels_last(dx)
    wide, dwide, mask, left = (_row_scratch(x, y, size) for _ in range(4))
    for part in chunks(x.shape[0], size):
        count = part.stop - part.start
        row_max, drow = wide[:count], dwide[:count].zero_()
        _row_maxima(x[part], columns, row_max)
        route = _route_first if layer.ties == "first" else _route_all
        height = y.shape[1]
        small = (mask[:count, :height], left[:count, :height])
        route([(row_max[:, row], drow[:, row]) for row in rows], y[part], dy[part], *small)
        xs, dxs = x[part], dx[part].zero_()
        taps = [(xs[:, :, column], dxs[:, :, column]) for column in columns]
        route(taps, row_max, drow, mask[:count], left[:count])


def _row_maxima(x: Tensor, columns: list[slice], out: Tensor) -> None:
    _maxima([x[:, :, column] for column in columns], out)


def _maxima(views: list[Tensor], out: Tensor) -> None:
    if len(views) == 1:
        out.copy_(views[0])
        return
    torch.maximum(views[0], views[1], out=out)
    for view in views[2:]:
        torch.maximum(out, view, out=out)


def _route_all(
    taps: list[tuple[Tensor, Tensor]], top: Tensor, dtop: Tensor, mask: Tensor, left: Tensor
) -> None:
    del left
    for x, dx in taps:
        torch.eq(x, top, out=mask)
        dx.addcmul_(mask, dtop)


def _route_first(
    taps: list[tuple[Tensor, Tensor]], top: Tensor, dtop: Tensor, mask: Tensor, left: Tensor
) -> None:
    left.copy_(dtop)
    for x, dx in taps:
        torch.eq(x, top, out=mask).mul_(left)
        dx.add_(mask)
        # The mask is 0 or 1: what went to this tap is taken away exactly.
        left.sub_(mask)


def average_pool_forward(layer: AveragePool, x: Tensor, y: Tensor) -> None:
    """Mean of each window."""
    views = _windows(layer, x, y)
    y.copy_(views[0])
    for view in views[1:]:
        y.add_(view)
    y.mul_(1 / layer.size**2)


def average_pool_grad_input(layer: AveragePool, dy: Tensor, dx: Tensor) -> None:
    """Spread each output's gradient evenly over its window."""
    dx.zero_()
    for view in _windows(layer, dx, dy):
        view.add_(dy, alpha=1 / layer.size**2)


def _windows(layer: AveragePool, x: Tensor, y: Tensor) -> list[Tensor]:
    rows = _taps(layer.size, layer.stride, y.shape[2])
    columns = _taps(layer.size, layer.stride, y.shape[3])
    return [x[:, :, row, column] for row in rows for column in columns]


def _row_scratch(x: Tensor, y: Tensor, size: int) -> Tensor:
    return torch.empty((size, x.shape[1], y.shape[2], x.shape[3]), dtype=x.dtype, device=x.device)

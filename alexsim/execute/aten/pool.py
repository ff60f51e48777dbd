"""Pools as maxima and sums of shifted views, rows first.

A tap is one position in a window: which outputs have an input there, and which inputs those are. A
window that hangs over an edge has no input at some taps.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from alexsim.execute.aten.chunks import channels_last, chunks
from alexsim.network.layers import AdaptiveAveragePool, AveragePool, MaxPool, Pool, pair

Tensor = torch.Tensor
_aten = torch.ops.aten


class _Tap(NamedTuple):
    outputs: slice
    inputs: slice
    whole: bool
    """Whether every output has an input here."""


def _taps(layer: Pool, axis: int, extent: int, outputs: int) -> list[_Tap]:
    size, stride, padding = (pair(v)[axis] for v in (layer.size, layer.stride, layer.padding))
    taps = []
    for tap in range(size):
        offset = tap - padding
        first = max(0, -(offset // stride)) if offset < 0 else 0
        last = min(outputs - 1, (extent - 1 - offset) // stride)
        if first <= last:
            start = first * stride + offset
            end = last * stride + offset + 1
            whole = last - first == outputs - 1
            taps.append(_Tap(slice(first, last + 1), slice(start, end, stride), whole))
    return taps


def max_pool_forward(layer: MaxPool, x: Tensor, y: Tensor, size: int) -> None:
    """Row maxima first, then maxima of those: ``2 w`` comparisons per output for ``w * w``."""
    rows = _taps(layer, 0, x.shape[2], y.shape[2])
    columns = _taps(layer, 1, x.shape[3], y.shape[3])
    x, y = channels_last(x), channels_last(y)
    scratch = _row_scratch(x, y, size)
    for part in chunks(x.shape[0], size):
        wide = scratch[: part.stop - part.start]
        _row_maxima(x[part], columns, wide)
        _maxima([(tap, wide[:, tap.inputs]) for tap in rows], y[part], axis=1)


def max_pool_grad_input(
    layer: MaxPool, x: Tensor, y: Tensor, dy: Tensor, dx: Tensor, size: int, *, add: bool
) -> None:
    """Route each output's gradient to its window's maximum: the first, or all that are equal."""
    if layer.ties == "all":
        _route_to_all(layer, x, y, dy, dx, size, add=add)
        return
    window = [
        *map(pair, (layer.size, layer.stride, layer.padding)),
        (1, 1),
        layer.rounding == "ceil",
    ]
    for part in chunks(x.shape[0], size):
        # The place of the first is not kept: finding it again costs less than routing here.
        first = _aten.max_pool2d_with_indices(x[part], *window)[1]
        arguments = (dy[part], x[part], *window, first)
        if add:
            dx[part].add_(_aten.max_pool2d_with_indices_backward(*arguments))
        else:
            _aten.max_pool2d_with_indices_backward.grad_input(*arguments, grad_input=dx[part])


def _route_to_all(
    layer: MaxPool, x: Tensor, y: Tensor, dy: Tensor, dx: Tensor, size: int, *, add: bool
) -> None:
    """Through the maxima of the rows: an input equals its window's maximum exactly if it equals its
    row's maximum and that equals the window's."""
    rows = _taps(layer, 0, x.shape[2], y.shape[2])
    columns = _taps(layer, 1, x.shape[3], y.shape[3])
    x, y, dy, dx = channels_last(x), channels_last(y), channels_last(dy), channels_last(dx)
    wide, dwide, mask = (_row_scratch(x, y, size) for _ in range(3))
    for part in chunks(x.shape[0], size):
        count = part.stop - part.start
        row_max, drow = wide[:count], dwide[:count].zero_()
        _row_maxima(x[part], columns, row_max)
        hits, height = mask[:count], y.shape[1]
        # More windows than rows: padded pools of very small maps.
        small = torch.empty_like(y[part]) if height > mask.shape[1] else hits[:, :height]
        for t in rows:
            _route(row_max[:, t.inputs], drow[:, t.inputs], y[part], dy[part], small, t.outputs, 1)
        xs, dxs = x[part], dx[part]
        if not add:
            dxs.zero_()
        for t in columns:
            _route(xs[:, :, t.inputs], dxs[:, :, t.inputs], row_max, drow, hits, t.outputs, 2)


def _route(
    x: Tensor, dx: Tensor, top: Tensor, dtop: Tensor, mask: Tensor, outputs: slice, axis: int
) -> None:
    """Add the gradients of those outputs whose maximum a tap is."""
    at = (*(slice(None) for _ in range(axis)), outputs)
    hit = torch.eq(x, top[at], out=mask[at])
    dx.addcmul_(hit, dtop[at])


def _row_maxima(x: Tensor, columns: list[_Tap], out: Tensor) -> None:
    _maxima([(tap, x[:, :, tap.inputs]) for tap in columns], out, axis=2)


def _maxima(views: list[tuple[_Tap, Tensor]], out: Tensor, axis: int) -> None:
    # Taps at which every output has an input come first: they fill it.
    views = sorted(views, key=lambda view: not view[0].whole)
    (tap, first), *others = views
    if not tap.whole:
        out.fill_(-torch.inf)
        others = views
    elif len(others) == 0 or not others[0][0].whole:
        out.copy_(first)
    else:
        torch.maximum(first, others.pop(0)[1], out=out)
    for tap, view in others:
        covered = out.narrow(axis, tap.outputs.start, tap.outputs.stop - tap.outputs.start)
        torch.maximum(covered, view, out=covered)


def average_pool_forward(layer: AveragePool, x: Tensor, y: Tensor) -> None:
    """Mean of each window."""
    first = True
    for row, column in _windows(layer, x, y):
        view = x[:, :, row.inputs, column.inputs]
        if first and row.whole and column.whole:
            y.copy_(view)
        else:
            if first:
                y.zero_()
            y[:, :, row.outputs, column.outputs].add_(view)
        first = False
    share = _shares(layer, tuple(x.shape[2:]), tuple(y.shape[2:]))
    y.mul_(share if isinstance(share, float) else share.to(y))


def average_pool_grad_input(layer: AveragePool, dy: Tensor, dx: Tensor, *, add: bool) -> None:
    """Spread each output's gradient evenly over its window."""
    if not add:
        dx.zero_()
    share = _shares(layer, tuple(dx.shape[2:]), tuple(dy.shape[2:]))
    for row, column in _windows(layer, dx, dy):
        view, grad = dx[:, :, row.inputs, column.inputs], dy[:, :, row.outputs, column.outputs]
        if isinstance(share, float):
            view.add_(grad, alpha=share)
        else:
            view.addcmul_(grad, share.to(dy)[row.outputs, column.outputs])


def _windows(layer: AveragePool, x: Tensor, y: Tensor) -> list[tuple[_Tap, _Tap]]:
    rows = _taps(layer, 0, x.shape[2], y.shape[2])
    columns = _taps(layer, 1, x.shape[3], y.shape[3])
    return [(row, column) for row in rows for column in columns]


@cache
def _shares(
    layer: AveragePool, inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> float | Tensor:
    """One divided by the pixels that count in each window, ``[H, W]``; a number if all are alike.

    With ``count_padding`` they end at the padding's edge: what a window hangs over by rounding up
    never counts, as in PyTorch.
    """
    counts = []
    for axis in (0, 1):
        size, stride, padding = (pair(v)[axis] for v in (layer.size, layer.stride, layer.padding))
        border = padding if layer.count_padding else 0
        starts = torch.arange(outputs[axis]) * stride - padding
        ends = (starts + size).clamp(max=inputs[axis] + border)
        counts.append(ends - starts.clamp(min=-border))
    pixels = counts[0][:, None] * counts[1]
    if pixels.min() == pixels.max():
        return 1 / int(pixels[0, 0])
    return 1 / pixels.double()


def adaptive_average_pool_forward(layer: AdaptiveAveragePool, x: Tensor, y: Tensor) -> None:
    """Mean of each of the windows that tile the image."""
    rows, columns = layer.spans(tuple(x.shape[1:]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            torch.mean(x[:, :, row, column], (2, 3), out=y[:, :, i, j])


def adaptive_average_pool_grad_input(
    layer: AdaptiveAveragePool, dy: Tensor, dx: Tensor, *, add: bool
) -> None:
    """Spread each output's gradient evenly over its window."""
    if not add:
        dx.zero_()
    rows, columns = layer.spans(tuple(dx.shape[1:]))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = dx[:, :, row, column]
            share = 1 / (window.shape[2] * window.shape[3])
            window.add_(dy[:, :, i : i + 1, j : j + 1], alpha=share)


def _row_scratch(x: Tensor, y: Tensor, size: int) -> Tensor:
    return torch.empty((size, x.shape[1], y.shape[2], x.shape[3]), dtype=x.dtype, device=x.device)

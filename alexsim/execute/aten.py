"""The ``aten`` backend's kernels: every layer forward and backward on given output tensors.

No function allocates but scratch, in the chunks that ``alexsim.plan.scratch`` states. Images are
``[N, C, H, W]`` tensors that lie channels-last; windows are sums or maxima of shifted views, which
read contiguous rows of channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alexsim.network.layers import (
    AveragePool,
    Convolution,
    LocalResponseNorm,
    MaxPool,
    SpatialResponseNorm,
)

Tensor = torch.Tensor
_aten = torch.ops.aten


def chunks(images: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` images that cover ``images``."""
    for start in range(0, images, size):
        yield slice(start, min(start + size, images))


# -- convolution ---------------------------------------------------------------


class PaddedInput:
    """Chunks of a convolution's input with the zero border that ATen cannot imply.

    The original's last windows hang over the right and bottom edges only, where ATen pads both
    sides alike. ``padding`` is what ATen still has to imply.
    """

    def __init__(self, layer: Convolution, x: Tensor, size: int) -> None:
        height, width = x.shape[2:]
        self._before = layer.padding
        bottom, right = layer.end_padding(height), layer.end_padding(width)
        self._x = x
        self._scratch: Tensor | None = None
        if (bottom, right) == (layer.padding, layer.padding):
            self.padding = layer.padding
            return
        self.padding = 0
        shape = (size, height + layer.padding + bottom, width + layer.padding + right, x.shape[1])
        self._scratch = torch.empty(shape, dtype=x.dtype).zero_().permute(0, 3, 1, 2)

    def __call__(self, images: slice) -> Tensor:
        """The padded images of one chunk."""
        x = self._x[images]
        if self._scratch is None:
            return x
        padded = self._scratch[: x.shape[0]]
        self.inside(padded).copy_(x)
        return padded

    def inside(self, padded: Tensor) -> Tensor:
        """The part of a padded tensor that is not border."""
        if self._scratch is None:
            return padded
        height, width = self._x.shape[2:]
        return padded.narrow(2, self._before, height).narrow(3, self._before, width)


def convolution_forward(
    layer: Convolution, x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, size: int
) -> None:
    """Write the convolution of ``x`` into ``y``."""
    padded = PaddedInput(layer, x, size)
    stride, padding = [layer.stride] * 2, [padded.padding] * 2
    for part in chunks(x.shape[0], size):
        y[part].copy_(
            _aten.convolution(padded(part), weight, bias, stride, padding, [1, 1], False, [0, 0], 1)
        )


def convolution_grad_input(
    layer: Convolution, weight: Tensor, dy: Tensor, dx: Tensor, size: int, *, add: bool
) -> None:
    """Write the gradient of the input into ``dx``, or add it."""
    # ATen takes no more than the shape from the input.
    padded = PaddedInput(layer, dx, size)
    stride, padding = [layer.stride] * 2, [padded.padding] * 2
    for part in chunks(dx.shape[0], size):
        grad = _aten.convolution_backward(
            dy[part],
            padded(part),
            weight,
            None,
            stride,
            padding,
            [1, 1],
            False,
            [0, 0],
            1,
            [True, False, False],
        )[0]
        target = dx[part]
        (target.add_ if add else target.copy_)(padded.inside(grad))


def convolution_grad_weight(
    layer: Convolution, x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor, size: int
) -> None:
    """Write the gradients of weights and biases, summed over the images."""
    padded = PaddedInput(layer, x, size)
    stride, padding = [layer.stride] * 2, [padded.padding] * 2
    for part in chunks(x.shape[0], size):
        _, weight, bias = _aten.convolution_backward(
            dy[part],
            padded(part),
            dweight,
            [dbias.shape[0]],
            stride,
            padding,
            [1, 1],
            False,
            [0, 0],
            1,
            [False, True, True],
        )
        for total, partial in ((dweight, weight), (dbias, bias)):
            (total.add_ if part.start else total.copy_)(partial)


# -- pooling -------------------------------------------------------------------


def _taps(size: int, stride: int, outputs: int) -> list[slice]:
    """For each position in a window: the inputs that stand there, over all windows."""
    return [slice(tap, tap + stride * (outputs - 1) + 1, stride) for tap in range(size)]


def max_pool_forward(layer: MaxPool, x: Tensor, y: Tensor, size: int) -> None:
    """Row maxima first, then maxima of those: ``2 w`` comparisons per output for ``w * w``."""
    rows = _taps(layer.size, layer.stride, y.shape[2])
    columns = _taps(layer.size, layer.stride, y.shape[3])
    x, y = _last(x), _last(y)
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
    x, y, dy, dx = _last(x), _last(y), _last(dy), _last(dx)
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


def _last(x: Tensor) -> Tensor:
    """``[N, C, H, W]`` seen as ``[N, H, W, C]``."""
    return x.permute(0, 2, 3, 1)


def _row_scratch(x: Tensor, y: Tensor, size: int) -> Tensor:
    return torch.empty((size, x.shape[1], y.shape[2], x.shape[3]), dtype=x.dtype)


# -- response norms ------------------------------------------------------------

Norm = LocalResponseNorm | SpatialResponseNorm


def norm_forward(layer: Norm, x: Tensor, y: Tensor, norm: Tensor, size: int) -> None:
    """``norm = k + alpha * window sum of x^2``, ``y = x * norm^-beta``."""
    x, y, norm = _last(x), _last(y), _last(norm)
    # Each of the window's n values carries k / n, border included: their sum brings k along.
    window = _Window(layer, x, size, border=layer.k)
    share = torch.full((1,), window.border, dtype=x.dtype)
    powers = torch.empty((size, *x.shape[1:]), dtype=x.dtype)
    for part in chunks(x.shape[0], size):
        here, out, total = x[part], y[part], norm[part]
        power = powers[: here.shape[0]]
        torch.addcmul(share, here, here, value=layer.alpha, out=window.inside(here.shape[0]))
        window.sum(total)
        _power(total, layer.beta, out, power)
        torch.div(here, power, out=out)


def norm_grad_input(
    layer: Norm, x: Tensor, norm: Tensor, dy: Tensor, dx: Tensor, size: int
) -> None:
    """``dx = dy norm^-b - 2 a b x * window sum of (dy x norm^-(b+1))``."""
    x, norm, dy, dx = _last(x), _last(norm), _last(dy), _last(dx)
    window = _Window(layer, x, size, border=0.0)
    direct = torch.empty((size, *x.shape[1:]), dtype=x.dtype)
    for part in chunks(x.shape[0], size):
        here, total, out = x[part], norm[part], dx[part]
        near = direct[: here.shape[0]]
        _power(total, layer.beta, out, near)
        torch.div(dy[part], near, out=near)
        torch.mul(near, here, out=out)
        torch.div(out, total, out=window.inside(here.shape[0]))
        window.sum(out)
        torch.addcmul(near, out, here, value=-2 * layer.alpha * layer.beta, out=out)


def _power(total: Tensor, beta: float, spare: Tensor, out: Tensor) -> None:
    """``out = total^beta``; 0.75, the paper's, is two square roots."""
    if beta == 0.75:
        torch.sqrt(total, out=spare)
        torch.sqrt(spare, out=out)
        out.mul_(spare)
    else:
        torch.pow(total, beta, out=out)


class _Window:
    """Sums over a norm's window: values inside a border, then sums of shifted views.

    Over channels the border lies between pixels, and the shift runs over the flat memory: what it
    mixes across pixels falls on the border. Over pixels, rows are summed first, then columns.
    ``border`` is what a window of border values alone would sum to.
    """

    def __init__(self, layer: Norm, x: Tensor, images: int, *, border: float) -> None:
        self._across = isinstance(layer, LocalResponseNorm)
        self._size, self._half = layer.size, layer.size // 2
        self._images, height, width, channels = images, *x.shape[1:]
        self._shape = (height, width, channels)
        more = layer.size - 1
        if self._across:
            padded = (images, height, width, channels + more)
            sums = padded
            self.border = border / layer.size
        else:
            padded = (images, height + more, width + more, channels)
            sums = (images, height + more, width, channels)
            self.border = border / layer.size**2
        self._padded = torch.empty(padded, dtype=x.dtype).fill_(self.border)
        self._sums = torch.empty(sums, dtype=x.dtype)

    def inside(self, images: int) -> Tensor:
        """Where the next values go."""
        self._images = images
        height, width, channels = self._shape
        padded = self._padded[:images]
        if self._across:
            return padded.narrow(3, self._half, channels)
        return padded.narrow(1, self._half, height).narrow(2, self._half, width)

    def sum(self, out: Tensor) -> None:
        """Sum the window around each value."""
        padded, sums = self._padded[: self._images], self._sums[: self._images]
        height, width, channels = self._shape
        last = self._size - 1
        if last == 0:
            out.copy_(padded)
        elif self._across:
            flat, total = padded.view(-1), sums.view(-1)
            length = flat.shape[0] - last
            _shifted_sum([flat[i : i + length] for i in range(last)], total[:length])
            torch.add(sums[..., :channels], padded[..., last:], out=out)
        else:
            _shifted_sum([padded.narrow(2, i, width) for i in range(self._size)], sums)
            _shifted_sum([sums.narrow(1, i, height) for i in range(self._size)], out)


def _shifted_sum(views: list[Tensor], out: Tensor) -> None:
    if len(views) == 1:
        out.copy_(views[0])
        return
    torch.add(views[0], views[1], out=out)
    for view in views[2:]:
        out.add_(view)


# -- fully connected -----------------------------------------------------------

_ROWS = 128
"""Rows of a fully connected weight updated at a time, so that its momentum is still cached."""


def linear_grad_weight_into_momentum(
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    inc: Tensor,
    *,
    momentum: float,
    decay: float,
    rate: float,
) -> None:
    """``inc = momentum inc - decay rate w - rate dy^T x``: the gradient is never stored."""
    for start in range(0, weight.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        inc[rows].mul_(momentum).add_(weight[rows], alpha=-decay * rate)
        inc[rows].addmm_(dy[:, rows].t(), x, alpha=-rate)

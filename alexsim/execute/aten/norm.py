"""Response norms: window sums inside a border, a few images at a time."""

from __future__ import annotations

import torch

from alexsim.execute.aten.chunks import channels_last, chunks
from alexsim.network.layers import LocalResponseNorm, SpatialResponseNorm

Tensor = torch.Tensor

Norm = LocalResponseNorm | SpatialResponseNorm


def norm_forward(layer: Norm, x: Tensor, y: Tensor, norm: Tensor, size: int) -> None:
    """``norm = k + alpha * window sum of x^2``, ``y = x * norm^-beta``."""
    x, y, norm = channels_last(x), channels_last(y), channels_last(norm)
    # Each of the window's n values carries k / n, border included: their sum brings k along.
    window = _Window(layer, x, size, border=layer.k)
    share = torch.full((1,), window.border, dtype=x.dtype, device=x.device)
    powers = torch.empty((size, *x.shape[1:]), dtype=x.dtype, device=x.device)
    for part in chunks(x.shape[0], size):
        values, out, total = x[part], y[part], norm[part]
        power = powers[: values.shape[0]]
        torch.addcmul(share, values, values, value=layer.alpha, out=window.inside(values.shape[0]))
        window.sum(total)
        _power(total, layer.beta, out, power)
        torch.div(values, power, out=out)


def norm_grad_input(
    layer: Norm, x: Tensor, norm: Tensor, dy: Tensor, dx: Tensor, size: int
) -> None:
    """``dx = dy norm^-b - 2 a b x * window sum of (dy x norm^-(b+1))``."""
    x, norm, dy, dx = channels_last(x), channels_last(norm), channels_last(dy), channels_last(dx)
    window = _Window(layer, x, size, border=0.0)
    scratch = torch.empty((size, *x.shape[1:]), dtype=x.dtype, device=x.device)
    for part in chunks(x.shape[0], size):
        values, total, out = x[part], norm[part], dx[part]
        direct = scratch[: values.shape[0]]
        _power(total, layer.beta, out, direct)
        torch.div(dy[part], direct, out=direct)
        torch.mul(direct, values, out=out)
        torch.div(out, total, out=window.inside(values.shape[0]))
        window.sum(out)
        torch.addcmul(direct, out, values, value=-2 * layer.alpha * layer.beta, out=out)


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
        self._padded = torch.empty(padded, dtype=x.dtype, device=x.device).fill_(self.border)
        self._sums = torch.empty(sums, dtype=x.dtype, device=x.device)

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

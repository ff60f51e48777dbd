"""Convolutions over chunks of images, with the zero border that the original implied."""

from __future__ import annotations

from collections.abc import Callable

import torch

from alexsim.execute.aten.chunks import chunks
from alexsim.network.layers import Convolution, pair

Tensor = torch.Tensor
_aten = torch.ops.aten


class PaddedInput:
    """Chunks of a convolution's input with the zero border that ATen cannot imply.

    The original's last windows hang over the right and bottom edges only, where ATen pads both
    sides alike. ``padding`` is what ATen still has to imply.
    """

    def __init__(self, layer: Convolution, x: Tensor, size: int) -> None:
        height, width = x.shape[2:]
        self._before = pair(layer.padding)
        bottom, right = layer.end_paddings(tuple(x.shape[1:]))
        self._x = x
        self._scratch: Tensor | None = None
        if (bottom, right) == self._before:
            self.padding = list(self._before)
            return
        self.padding = [0, 0]
        tall, wide = height + self._before[0] + bottom, width + self._before[1] + right
        shape = (size, tall, wide, x.shape[1])
        self._scratch = (
            torch.empty(shape, dtype=x.dtype, device=x.device).zero_().permute(0, 3, 1, 2)
        )

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
        top, left = self._before
        return padded.narrow(2, top, height).narrow(3, left, width)

    def window(self, layer: Convolution) -> tuple[object, ...]:
        """Stride, padding, dilation, and what follows them in ATen's arguments."""
        stride, dilation = list(pair(layer.stride)), list(pair(layer.dilation))
        return (stride, self.padding, dilation, False, [0, 0], layer.groups)


def convolution_forward(
    layer: Convolution,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    size: int,
    end: Callable[[Tensor], object] | None = None,
) -> None:
    """Write the convolution of ``x`` into ``y``; ``end`` changes each chunk in place."""
    padded = PaddedInput(layer, x, size)
    window = padded.window(layer)
    for part in chunks(x.shape[0], size):
        y[part].copy_(_aten.convolution(padded(part), weight, bias, *window))
        if end:
            end(y[part])


def convolution_grad_input(
    layer: Convolution, weight: Tensor, dy: Tensor, dx: Tensor, size: int, *, add: bool
) -> None:
    """Write the gradient of the input into ``dx``, or add it."""
    # ATen takes no more than the shape from the input.
    padded = PaddedInput(layer, dx, size)
    window, wanted = padded.window(layer), [True, False, False]
    for part in chunks(dx.shape[0], size):
        grad = _aten.convolution_backward(dy[part], padded(part), weight, None, *window, wanted)[0]
        target = dx[part]
        (target.add_ if add else target.copy_)(padded.inside(grad))


def convolution_grad_weight(
    layer: Convolution, x: Tensor, dy: Tensor, dweight: Tensor, dbias: Tensor | None, size: int
) -> None:
    """Write the gradients of weights and biases, summed over the images."""
    padded = PaddedInput(layer, x, size)
    window, wanted = padded.window(layer), [False, True, dbias is not None]
    biases = None if dbias is None else [dbias.shape[0]]
    for part in chunks(x.shape[0], size):
        _, weight, bias = _aten.convolution_backward(
            dy[part], padded(part), dweight, biases, *window, wanted
        )
        for total, partial in ((dweight, weight), (dbias, bias)):
            if total is not None:
                (total.add_ if part.start else total.copy_)(partial)

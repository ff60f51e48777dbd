"""Convolutions over chunks of images, with the zero border that the original implied."""

from __future__ import annotations

import torch

from alexsim.execute.aten.chunks import chunks
from alexsim.network.layers import Convolution

Tensor = torch.Tensor
_aten = torch.ops.aten


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
        return padded.narrow(2, self._before, height).narrow(3, self._before, width)


def convolution_forward(
    layer: Convolution, x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, size: int
) -> None:
    """Write the convolution of ``x`` into ``y``."""
    padded = PaddedInput(layer, x, size)
    stride, padding = [layer.stride] * 2, [padded.padding] * 2
    for part in chunks(x.shape[0], size):
        y[part].copy_(
            _aten.convolution(
                padded(part), weight, bias, stride, padding, [1, 1], False, [0, 0], layer.groups
            )
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
            layer.groups,
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
            layer.groups,
            [False, True, True],
        )
        for total, partial in ((dweight, weight), (dbias, bias)):
            (total.add_ if part.start else total.copy_)(partial)

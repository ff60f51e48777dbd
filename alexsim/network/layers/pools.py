"""Pools: the largest value or the mean of windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from alexsim.errors import NetworkError
from alexsim.network.layers.base import (
    Auxiliary,
    Elementwise,
    Kept,
    Kernel,
    Layer,
    Pair,
    Saved,
    Shape,
    image,
    named_window,
    pair,
    positive,
)
from alexsim.network.layers.windows import end_paddings, windows

_BITS_SIDE = 3
"""Side of the largest window whose pixels have a bit each in 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(Layer):
    """Windows over every map of its input; ``padding`` is at most half a window."""

    size: Pair
    stride: Pair
    padding: Pair = 0
    rounding: Literal["exact", "floor", "ceil"] = "exact"
    """``exact`` refuses windows that do not tile the input; ``floor`` leaves out what is left
    over; ``ceil`` lets the last window hang over the right and bottom edges, if it begins before
    them."""

    def __post_init__(self) -> None:
        positive(self, "size", "stride")
        positive(self, "padding", least=0)
        if any(2 * p > s for p, s in zip(pair(self.padding), pair(self.size), strict=True)):
            raise NetworkError(
                f"layer {self.name!r}: padding must be at most half of the window"
                f" {self.size}, got {self.padding}"
            )

    @property
    def taps(self) -> int:
        """Pixels of a window."""
        height, width = pair(self.size)
        return height * width

    @property
    def window(self) -> str:
        return named_window(self.size, self.stride)

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del column
        channels, *extents = image(self, inputs)
        return (channels, *windows(self, extents, pair(self.size)))

    def overhangs(self, inputs: Shape) -> tuple[int, int]:
        """Rows and columns beyond the end of the input, padding included, that windows reach."""
        return end_paddings(self, inputs[1:], pair(self.size))


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool(Pool):
    """Largest value of each window; windows overlap where ``stride < size``.

    ``ties="all"`` sends the gradient to every input equal to the maximum, as the 2012 kernels
    did; ``"first"`` only to the first in row-major order, as PyTorch does.
    """

    ties: Literal["all", "first"] = "first"
    backward_reads: ClassVar[tuple[Kept, ...]] = ("output", "input")
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(
            forward=self.taps - 1,
            grad_input=2 * self.taps if self.ties == "all" else self.taps + 1,
        )

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Its input, and where the largest values are, in 8 bytes each."""
        del inputs
        return Saved(inputs=(0,), beside=(Auxiliary("indices", outputs, "activation", True, 8),))

    @property
    def epilogue_of(self) -> Kernel:
        """That of a norm, where a word has a bit for each pixel of a window."""
        height, width = pair(self.size)
        square = height == width <= _BITS_SIDE and len(set(pair(self.stride))) == 1
        return "norm" if square and pair(self.padding) == (0, 0) else ""

    def kept_fused(self, outputs: Shape) -> tuple[Auxiliary, ...]:
        """Of each window, a bit for each pixel that is the largest."""
        return (Auxiliary("winners", outputs, "norm", item_bytes=2),)


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool(Pool):
    """Mean of each window (LeNet's sub-sampling, without its trained scale).

    ``count_padding`` divides by the window's pixels with those of the padding, as PyTorch does;
    pixels beyond the padding never count.
    """

    count_padding: bool = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=self.taps, grad_input=self.taps + 1)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Its input, of which it only needs the shape."""
        del inputs, outputs
        return Saved(inputs=(0,))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveAveragePool(Layer):
    """Means of windows that tile the image into ``size`` outputs, whatever its extent.

    Output ``i`` of ``n`` over ``e`` pixels is the mean of ``floor(i e / n)`` to
    ``ceil((i + 1) e / n)``, as in ``torch.nn.AdaptiveAvgPool2d``. Size 1 is the global pool.
    """

    size: Pair = 1

    def __post_init__(self) -> None:
        positive(self, "size")

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=1)

    def arithmetic(self, inputs: Shape, outputs: Shape) -> Elementwise:
        """A division per output, and an addition per input: windows tile it, or nearly."""
        both = math.prod(inputs) + math.prod(outputs)
        return Elementwise(forward=both, grad_input=both)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Its input; of the global pool nothing: PyTorch takes a mean over axes for it."""
        del inputs, outputs
        return Saved(inputs=() if pair(self.size) == (1, 1) else (0,))

    @property
    def window(self) -> str:
        """What it makes of any image."""
        height, width = pair(self.size)
        return f"to {height}x{width}"

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del column
        return (image(self, inputs)[0], *pair(self.size))

    def spans(self, inputs: Shape) -> tuple[tuple[slice, ...], ...]:
        """Rows, then columns, of the input that each output is the mean of."""
        return tuple(
            tuple(slice(i * extent // count, -(-(i + 1) * extent // count)) for i in range(count))
            for extent, count in zip(inputs[1:], pair(self.size), strict=True)
        )

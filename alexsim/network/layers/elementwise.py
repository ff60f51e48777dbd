"""Elementwise layers: non-linearities, dropout, and what only moves values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from alexsim.errors import NetworkError
from alexsim.network.layers.base import (
    Auxiliary,
    Elementwise,
    Kept,
    Kernel,
    Layer,
    Saved,
    Shape,
    positive,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLU(Layer):
    """``max(x, 0)``."""

    in_place: bool = True
    """As torchvision writes it."""
    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True
    overwrites_input: ClassVar[bool] = True
    overwrites_grad: ClassVar[bool] = True

    @property
    def epilogue_of(self) -> Kernel:
        """Its output's sign tells the gradient, so its input need not be kept."""
        return "product"

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLU6(Layer):
    """``min(max(x, 0), 6)``, of MobileNet."""

    in_place: bool = True
    """As torchvision writes it."""
    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True
    overwrites_input: ClassVar[bool] = True
    overwrites_grad: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=2, grad_input=2)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Its input; in place, a copy of that."""
        del inputs, outputs
        return Saved(inputs=(0,))


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakyReLU(Layer):
    """``x`` where it is positive, else ``slope * x``."""

    slope: float = 0.01
    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True
    overwrites_input: ClassVar[bool] = True
    overwrites_grad: ClassVar[bool] = True

    def __post_init__(self) -> None:
        # With a positive slope the output has the input's sign, so it tells the gradient.
        if not 0 < self.slope < 1:
            raise NetworkError(f"layer {self.name!r}: slope must be in (0, 1), got {self.slope}")

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=2, grad_input=2)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Its input, or what has taken its place."""
        del inputs, outputs
        return _either(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ELU(Layer):
    """``x`` where it is positive, else ``exp(x) - 1`` (Clevert et al. 2016)."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=3, grad_input=3)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Its input, or what has taken its place."""
        del inputs, outputs
        return _either(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid(Layer):
    """``1 / (1 + exp(-x))``, LeNet's non-linearity."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=4, grad_input=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tanh(Layer):
    """``tanh(x)``: what the paper compares ReLU with (section 3.1)."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=5, grad_input=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiLU(Layer):
    """``x * sigmoid(x)``, of EfficientNet."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=5, grad_input=9)


@dataclass(frozen=True, slots=True, kw_only=True)
class GELU(Layer):
    """``x * Phi(x)`` with the normal distribution's ``Phi``, exact (by ``erf``)."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)

    def elementwise(self) -> Elementwise:
        """``erf`` counts as one exponential."""
        return Elementwise(forward=5, grad_input=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardSwish(Layer):
    """``x * min(max(x + 3, 0), 6) / 6``, of MobileNetV3."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=5, grad_input=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardSigmoid(Layer):
    """``min(max(x + 3, 0), 6) / 6``."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=4, grad_input=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(Layer):
    """Softmax over the channels of each pixel, or the units."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=5, grad_input=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Layer):
    """Values at other places, and nothing computed."""

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=0, grad_input=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flatten(Move):
    """An image as one row of values, channels first; PyTorch has a view for it, we a copy."""

    flattens: ClassVar[bool] = True

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del column
        return (math.prod(inputs),)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelShuffle(Move):
    """One channel of each of ``groups`` equal groups in turn (ShuffleNet, Zhang et al. 2018).

    Its output is part number ``part``, from 0, of ``parts`` equal ones: ShuffleNetV2 filters one
    half of the channels and passes the other on as it is (Ma et al. 2018).
    """

    groups: int = 2
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        positive(self, "groups", "parts")
        if not 0 <= self.part < self.parts:
            raise NetworkError(
                f"layer {self.name!r}: part must be in 0 to {self.parts - 1}, got {self.part}"
            )

    def input_shape(self, shapes: Sequence[Shape]) -> Shape:
        if shapes[0][0] % (self.groups * self.parts):
            raise NetworkError(
                f"layer {self.name!r}: {shapes[0][0]} channels are not {self.parts} parts of"
                f" {self.groups} groups"
            )
        return shapes[0]

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del column
        return (inputs[0] // self.parts, *inputs[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropout(Layer):
    """Zero each unit with probability ``rate`` in training; multiply by ``1 - rate`` at test.

    Training does not rescale, as in 2012. ``rescaled`` divides by ``1 - rate`` in training and
    changes nothing at test, as ``torch.nn.Dropout`` does; ``whole_images`` zeroes all of an image
    or nothing (stochastic depth, Huang et al. 2016).
    """

    rate: float = 0.5
    rescaled: bool = False
    whole_images: bool = False
    overwrites_grad: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise NetworkError(f"layer {self.name!r}: rate must be in (0, 1), got {self.rate}")

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=1)

    def auxiliary(self, inputs: Shape, outputs: Shape) -> tuple[Auxiliary, ...]:
        del inputs
        shape = (1,) * len(outputs) if self.whole_images else outputs
        return (Auxiliary("mask", shape, "mask"),)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Its mask, a byte a value; the factors, where it is in place or of whole images."""
        (mask,) = self.auxiliary(inputs, outputs)
        fused = not (self.in_place or self.whole_images)
        return Saved(beside=(mask._replace(item_bytes=1) if fused else mask,))

    def draws(self, outputs: Shape) -> int:
        """Random values of one image."""
        return 1 if self.whole_images else math.prod(outputs)


def _either(layer: Layer) -> Saved:
    """The output, where it has been written over the input, else the input."""
    return Saved(output=True) if layer.in_place else Saved(inputs=(0,))

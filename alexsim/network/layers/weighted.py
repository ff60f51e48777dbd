"""Layers of multiply-adds: convolutions and fully connected layers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from alexsim.errors import NetworkError
from alexsim.network.layers.base import (
    Elementwise,
    Kernel,
    Layer,
    Pair,
    Parameter,
    Reads,
    Role,
    Saved,
    Shape,
    image,
    named_window,
    pair,
    positive,
)
from alexsim.network.layers.windows import end_paddings, too_large, windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Layer):
    """2-D convolution.

    ``rounding="ceil"`` is the original's rule: the last window may hang over the right and
    bottom edges, where the image is taken as zero. So AlexNet's 224 pixels give 55 outputs
    without a 227-pixel image. A window that would see such zeros only is left out.
    """

    filters: int
    size: Pair
    stride: Pair = 1
    padding: Pair = 0
    dilation: Pair = 1
    rounding: Literal["floor", "ceil"] = "ceil"
    reads: Reads = "own"
    weight_std: float = 0.01
    bias_init: float = 0.0
    groups: int = 1
    """Groups within a column, as one-GPU frameworks write the two columns of 2012."""
    bias: bool = True
    kernel: ClassVar[Kernel] = "product"

    def __post_init__(self) -> None:
        positive(self, "filters", "size", "stride", "dilation", "groups")
        positive(self, "padding", least=0)

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=int(self.bias), grad_input=0, grad_weight=int(self.bias))

    def multiply_adds(self, inputs: Shape, outputs: Shape) -> int:
        return math.prod(self.parameters(inputs)[0].shape) * math.prod(outputs[1:])

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        del inputs, outputs
        return Saved(inputs=(0,))

    @property
    def reads_all(self) -> bool:
        return self.reads == "all"

    @property
    def window(self) -> str:
        return named_window(self.size, self.stride)

    @property
    def spans(self) -> tuple[int, int]:
        """Pixels that a dilated window reaches over."""
        size, dilation = pair(self.size), pair(self.dilation)
        return (dilation[0] * (size[0] - 1) + 1, dilation[1] * (size[1] - 1) + 1)

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del column
        _, *extents = image(self, inputs)
        for extent, span, padding in zip(extents, self.spans, pair(self.padding), strict=True):
            if span > extent + 2 * padding:
                raise too_large(self, extent, padding)
        return (self.filters, *windows(self, extents, self.spans))

    def parameters(self, inputs: Shape, column: int = 0) -> tuple[Parameter, ...]:
        del column
        if inputs[0] % self.groups or self.filters % self.groups:
            raise NetworkError(
                f"layer {self.name!r}: {self.groups} groups do not divide {inputs[0]} channels"
                f" and {self.filters} filters"
            )
        shape = (self.filters, inputs[0] // self.groups, *pair(self.size))
        weight = Parameter("weight", shape, Role.WEIGHT, std=self.weight_std)
        bias = Parameter("bias", (self.filters,), Role.BIAS, mean=self.bias_init)
        return (weight, bias) if self.bias else (weight,)

    def end_paddings(self, inputs: Shape) -> tuple[int, int]:
        """Implicit zeros after the last row and column of the input; >= ``padding``."""
        return end_paddings(self, inputs[1:], self.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullyConnected(Layer):
    """``y = W x + b`` over the flattened input.

    ``units`` is one number for every column, or one per column; 0 leaves a column out, as the
    2012 network's last layer, which lives on GPU 0 only.
    """

    units: int | tuple[int, ...]
    reads: Reads = "own"
    weight_std: float = 0.01
    bias_init: float = 0.0
    bias: bool = True
    kernel: ClassVar[Kernel] = "product"
    flattens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        units = (self.units,) if isinstance(self.units, int) else self.units
        if min(units, default=0) < 0 or sum(units) == 0:
            raise NetworkError(f"layer {self.name!r}: units must be positive, got {self.units}")

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=int(self.bias), grad_input=0, grad_weight=int(self.bias))

    def multiply_adds(self, inputs: Shape, outputs: Shape) -> int:
        return math.prod(inputs) * outputs[0]

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        del inputs, outputs
        return Saved(inputs=(0,))

    @property
    def reads_all(self) -> bool:
        return self.reads == "all"

    @property
    def window(self) -> str:
        """It reads all of its input."""
        return "dense"

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del inputs
        return (self.units_in(column),)

    def parameters(self, inputs: Shape, column: int = 0) -> tuple[Parameter, ...]:
        units = self.units_in(column)
        shape = (units, math.prod(inputs))
        weight = Parameter("weight", shape, Role.WEIGHT, std=self.weight_std)
        bias = Parameter("bias", (units,), Role.BIAS, mean=self.bias_init)
        return (weight, bias) if self.bias else (weight,)

    def stands_in(self, column: int) -> bool:
        return self.units_in(column) > 0

    def units_in(self, column: int) -> int:
        """Units of one column; 0 if the column has no part of this layer."""
        return self.units if isinstance(self.units, int) else self.units[column]

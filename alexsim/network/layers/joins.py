"""Layers that read several outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from alexsim.errors import NetworkError
from alexsim.network.layers.base import (
    Auxiliary,
    Elementwise,
    Kept,
    Layer,
    Saved,
    Shape,
    side_by_side,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Join(Layer):
    """A layer that reads several outputs."""

    @property
    def several(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(_Join):
    """Sum of two or more outputs of one shape: the shortcut of a residual network."""

    overwrites_input: ClassVar[bool] = True
    passes_grad: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=len(self.inputs) - 1, grad_input=0)

    def input_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len(set(shapes)) > 1:
            raise NetworkError(
                f"layer {self.name!r}: its inputs differ in shape: {', '.join(map(str, shapes))}"
            )
        return shapes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiply(_Join):
    """Product of two outputs; the second may have one value per channel, for all pixels: the
    excitation of a squeeze-and-excitation block (Hu et al. 2018)."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("input",)

    def __post_init__(self) -> None:
        if len(self.inputs) != 2:
            raise NetworkError(
                f"layer {self.name!r}: it multiplies two outputs, got {', '.join(self.inputs)}"
            )

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=1)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """Both; the second's gradient is that of every pixel before it is summed."""
        del inputs
        return Saved(inputs=(0, 1), passing=(Auxiliary("product", outputs, "activation"),))

    def input_shape(self, shapes: Sequence[Shape]) -> Shape:
        first, second = shapes
        if second not in (first, first[:1], (first[0], *[1] * (len(first) - 1))):
            raise NetworkError(
                f"layer {self.name!r}: {second} is neither the shape {first} of its first input"
                " nor one value per channel of it"
            )
        return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat(_Join):
    """Two or more outputs, channels behind channels.

    Where the outputs can lie in one block of memory it costs nothing: its readers read
    them (see ``alexsim.network.views``).
    """

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=0, grad_input=0)

    def input_shape(self, shapes: Sequence[Shape]) -> Shape:
        return side_by_side(self, shapes, "inputs")

"""A layer in one column of a network, its shapes resolved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from alexsim.network.layers import Auxiliary, Elementwise, Layer, Parameter, Role, Shape
from alexsim.network.views import Read

INPUT = "input"
"""Name of what the first layer reads; every column reads the same images."""


@cache
def letter(column: int) -> str:
    """Name of a column: a, b, ... z, aa, ab ..."""
    before, last = divmod(column, 26)
    return (letter(before - 1) if before else "") + chr(ord("a") + last)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One layer in one column, with its shapes resolved (batch left out); it equals itself alone,
    so that it can be a cache's key.

    ``inputs`` are its inputs, each the outputs that it is made of: one, or several that lie side
    by side (columns in order, or what a concatenation puts together).
    """

    layer: Layer
    column: int
    inputs: tuple[tuple[Read, ...], ...]
    input_shapes: tuple[Shape, ...]
    input_shape: Shape
    output_shape: Shape
    parameters_by_name: Mapping[str, Parameter]
    """Those that it has; one that shares another layer's has none."""
    read_by_name: Mapping[str, Parameter]
    """Those that it computes with."""
    auxiliary: tuple[Auxiliary, ...]
    copied: bool = False
    """One of the copies of this layer that all columns have, each for its share of the images."""
    gathers: bool = False
    """Reads one column at a time, each with its own images, instead of all side by side."""
    view: bool = False
    """A concatenation of outputs that lie side by side: nothing is done for it."""

    output: Read = field(init=False)
    """Its output, as others name it."""
    reads: tuple[Read, ...] = field(init=False)
    """Every output that it reads, input by input."""
    trained: tuple[Parameter, ...] = field(init=False)
    """Parameters with a gradient that it has."""
    learning: tuple[Parameter, ...] = field(init=False)
    """And those that it computes with."""
    parameters: int = field(init=False)
    """Values of all parameters with a gradient that it has."""
    parameters_read: int = field(init=False)
    """And of those that it computes with."""
    weight_count: int = field(init=False)
    """Those of them that are weights of multiply-adds."""
    multiply_adds: int = field(init=False)
    """Of one image's forward pass."""
    arithmetic: Elementwise = field(init=False)
    """Other arithmetic of one image."""
    input_values: int = field(init=False)
    """Values of one image that it reads."""

    def __post_init__(self) -> None:
        # Planning asks for these again and again.
        trained = tuple(p for p in self.parameters_by_name.values() if p.trained)
        learning = tuple(p for p in self.read_by_name.values() if p.trained)
        read = sum(math.prod(parameter.shape) for parameter in learning)
        sizes = [math.prod(parameter.shape) for parameter in trained]
        weights = (size for size, p in zip(sizes, trained, strict=True) if p.role == Role.WEIGHT)
        layer, shapes = self.layer, (self.input_shape, self.output_shape)
        for name, value in (
            ("output", Read(self.layer.name, self.column)),
            ("reads", tuple(read for group in self.inputs for read in group)),
            ("trained", trained),
            ("learning", learning),
            ("parameters", sum(sizes)),
            ("parameters_read", read),
            ("weight_count", sum(weights)),
            ("multiply_adds", layer.multiply_adds(*shapes)),
            ("arithmetic", layer.arithmetic(*shapes)),
            ("input_values", sum(math.prod(shape) for shape in self.input_shapes)),
        ):
            object.__setattr__(self, name, value)

    @property
    def columns_read(self) -> frozenset[int]:
        """Columns whose outputs it reads; none of the image, which every column has."""
        return frozenset(read.column for read in self.reads if read.layer != INPUT)

    @property
    def owner(self) -> str:
        """The layer that has its parameters."""
        return self.layer.shares or self.layer.name

    @property
    def joined(self) -> int:
        """Outputs that its first input is made of."""
        return 1 if self.gathers else len(self.inputs[0])

    @property
    def weight_shape(self) -> Shape:
        """Shape of its ``weight``; empty if it has none."""
        weight = self.read_by_name.get("weight")
        return weight.shape if weight else ()

    @property
    def bias_shape(self) -> Shape:
        """Shape of its ``bias``; empty if it has none."""
        bias = self.read_by_name.get("bias")
        return bias.shape if bias else ()


def square_side(crop_side: int) -> int:
    """Side of the scaled square that crops are taken from: 256 for 224, 32 for 28."""
    return round(crop_side * 256 / 224)

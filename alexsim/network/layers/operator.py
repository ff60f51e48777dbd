"""Operators of PyTorch for which there is no kernel here: counted from their shapes, not run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alexsim.network.layers.base import (
    Auxiliary,
    Elementwise,
    Kept,
    Layer,
    Parameter,
    Saved,
    Shape,
)

_NO_FLOP, _NOTHING_SAVED = Elementwise(0, 0), Saved()


class Product(NamedTuple):
    """Matrix products of one image: ``[rows, depth]`` by ``[depth, columns]``."""

    rows: int
    depth: int
    columns: int
    times: int = 1
    per_image: bool = False
    """Whether both matrices are the image's; else the second is the same for all images, whose
    rows then lie one behind the other in one product."""

    @property
    def multiply_adds(self) -> int:
        """Of all of them."""
        return math.prod(self[:4])


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator(Layer):
    """A call of an ATen operator, by what a traced module tells of it.

    Attention, products of matrices, sums over axes, reshapes ... The plan has it with its
    multiply-adds, bytes and memory; what would have to run it refuses the network.
    """

    target: str
    """As PyTorch calls it: ``scaled_dot_product_attention``."""
    shape: Shape
    """Of one image's output, in PyTorch's order of axes."""
    products: tuple[Product, ...] = ()
    """Of the forward pass; the gradients of its parameters take as many."""
    grad_products: tuple[tuple[Product, ...], ...] = ()
    """Of each input's gradient."""
    flop: Elementwise = _NO_FLOP
    """Other arithmetic of one image: forward, of each input's gradient, of its parameters'."""
    formula: bool = True
    """Whether its arithmetic is known; else its bytes alone are counted."""
    operands: tuple[Parameter, ...] = ()
    """Parameters that it reads."""
    keeps: Saved = _NOTHING_SAVED
    is_view: bool = False
    is_made: bool = False

    @property
    def several(self) -> bool:
        return len(self.inputs) > 1

    @property
    def views(self) -> bool:
        return self.is_view

    @property
    def made(self) -> bool:
        return self.is_made

    @property
    def stops_grad(self) -> bool:
        return self.target == "detach"

    @property
    def backward_reads(self) -> tuple[Kept, ...]:  # type: ignore[override]
        kept: tuple[tuple[Kept, bool], ...] = (
            ("output", self.keeps.output),
            ("input", bool(self.keeps.inputs)),
        )
        return tuple(what for what, holds in kept if holds)

    def elementwise(self) -> Elementwise:
        return Elementwise(*(flop // math.prod(self.shape) for flop in self.flop))

    def arithmetic(self, inputs: Shape, outputs: Shape) -> Elementwise:
        del inputs, outputs
        return self.flop

    def multiply_adds(self, inputs: Shape, outputs: Shape) -> int:
        del inputs, outputs
        return sum(product.multiply_adds for product in self.products)

    def grad_multiply_adds(self, inputs: Shape, outputs: Shape, index: int) -> int:
        del inputs, outputs
        products = self.grad_products[index] if self.grad_products else ()
        return sum(product.multiply_adds for product in products)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        del inputs, outputs
        return self.keeps

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del inputs, column
        return self.shape

    def parameters(self, inputs: Shape, column: int = 0) -> tuple[Parameter, ...]:
        del inputs, column
        return self.operands

    def auxiliary(self, inputs: Shape, outputs: Shape) -> tuple[Auxiliary, ...]:
        del inputs, outputs
        return self.keeps.beside

    def input_shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]

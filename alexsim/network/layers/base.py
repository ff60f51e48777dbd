"""What a layer is: the one place that says what it computes, counts, keeps and overwrites.

Plan, counts, memory, drawings and tables read it here; none of them knows the layers by type.
Shapes leave the batch out: ``(channels, height, width)`` or ``(units,)``, and are those of one
column (see ``alexsim.network.network``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple

from alexsim.errors import NetworkError

Shape = tuple[int, ...]
Pair = int | tuple[int, int]
"""One number for both axes, or one for rows and one for columns of pixels."""
Reads = Literal["own", "all"]
"""Which columns' outputs of a layer are read: this column's, or every column's."""
Kept = Literal["output", "input"]
"""What backward passes read of a forward pass, beside the layer's auxiliary buffers."""


Kernel = Literal["", "product", "norm"]
"""A kind of kernel at whose end another layer can be done, before its result is written."""


class Role(StrEnum):
    """What a parameter is; update rules treat weights unlike the others."""

    WEIGHT = "weight"
    BIAS = "bias"
    SCALE = "scale"
    SHIFT = "shift"
    RUNNING = "running"
    """A statistic that training gathers and tests use; it is not trained."""


class Parameter(NamedTuple):
    """A named tensor of a layer, and its first values: normal with ``std`` around ``mean``."""

    name: str
    shape: Shape
    role: Role
    std: float = 0.0
    mean: float = 0.0

    @property
    def trained(self) -> bool:
        """Whether it has a gradient."""
        return self.role != Role.RUNNING


class Auxiliary(NamedTuple):
    """A buffer that a forward pass leaves for the backward pass."""

    name: str
    shape: Shape
    category: Literal["norm", "mask", "activation"]
    """A ``mask`` is drawn before the forward pass; all others are computed in it."""
    per_image: bool = True
    """Whether every image has such values; else the minibatch has them once."""
    item_bytes: int = 4


class Saved(NamedTuple):
    """What eager PyTorch's autograd holds from a forward pass to the backward pass."""

    inputs: tuple[int, ...] = ()
    """Places of the inputs that it holds."""
    output: bool = False
    beside: tuple[Auxiliary, ...] = ()
    """Tensors that only the backward pass reads: indices of maxima, masks, means."""
    passing: tuple[Auxiliary, ...] = ()
    """Tensors that the backward pass makes beside the gradients, and frees when it has them."""


class Elementwise(NamedTuple):
    """FLOP per output element: one for each addition, multiplication, comparison, division, square
    root, power or exponential; multiply-adds of convolutions and products left out."""

    forward: int
    grad_input: int
    grad_weight: int = 0
    """Of gradients of the parameters that are no weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer(ABC):
    """One node of the graph: what it reads, and what it makes of that."""

    name: str
    inputs: tuple[str, ...] = ()
    """Layers whose outputs it reads; the layer written before it, if none is named."""
    shares: str = ""
    """A layer before it whose parameters are its own too; both learn them."""
    in_place: bool = False
    """Whether PyTorch writes its output over its first input (``nn.ReLU(inplace=True)``)."""
    backward_reads: ClassVar[tuple[Kept, ...]] = ()
    """What its input's gradient is computed from, beside its output's gradient, its weights and
    its auxiliary buffers."""
    flattens: ClassVar[bool] = False
    """Whether it reads each image as one row of values, channels first."""
    keeps_output: ClassVar[bool] = False
    """Whether 2012's backward pass read its output, so that nothing may overwrite that."""
    overwrites_input: ClassVar[bool] = False
    """Whether its output may take the memory of its first input, unless that is kept."""
    overwrites_grad: ClassVar[bool] = False
    """Whether its input's gradient may take the memory of its output's."""
    passes_grad: ClassVar[bool] = False
    """Whether the gradient of each of its inputs *is* that of its output."""
    sums_for_grad: ClassVar[bool] = False
    """Whether its input's gradient needs those of its parameters, which then come first."""

    kernel: ClassVar[Kernel] = ""
    """The kind of kernel that runs it, if such a kernel can end with another layer."""

    @property
    def several(self) -> bool:
        """Whether it reads two or more outputs; else it reads one."""
        return False

    @property
    def views(self) -> bool:
        """Whether its output is its input, or values of it, under another shape: no work at all."""
        return False

    @property
    def made(self) -> bool:
        """Whether it reads parameters alone, or nothing: the images before it are not read."""
        return False

    @property
    def stops_grad(self) -> bool:
        """Whether no gradient goes back through it."""
        return False

    @property
    def epilogue_of(self) -> Kernel:
        """The kind of kernel at whose end it can be done."""
        return ""

    def kept_fused(self, outputs: Shape) -> tuple[Auxiliary, ...]:
        """What it leaves for its backward pass at the end of another layer's kernel, where its
        input is never in memory; its output, if this is empty."""
        del outputs
        return ()

    @abstractmethod
    def elementwise(self) -> Elementwise:
        """Arithmetic per output element."""

    def arithmetic(self, inputs: Shape, outputs: Shape) -> Elementwise:
        """The same of one image."""
        del inputs
        return Elementwise(*(math.prod(outputs) * flop for flop in self.elementwise()))

    def multiply_adds(self, inputs: Shape, outputs: Shape) -> int:
        """Multiply-adds of one image's forward pass; its two gradients cost the same each."""
        del inputs, outputs
        return 0

    def grad_multiply_adds(self, inputs: Shape, outputs: Shape, index: int) -> int:
        """Those of the gradient of one of its inputs."""
        del index
        return self.multiply_adds(inputs, outputs)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """What PyTorch's autograd holds until the backward pass, parameters left out.

        By the formulas of PyTorch's ``tools/autograd/derivatives.yaml``, on a card.
        """
        places = range(len(self.inputs) or 1) if "input" in self.backward_reads else ()
        beside = self.auxiliary(inputs, outputs)
        return Saved(tuple(places), "output" in self.backward_reads, beside)

    def input_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Shape of what it works on, given those of its inputs.

        Raises:
            NetworkError: they do not fit together.
        """
        return shapes[0]

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        """Shape of one image's output in one column, given that of its whole input."""
        del column
        return inputs

    def parameters(self, inputs: Shape, column: int = 0) -> tuple[Parameter, ...]:
        """The parameters of one column."""
        del inputs, column
        return ()

    def auxiliary(self, inputs: Shape, outputs: Shape) -> tuple[Auxiliary, ...]:
        """What its forward pass leaves for its backward pass, beside inputs and outputs."""
        del inputs, outputs
        return ()

    def stands_in(self, column: int) -> bool:
        """Whether a column has a part of this layer."""
        del column
        return True

    @property
    def reads_all(self) -> bool:
        """Whether it reads every column's outputs; else those of its column."""
        return False

    @property
    def window(self) -> str:
        """Its window in a table or drawing, as in ``11x11/4``; empty if it has none."""
        return ""


def pair(value: Pair) -> tuple[int, int]:
    """Both axes' numbers."""
    return (value, value) if isinstance(value, int) else value


def named_window(size: Pair, stride: Pair) -> str:
    """A window in words: ``3x3/2``, ``1x7/1``."""
    (height, width), (down, right) = pair(size), pair(stride)
    return f"{height}x{width}/{down}" + (f"x{right}" if right != down else "")


def image(layer: Layer, inputs: Shape) -> Shape:
    """``inputs``, if it is a shape of images.

    Raises:
        NetworkError: it is not.
    """
    if len(inputs) != 3:
        raise NetworkError(
            f"layer {layer.name!r} reads images (channels, height, width), got shape {inputs}"
        )
    return inputs


def positive(layer: Layer, *fields: str, least: int = 1) -> None:
    """Refuse numbers below ``least``.

    Raises:
        NetworkError: names the field.
    """
    for field in fields:
        value = getattr(layer, field)
        if min(pair(value)) < least:
            bound = f"at least {least}" if least else ">= 0"
            raise NetworkError(f"layer {layer.name!r}: {field} must be {bound}, got {value}")


def side_by_side(layer: Layer, shapes: Sequence[Shape], noun: str = "columns") -> Shape:
    """Shape of outputs that lie channels behind channels, as a layer reads them.

    Raises:
        NetworkError: they differ in more than channels.
    """
    if layer.made:
        return (0,)
    if len({shape[1:] for shape in shapes}) > 1:
        raise NetworkError(f"layer {layer.name!r}: {noun} of different shapes {list(shapes)}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxCrossEntropy(Layer):
    """Softmax over every column's outputs, and the cost; it lives in column 0.

    A network may have several, each with its own share of the cost: ``weight``. The last is the
    network's answer.
    """

    weight: float = 1.0
    flattens: ClassVar[bool] = True
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=5, grad_input=2)

    def saved(self, inputs: Shape, outputs: Shape) -> Saved:
        """The logarithms of the softmax; the cost's gradient is that of these first."""
        del inputs
        return Saved(output=True, passing=(Auxiliary("dlog", outputs, "activation"),))

    def output_shape(self, inputs: Shape, column: int = 0) -> Shape:
        del column
        return (math.prod(inputs),)

    def stands_in(self, column: int) -> bool:
        return column == 0

    @property
    def reads_all(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise NetworkError(f"layer {self.name!r}: weight must be positive, got {self.weight}")

"""Layers as frozen records: shapes, parameters and what each column reads.

A network may be written in several *columns*, one per GPU, as the 2012 network was
(Krizhevsky et al. 2012, figure 2). A layer's numbers (``filters``, ``units``) are those of
one column. Shapes leave the batch out: ``(channels, height, width)`` or ``(units,)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from alexsim.errors import NetworkError

Shape = tuple[int, ...]
Reads = Literal["own", "all"]
"""Which columns' outputs of the layer before are read: this column's, or every column's."""
Kept = Literal["output", "input", "norm", "mask"]
"""What is left of a forward pass for the backward pass: the layer's output, its input, the
denominators of a response norm, the mask of dropout."""


class Elementwise(NamedTuple):
    """FLOP per output element: one for each addition, multiplication, comparison, division, square
    root, power or exponential."""

    forward: int
    grad_input: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer(ABC):
    """One node of the graph: what it reads, and what it makes of that.

    What a layer computes, counts and keeps is said here and nowhere else: plan, counts, memory,
    drawings and tables read it.
    """

    name: str
    inputs: tuple[str, ...] = ()
    """Layers whose outputs it reads; the layer written before it, if none is named."""
    several: ClassVar[bool] = False
    """Whether it reads two or more outputs; else it reads one."""
    side_by_side: ClassVar[bool] = True
    """Whether what it reads lies in one block, channels behind channels."""
    backward_reads: ClassVar[tuple[Kept, ...]] = ()
    """What its input's gradient is computed from, beside its output's gradient and its weights."""
    keeps_output: ClassVar[bool] = False
    """Whether 2012's backward pass read its output, so that nothing may overwrite that."""
    overwrites_input: ClassVar[bool] = False
    """Whether its output may take the memory of its input, unless that is kept."""
    overwrites_grad: ClassVar[bool] = False
    """Whether its input's gradient may take the memory of its output's."""
    has_bias: ClassVar[bool] = False

    @abstractmethod
    def elementwise(self) -> Elementwise:
        """Arithmetic per output element, multiply-adds of weights left out."""

    @property
    def auxiliary(self) -> tuple[Literal["norm", "mask"], ...]:
        """Buffers of its output's shape that its forward pass leaves for its backward pass."""
        return tuple(kept for kept in self.backward_reads if kept in ("norm", "mask"))

    @property
    def window(self) -> str:
        """Its kind and window in a table or drawing, as in ``11x11/4``; empty if it has none."""
        return ""

    def output_shape(self, inputs: Shape) -> Shape:
        """Shape of one image's output in one column, given that of its whole input."""
        return inputs

    def weight_shape(self, inputs: Shape) -> Shape:
        """Shape of the weights of one column; empty if there are none."""
        del inputs
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution(Layer):
    """2-D convolution with bias.

    ``rounding="ceil"`` is the original's rule: the last window may hang over the right and
    bottom edges, where the image is taken as zero. So AlexNet's 224 pixels give 55 outputs
    without a 227-pixel image. A window that would see such zeros only is left out.
    """

    filters: int
    size: int
    stride: int = 1
    padding: int = 0
    rounding: Literal["floor", "ceil"] = "ceil"
    reads: Reads = "own"
    weight_std: float = 0.01
    bias_init: float = 0.0
    groups: int = 1
    """Groups within a column, as one-GPU frameworks write the two columns of 2012."""
    has_bias: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _positive(self, "filters", "size", "stride", "groups")
        if self.padding < 0:
            raise NetworkError(f"layer {self.name!r}: padding must be >= 0, got {self.padding}")

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=0)

    @property
    def window(self) -> str:
        """Size and stride."""
        return f"{self.size}x{self.size}/{self.stride}"

    def output_shape(self, inputs: Shape) -> Shape:
        _, height, width = _image(self, inputs)
        return (self.filters, self._extent(height), self._extent(width))

    def weight_shape(self, inputs: Shape) -> Shape:
        if inputs[0] % self.groups or self.filters % self.groups:
            raise NetworkError(
                f"layer {self.name!r}: {self.groups} groups do not divide {inputs[0]} channels"
                f" and {self.filters} filters"
            )
        return (self.filters, inputs[0] // self.groups, self.size, self.size)

    def end_padding(self, extent: int) -> int:
        """Implicit zeros after the last row or column of ``extent`` pixels; >= ``padding``."""
        reach = (self._extent(extent) - 1) * self.stride + self.size
        return max(reach - extent - self.padding, self.padding)

    def _extent(self, extent: int) -> int:
        if self.size > extent + 2 * self.padding:
            raise _too_large(self, extent, f" with padding {self.padding}")
        return _windows(self, extent, self.padding)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool(Layer):
    size: int
    stride: int
    rounding: Literal["exact", "floor", "ceil"] = "exact"
    """``exact`` refuses windows that do not tile the input; ``floor`` leaves out what is left
    over; ``ceil`` lets the last window hang over the right and bottom edges, if it begins before
    them."""

    def __post_init__(self) -> None:
        _positive(self, "size", "stride")

    @property
    def window(self) -> str:
        """Size and stride."""
        return f"{self.size}x{self.size}/{self.stride}"

    def output_shape(self, inputs: Shape) -> Shape:
        channels, *extents = _image(self, inputs)
        return (channels, *(self._extent(extent) for extent in extents))

    def end_padding(self, extent: int) -> int:
        """Pixels by which the last window hangs over the end of ``extent`` pixels; < ``size``."""
        return max((self._extent(extent) - 1) * self.stride + self.size - extent, 0)

    def _extent(self, extent: int) -> int:
        left_over = (extent - self.size) % self.stride
        if self.rounding == "exact" and (extent < self.size or left_over):
            raise NetworkError(
                f"layer {self.name!r}: {self.size}x{self.size} windows at stride"
                f" {self.stride} do not tile {extent} pixels exactly"
            )
        count = _windows(self, extent)
        if count < 1:
            raise _too_large(self, extent)
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool(_Pool):
    """Largest value of each window; windows overlap where ``stride < size``.

    ``ties="all"`` sends the gradient to every input equal to the maximum, as the 2012 kernels
    did; ``"first"`` only to the first in row-major order, as PyTorch does.
    """

    ties: Literal["all", "first"] = "first"
    backward_reads: ClassVar[tuple[Kept, ...]] = ("output", "input")
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(
            forward=self.size**2 - 1,
            grad_input=2 * self.size**2 if self.ties == "all" else self.size**2 + 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool(_Pool):
    """Mean of each window (LeNet's sub-sampling, without its trained scale)."""

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=self.size**2, grad_input=self.size**2 + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResponseNorm(Layer):
    """``y = x * (k + alpha * sum of x^2 over neighbouring channels)^-beta`` (paper, 3.3).

    ``alpha`` multiplies the *sum* over ``size`` channels of this column, clipped at the ends;
    ``torch.nn.LocalResponseNorm`` multiplies the mean.
    """

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0
    backward_reads: ClassVar[tuple[Kept, ...]] = ("input", "norm")
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=self.size + 4, grad_input=self.size + 7)

    def __post_init__(self) -> None:
        _odd_window(self, self.size)

    def output_shape(self, inputs: Shape) -> Shape:
        return _image(self, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialResponseNorm(Layer):
    """As ``LocalResponseNorm``, over ``size`` x ``size`` pixels of the same map, clipped."""

    size: int = 5
    alpha: float = 4e-5
    beta: float = 0.75
    k: float = 1.0
    backward_reads: ClassVar[tuple[Kept, ...]] = ("input", "norm")
    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=self.size**2 + 4, grad_input=self.size**2 + 7)

    def __post_init__(self) -> None:
        _odd_window(self, self.size)

    def output_shape(self, inputs: Shape) -> Shape:
        return _image(self, inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReLU(Layer):
    """``max(x, 0)``."""

    backward_reads: ClassVar[tuple[Kept, ...]] = ("output",)
    keeps_output: ClassVar[bool] = True
    overwrites_input: ClassVar[bool] = True
    overwrites_grad: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=1)


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
class Dropout(Layer):
    """Zero each unit with probability ``rate`` in training; multiply by ``1 - rate`` at test.

    Training does not rescale, as in 2012 (``torch.nn.Dropout`` divides by ``1 - rate``).
    """

    rate: float = 0.5
    backward_reads: ClassVar[tuple[Kept, ...]] = ("mask",)
    overwrites_grad: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=1)

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise NetworkError(f"layer {self.name!r}: rate must be in (0, 1), got {self.rate}")


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
    has_bias: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=1, grad_input=0)

    @property
    def window(self) -> str:
        """It reads all of its input."""
        return "dense"

    def __post_init__(self) -> None:
        units = (self.units,) if isinstance(self.units, int) else self.units
        if min(units, default=0) < 0 or sum(units) == 0:
            raise NetworkError(f"layer {self.name!r}: units must be positive, got {self.units}")

    def units_in(self, column: int) -> int:
        """Units of one column; 0 if the column has no part of this layer."""
        return self.units if isinstance(self.units, int) else self.units[column]


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Layer):
    """Sum of two or more outputs of one shape: the shortcut of a residual network."""

    several: ClassVar[bool] = True
    side_by_side: ClassVar[bool] = False

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=len(self.inputs) - 1, grad_input=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concat(Layer):
    """Two or more outputs, channels behind channels."""

    several: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=0, grad_input=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftmaxCrossEntropy(Layer):
    """Softmax over every column's outputs, and the cost; it lives in column 0."""

    keeps_output: ClassVar[bool] = True

    def elementwise(self) -> Elementwise:
        return Elementwise(forward=5, grad_input=2)

    def output_shape(self, inputs: Shape) -> Shape:
        return (math.prod(inputs),)


def _windows(layer: Convolution | _Pool, extent: int, padding: int = 0) -> int:
    """Windows along ``extent`` pixels with ``padding`` on both sides.

    Rounding up adds one to those that fit, if it begins on a pixel: ``pooling_output_shape`` in
    ATen's ``Pool.h``, and ONNX's ``MaxPool``. (Caffe keeps an empty one where nothing is padded.)
    """
    whole, left_over = divmod(extent + 2 * padding - layer.size, layer.stride)
    begins = (whole + 1) * layer.stride - padding
    hangs_over = layer.rounding == "ceil" and left_over > 0 and begins < extent
    return whole + 1 + hangs_over


def _too_large(layer: Convolution | _Pool, extent: int, padded: str = "") -> NetworkError:
    return NetworkError(
        f"layer {layer.name!r}: a {layer.size}x{layer.size} window is larger than its input of"
        f" {extent} pixels{padded}"
    )


def _positive(layer: Layer, *fields: str) -> None:
    for field in fields:
        value = getattr(layer, field)
        if value < 1:
            raise NetworkError(f"layer {layer.name!r}: {field} must be at least 1, got {value}")


def _odd_window(layer: Layer, size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise NetworkError(f"layer {layer.name!r}: size must be a positive odd number, got {size}")


def _image(layer: Layer, inputs: Shape) -> Shape:
    if len(inputs) != 3:
        raise NetworkError(
            f"layer {layer.name!r} reads images (channels, height, width), got shape {inputs}"
        )
    return inputs

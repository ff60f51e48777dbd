"""A network: a chain of layers written in one or more columns, and its parts per column."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from alexsim.errors import NetworkError
from alexsim.network.layers import (
    Convolution,
    FullyConnected,
    Layer,
    Shape,
    SoftmaxCrossEntropy,
)

INPUT = "input"
"""Name of what the first layer reads; every column reads the same images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One layer in one column, with its shapes resolved (batch left out).

    ``sources`` are the columns whose output of ``source`` is read, in column order;
    ``input_shape`` is their concatenation along channels.
    """

    layer: Layer
    column: int
    source: str
    sources: tuple[int, ...]
    input_shape: Shape
    output_shape: Shape
    weight_shape: Shape
    bias_shape: Shape
    copied: bool = False
    """One of the copies that all columns have of this layer, on images of its own."""
    gathers: bool = False
    """Reads one column at a time, each with its own images, instead of all side by side."""

    @property
    def joined(self) -> int:
        """Inputs that are read side by side."""
        return 1 if self.gathers else max(1, len(self.sources))

    @property
    def parameters(self) -> int:
        """Weights and biases of this part."""
        return self.weight_count + math.prod(self.bias_shape) * bool(self.bias_shape)

    @property
    def weight_count(self) -> int:
        """Weights of this part, biases left out."""
        return math.prod(self.weight_shape) if self.weight_shape else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A chain of layers; the first reads images, the last is the softmax and its cost.

    Raises:
        NetworkError: two layers have one name, shapes do not fit, or the chain does not end
            in ``SoftmaxCrossEntropy``.
    """

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    columns: int = 1
    title: str = ""
    copied: int = 0
    """Leading layers of which every column has a copy, on images of its own (see ``hybrid``)."""
    parts: tuple[tuple[Part, ...], ...] = field(init=False, repr=False, compare=False)
    """``parts[i]``: layer ``i`` in each column that has a part of it."""

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise NetworkError(f"network {self.name!r}: columns must be >= 1, got {self.columns}")
        if len(self.input_shape) != 3 or min(self.input_shape) < 1:
            raise NetworkError(
                f"network {self.name!r}: input_shape must be (channels, height, width),"
                f" got {self.input_shape}"
            )
        names = [layer.name for layer in self.layers]
        for name in names:
            if names.count(name) > 1 or name == INPUT:
                raise NetworkError(f"network {self.name!r}: the layer name {name!r} is taken")
        costs = [isinstance(layer, SoftmaxCrossEntropy) for layer in self.layers]
        if not costs or not costs[-1] or any(costs[:-1]):
            raise NetworkError(
                f"network {self.name!r}: SoftmaxCrossEntropy must be the last layer, and only it"
            )
        object.__setattr__(self, "parts", tuple(_resolve(self)))

    @property
    def parameters(self) -> int:
        """Weights and biases of all columns; copies count once."""
        return sum(part.parameters for part in self._own_parts())

    @property
    def neurons(self) -> int:
        """Outputs of convolutions and fully connected layers, one image, input left out."""
        return sum(math.prod(part.output_shape) for part in self._own_parts() if part.weight_shape)

    def _own_parts(self) -> Iterator[Part]:
        return (p for parts in self.parts for p in parts if not (p.copied and p.column))

    @property
    def classes(self) -> int:
        """Outputs of the softmax."""
        return self.parts[-1][0].output_shape[0]

    @property
    def weighted_layers(self) -> tuple[str, ...]:
        """Names of the layers that have parameters, in order."""
        return tuple(parts[0].layer.name for parts in self.parts if parts[0].weight_shape)

    def with_head(self, classes: int) -> Network:
        """The same network with its last fully connected layer replaced by one of ``classes``.

        The new layer lives in column 0, as the 2012 network's last layer did.
        """
        last = max(i for i, layer in enumerate(self.layers) if isinstance(layer, FullyConnected))
        head = self.layers[last]
        assert isinstance(head, FullyConnected)
        units = classes if self.columns == 1 else (classes, *([0] * (self.columns - 1)))
        layers = (*self.layers[:last], replace(head, units=units), *self.layers[last + 1 :])
        return replace(self, layers=layers)


def _resolve(network: Network) -> Iterator[tuple[Part, ...]]:
    source = INPUT
    # Every column reads the whole image, so the input has no columns of its own.
    shapes: dict[int, Shape] = {}
    for index, layer in enumerate(network.layers):
        parts = tuple(_parts_of(network, index, source, shapes))
        if not parts:
            raise NetworkError(f"network {network.name!r}: no column has layer {layer.name!r}")
        yield parts
        source = layer.name
        shapes = {part.column: part.output_shape for part in parts}


def _parts_of(
    network: Network, index: int, source: str, shapes: dict[int, Shape]
) -> Iterator[Part]:
    layer = network.layers[index]
    copied, gathers = index < network.copied, 0 < index == network.copied
    for column in _columns_of(network, layer):
        if source == INPUT:
            yield replace(_part(layer, column, source, (), network.input_shape), copied=copied)
            continue
        sources = tuple(sorted(shapes)) if _reads_all(layer) and not copied else (column,)
        if set(sources) <= set(shapes):
            read = sources[:1] if gathers else sources
            input_shape = _concatenated(layer, [shapes[c] for c in read])
            part = _part(layer, column, source, sources, input_shape)
            yield replace(part, copied=copied, gathers=gathers)
        elif isinstance(layer, Convolution | FullyConnected):
            raise NetworkError(f"layer {layer.name!r}: column {column} has no {source!r} to read")


def _columns_of(network: Network, layer: Layer) -> tuple[int, ...]:
    if isinstance(layer, SoftmaxCrossEntropy):
        return (0,)
    columns = tuple(range(network.columns))
    if not isinstance(layer, FullyConnected):
        return columns
    if isinstance(layer.units, tuple) and len(layer.units) != network.columns:
        raise NetworkError(
            f"layer {layer.name!r}: units {layer.units} must name {network.columns} column(s)"
        )
    return tuple(column for column in columns if layer.units_in(column))


def _reads_all(layer: Layer) -> bool:
    if isinstance(layer, Convolution | FullyConnected):
        return layer.reads == "all"
    return isinstance(layer, SoftmaxCrossEntropy)


def _part(
    layer: Layer, column: int, source: str, sources: tuple[int, ...], input_shape: Shape
) -> Part:
    if isinstance(layer, FullyConnected):
        units = layer.units_in(column)
        output_shape: Shape = (units,)
        weight_shape: Shape = (units, math.prod(input_shape))
    else:
        output_shape = layer.output_shape(input_shape)
        weight_shape = layer.weight_shape(input_shape)
    return Part(
        layer=layer,
        column=column,
        source=source,
        sources=sources,
        input_shape=input_shape,
        output_shape=output_shape,
        weight_shape=weight_shape,
        bias_shape=output_shape[:1] if layer.has_bias else (),
    )


def _concatenated(layer: Layer, shapes: list[Shape]) -> Shape:
    if len({shape[1:] for shape in shapes}) > 1:
        raise NetworkError(f"layer {layer.name!r}: columns of different shapes {shapes}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def square_side(crop_side: int) -> int:
    """Side of the scaled square that crops are taken from: 256 for 224, 32 for 28."""
    return round(crop_side * 256 / 224)

"""A network: a graph of layers written in one or more columns, and its parts per column."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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


class Read(NamedTuple):
    """An output that a part reads: a layer's, in one column."""

    layer: str
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One layer in one column, with its shapes resolved (batch left out).

    ``reads`` are the outputs that it reads, layer by layer in the order of its inputs, columns in
    order; ``input_shapes`` is the shape of each input, columns side by side.
    """

    layer: Layer
    column: int
    reads: tuple[Read, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    weight_shape: Shape
    bias_shape: Shape
    copied: bool = False
    """One of the copies that all columns have of this layer, on images of its own."""
    gathers: bool = False
    """Reads one column at a time, each with its own images, instead of all side by side."""

    @property
    def input_shape(self) -> Shape:
        """Shape of what it works on: its inputs side by side, or the one that all have."""
        first, *others = self.input_shapes
        if not (self.layer.side_by_side and others):
            return first
        return (sum(shape[0] for shape in self.input_shapes), *first[1:])

    @property
    def input_values(self) -> int:
        """Values of one image that it reads."""
        return sum(math.prod(shape) for shape in self.input_shapes)

    @property
    def columns_read(self) -> frozenset[int]:
        """Columns whose outputs it reads; none of the image, which every column has."""
        return frozenset(read.column for read in self.reads if read.layer != INPUT)

    @property
    def joined(self) -> int:
        """Inputs that are read side by side."""
        return len(self.reads) if self.layer.side_by_side and not self.gathers else 1

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
    """A graph of layers in an order in which each follows what it reads.

    The first reads images; the last is the softmax and its cost.

    Raises:
        NetworkError: two layers have one name, one reads what does not stand before it, nothing
            reads its output, shapes do not fit, or the last is not ``SoftmaxCrossEntropy``.
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
    _parts_by_name: Mapping[str, tuple[Part, ...]] = field(init=False, repr=False, compare=False)
    readers: Mapping[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)
    """Of each layer, and of the images, the layers that read its output, in order."""

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
        readers: dict[str, tuple[str, ...]] = dict.fromkeys((INPUT, *names), ())
        for index, layer in enumerate(self.layers):
            for name in dict.fromkeys(self.inputs_of(index)):
                if name in readers:
                    readers[name] = (*readers[name], layer.name)
        object.__setattr__(self, "readers", readers)
        object.__setattr__(self, "parts", tuple(_resolve(self)))
        by_name = {parts[0].layer.name: parts for parts in self.parts}
        object.__setattr__(self, "_parts_by_name", by_name)

    def inputs_of(self, index: int) -> tuple[str, ...]:
        """Names of what a layer reads: as it says, or the layer before it, or the images."""
        before = self.layers[index - 1].name if index else INPUT
        return self.layers[index].inputs or (before,)

    def parts_of(self, layer: str) -> tuple[Part, ...]:
        """A layer in each column that has a part of it."""
        return self._parts_by_name[layer]

    def part_of(self, layer: str, column: int) -> Part:
        """A layer in one column."""
        return next(part for part in self._parts_by_name[layer] if part.column == column)

    @property
    def is_chain(self) -> bool:
        """Whether every layer reads the one before it, and that alone."""
        before = (INPUT, *(layer.name for layer in self.layers[:-1]))
        return all(self.inputs_of(i) == (name,) for i, name in enumerate(before))

    def reaches(self, names: Collection[str]) -> frozenset[str]:
        """These layers, and all whose outputs depend on theirs."""
        reached = set(names)
        for index, layer in enumerate(self.layers):
            if reached.intersection(self.inputs_of(index)):
                reached.add(layer.name)
        return frozenset(reached)

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
    # Every column reads the whole image, so the input has no columns of its own.
    shapes: dict[str, dict[int, Shape]] = {
        INPUT: dict.fromkeys(range(network.columns), network.input_shape)
    }
    for index, layer in enumerate(network.layers):
        inputs = network.inputs_of(index)
        for name in inputs:
            if name not in shapes:
                raise NetworkError(f"layer {layer.name!r}: no layer {name!r} stands before it")
        if layer.several != (len(inputs) > 1) or len(set(inputs)) < len(inputs):
            count = "two or more different outputs" if layer.several else "one output"
            raise NetworkError(f"layer {layer.name!r}: it reads {count}, got {', '.join(inputs)}")
        parts = tuple(_parts_of(network, index, inputs, shapes))
        if not parts:
            raise NetworkError(f"network {network.name!r}: no column has layer {layer.name!r}")
        yield parts
        shapes[layer.name] = {part.column: part.output_shape for part in parts}
    for layer in network.layers[:-1]:
        if not network.readers[layer.name]:
            raise NetworkError(f"network {network.name!r}: no layer reads {layer.name!r}")


def _parts_of(
    network: Network, index: int, inputs: tuple[str, ...], shapes: Mapping[str, dict[int, Shape]]
) -> Iterator[Part]:
    layer = network.layers[index]
    copied, gathers = index < network.copied, 0 < index == network.copied
    for column in _columns_of(network, layer):
        everywhere = _reads_all(layer) and not copied
        reads = tuple(
            Read(name, source)
            for name in inputs
            for source in (sorted(shapes[name]) if everywhere and name != INPUT else (column,))
        )
        if all(source in shapes[name] for name, source in reads):
            side_by_side = [
                _concatenated(layer, [shapes[r.layer][r.column] for r in reads if r.layer == name])
                if not gathers
                else shapes[name][min(shapes[name])]
                for name in inputs
            ]
            part = _part(layer, column, reads, tuple(side_by_side))
            yield replace(part, copied=copied, gathers=gathers)
        elif isinstance(layer, Convolution | FullyConnected):
            lacking = next(name for name, source in reads if source not in shapes[name])
            raise NetworkError(f"layer {layer.name!r}: column {column} has no {lacking!r} to read")


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
    layer: Layer, column: int, reads: tuple[Read, ...], input_shapes: tuple[Shape, ...]
) -> Part:
    input_shape = (
        _concatenated(layer, list(input_shapes)) if layer.side_by_side else input_shapes[0]
    )
    if not layer.side_by_side and len(set(input_shapes)) > 1:
        raise NetworkError(f"layer {layer.name!r}: its inputs differ in shape: {input_shapes}")
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
        reads=reads,
        input_shapes=input_shapes,
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

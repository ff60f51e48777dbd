"""A network: a graph of layers written in one or more columns, and its parts per column."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from alexsim.errors import NetworkError
from alexsim.network.layers import (
    Concat,
    Convolution,
    FullyConnected,
    Layer,
    Operator,
    Shape,
    SoftmaxCrossEntropy,
)
from alexsim.network.layers.base import side_by_side
from alexsim.network.part import INPUT, Part
from alexsim.network.views import Places, Read


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A graph of layers in an order in which each follows what it reads.

    The first reads images; the last is the softmax and its cost. Others may stand before it, each
    with its share of the cost.

    Raises:
        NetworkError: two layers have one name, a layer reads what does not stand before it, nothing
            reads a layer's output, shapes do not fit, or the last is not ``SoftmaxCrossEntropy``.
    """

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    columns: int = 1
    title: str = ""
    module: Any = field(default=None, repr=False, compare=False)
    """The PyTorch module that it was made of, which has its first weights."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Of its parameters, ``conv1.weight``, the keys in that module's ``state_dict``."""
    frozen: frozenset[str] = frozenset()
    """Layers that do not learn unless a plan says so."""
    copied: int = 0
    """Leading layers of which every column has a copy, for its share of the images (``hybrid``)."""
    copies_concats: bool = field(default=False, repr=False)
    """Whether every concatenation is a copy, as PyTorch's is, instead of one block of memory."""
    parts: tuple[tuple[Part, ...], ...] = field(init=False, repr=False, compare=False)
    """``parts[i]``: layer ``i`` in each column that has a part of it."""
    _parts_by_name: Mapping[str, tuple[Part, ...]] = field(init=False, repr=False, compare=False)
    readers: Mapping[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)
    """Of each layer, and of the images, the layers that read its output, in order."""

    def __post_init__(self) -> None:
        if self.columns < 1:
            raise NetworkError(f"network {self.name!r}: columns must be >= 1, got {self.columns}")
        if not self.input_shape or min(self.input_shape) < 1:
            raise NetworkError(
                f"network {self.name!r}: input_shape must be (channels, height, width), or another"
                f" shape of positive numbers, got {self.input_shape}"
            )
        names = [layer.name for layer in self.layers]
        taken = {INPUT}
        for name in names:
            if name in taken:
                raise NetworkError(f"network {self.name!r}: the layer name {name!r} is taken")
            taken.add(name)
        if not self.layers or not isinstance(self.layers[-1], SoftmaxCrossEntropy):
            raise NetworkError(f"network {self.name!r}: the last layer must be SoftmaxCrossEntropy")
        readers: dict[str, tuple[str, ...]] = dict.fromkeys((INPUT, *names), ())
        for index, layer in enumerate(self.layers):
            for name in dict.fromkeys(self.inputs_of(index)):
                if name in readers:
                    readers[name] = (*readers[name], layer.name)
        for layer in reversed(self.layers):
            if layer.views and layer.name in readers:
                # What reads a view reads what it is a view of.
                (read,) = self.inputs_of(names.index(layer.name))
                others = (name for name in readers[read] if name != layer.name)
                readers[read] = tuple(dict.fromkeys((*others, *readers[layer.name])))
        object.__setattr__(self, "readers", readers)
        object.__setattr__(self, "parts", tuple(_resolve(self)))
        if self.copied and not self.is_chain:
            raise NetworkError(f"network {self.name!r}: only a chain of layers can be copied")
        object.__setattr__(self, "_parts_by_name", {p[0].layer.name: p for p in self.parts})

    def __hash__(self) -> int:
        """Cheap, as plans are remembered by their networks: these are then compared."""
        return hash((self.name, self.input_shape, len(self.layers)))

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
    def not_run(self) -> tuple[Operator, ...]:
        """Layers that are only counted: there is no kernel for them here."""
        return tuple(layer for layer in self.layers if isinstance(layer, Operator))

    @property
    def is_chain(self) -> bool:
        """Whether every layer reads the layer before it, and that alone."""
        before = (INPUT, *(layer.name for layer in self.layers[:-1]))
        return all(self.inputs_of(i) == (name,) for i, name in enumerate(before))

    @property
    def heads(self) -> tuple[SoftmaxCrossEntropy, ...]:
        """The layers that have a cost; the last is the network's answer."""
        return tuple(layer for layer in self.layers if isinstance(layer, SoftmaxCrossEntropy))

    @property
    def answering(self) -> frozenset[str]:
        """The last layer, and all that its output depends on."""
        needed = {self.layers[-1].name}
        for index in range(len(self.layers) - 1, -1, -1):
            if self.layers[index].name in needed:
                needed.update(self.inputs_of(index))
        return frozenset(needed - {INPUT})

    def reaches(self, names: Collection[str]) -> frozenset[str]:
        """These layers, and all whose outputs depend on theirs."""
        reached = set(names)
        for index, layer in enumerate(self.layers):
            if reached.intersection(self.inputs_of(index)) and not layer.stops_grad:
                reached.add(layer.name)
        return frozenset(reached)

    def using(self, owners: Collection[str]) -> frozenset[str]:
        """Layers that compute with the parameters of these: they, and those that share theirs."""
        return frozenset(la.name for la in self.layers if (la.shares or la.name) in owners)

    @property
    def parameters(self) -> int:
        """Weights and biases of all columns; copies count once."""
        return sum(part.parameters for part in self._distinct_parts())

    @property
    def neurons(self) -> int:
        """Outputs of convolutions and fully connected layers, one image, input left out."""
        return sum(math.prod(p.output_shape) for p in self._distinct_parts() if p.weight_count)

    def _distinct_parts(self) -> Iterator[Part]:
        return (p for parts in self.parts for p in parts if not (p.copied and p.column))

    @property
    def classes(self) -> int:
        """Outputs of the softmax."""
        return self.parts[-1][0].output_shape[0]

    @property
    def weighted_layers(self) -> tuple[str, ...]:
        """Names of the layers that have parameters to train, in order."""
        return tuple(parts[0].layer.name for parts in self.parts if parts[0].trained)

    def with_head(self, classes: int) -> Network:
        """The same network with the last weighted layer of every head made one of ``classes``.

        The new layer lives in column 0, as the 2012 network's last layer did.

        Raises:
            NetworkError: a head has no such layer.
        """
        units = classes if self.columns == 1 else (classes, *([0] * (self.columns - 1)))
        replaced = {
            layer.name: replace(layer, units=units)
            if isinstance(layer, FullyConnected)
            else replace(layer, filters=classes)
            for layer in self.last_layers()
        }
        return replace(self, layers=tuple(replaced.get(la.name, la) for la in self.layers))

    def last_layers(self) -> tuple[FullyConnected | Convolution, ...]:
        """Of each head, the last fully connected layer before it, or convolution of one pixel.

        Raises:
            NetworkError: a head has none.
        """
        places = {layer.name: index for index, layer in enumerate(self.layers)}
        projections = []
        for head in self.heads:
            layer: Layer = head
            while not (
                isinstance(layer, FullyConnected)
                # SqueezeNet's: every pixel has its own scores, of which the mean is taken.
                or (isinstance(layer, Convolution) and layer.size == 1 and self.columns == 1)
            ):
                before = self.inputs_of(places[layer.name])
                if len(before) > 1 or before[0] == INPUT:
                    raise NetworkError(
                        f"network {self.name!r}: no fully connected layer leads to {head.name!r}"
                    )
                layer = self.layers[places[before[0]]]
            projections.append(layer)
        return tuple(projections)


def _resolve(network: Network) -> Iterator[tuple[Part, ...]]:
    # Every column reads the whole image, so the input is the same in each.
    shapes = {INPUT: dict.fromkeys(range(network.columns), network.input_shape)}
    views = _views(network)
    heads = {head.name for head in network.heads}
    made_of: dict[Read, tuple[Read, ...]] = {}
    owners: dict[tuple[str, int], Part] = {}
    for index, layer in enumerate(network.layers):
        inputs = network.inputs_of(index)
        for name in inputs:
            if name not in shapes:
                raise NetworkError(f"layer {layer.name!r}: no layer {name!r} stands before it")
            if name in heads:
                raise NetworkError(f"layer {layer.name!r} reads the cost {name!r}: nothing can")
        if layer.several != (len(inputs) > 1) or len(set(inputs)) < len(inputs):
            count = "two or more different outputs" if layer.several else "one output"
            raise NetworkError(f"layer {layer.name!r}: it reads {count}, got {', '.join(inputs)}")
        units = layer.units if isinstance(layer, FullyConnected) else 0
        if isinstance(units, tuple) and len(units) != network.columns:
            raise NetworkError(
                f"layer {layer.name!r}: units {units} must name {network.columns} column(s)"
            )
        parts = tuple(_parts_of(network, index, inputs, shapes, made_of))
        if not parts:
            raise NetworkError(f"network {network.name!r}: no column has layer {layer.name!r}")
        if layer.name in views or layer.views:
            parts = tuple(replace(part, view=True) for part in parts)
            made_of.update({Read(layer.name, part.column): part.reads for part in parts})
        if layer.shares:
            _check_shared(parts, owners)
        owners |= {(part.layer.name, part.column): part for part in parts}
        yield parts
        shapes[layer.name] = {part.column: part.output_shape for part in parts}
    for layer in network.layers:
        if not (network.readers[layer.name] or isinstance(layer, SoftmaxCrossEntropy)):
            raise NetworkError(f"network {network.name!r}: no layer reads {layer.name!r}")


def _check_shared(parts: tuple[Part, ...], owners: Mapping[tuple[str, int], Part]) -> None:
    """Refuse a layer that cannot have the parameters of another.

    Raises:
        NetworkError: that does not stand before it, is of another kind or shape, or has none.
    """
    for part in parts:
        layer, owner = part.layer, owners.get((part.layer.shares, part.column))
        if owner is None or not owner.parameters_by_name:
            raise NetworkError(
                f"layer {layer.name!r}: no layer {layer.shares!r} with parameters stands before it"
            )
        if type(owner.layer) is not type(layer) or owner.read_by_name != part.read_by_name:
            raise NetworkError(
                f"layer {layer.name!r} cannot share the parameters of {layer.shares!r}: they are of"
                " another kind or shape"
            )
        if layer.sums_for_grad:
            raise NetworkError(f"layer {layer.name!r}: batch norms cannot share their parameters")


def _views(network: Network) -> frozenset[str]:
    """Names of the concatenations whose inputs lie side by side."""
    concats = {
        layer.name: network.inputs_of(index)
        for index, layer in enumerate(network.layers)
        if isinstance(layer, Concat)
    }
    if not concats or network.copies_concats:
        return frozenset()
    places = Places()
    for index, layer in enumerate(network.layers):
        if layer.reads_all and network.columns > 1:
            # What is read of all columns has its block already.
            (name,) = network.inputs_of(index)
            concats.pop(name, None)
            places.take([Read(name, c) for c in range(network.columns)], lambda _: True)
    views: set[str] = set()
    shown_again = {layer.name for layer in network.layers if layer.views}

    def outputs(name: str, column: int) -> tuple[Read, ...]:
        if name not in concats:
            return (Read(name, column),)
        return tuple(read for inner in concats[name] for read in outputs(inner, column))

    for name in reversed(concats):
        # One rule for all columns, so that a layer is the same thing in each of them.
        if all(
            places.take(outputs(name, column), lambda read: read.layer not in {INPUT, *shown_again})
            for column in range(network.columns)
        ):
            views.add(name)
    return frozenset(views)


def _parts_of(
    network: Network,
    index: int,
    inputs: tuple[str, ...],
    shapes: Mapping[str, dict[int, Shape]],
    made_of: Mapping[Read, tuple[Read, ...]],
) -> Iterator[Part]:
    layer = network.layers[index]
    copied, gathers = index < network.copied, 0 < index == network.copied
    for column in filter(layer.stands_in, range(network.columns)):
        everywhere = layer.reads_all and not copied
        read = {
            name: sorted(shapes[name]) if everywhere and name != INPUT else [column]
            for name in inputs
        }
        lacking = next((n for n, columns in read.items() if not set(columns) <= set(shapes[n])), "")
        if lacking and isinstance(layer, Convolution | FullyConnected):
            raise NetworkError(f"layer {layer.name!r}: column {column} has no {lacking!r} to read")
        if lacking:
            continue
        input_shapes = tuple(
            shapes[name][columns[0]]
            if gathers
            else side_by_side(layer, [shapes[name][c] for c in columns])
            for name, columns in read.items()
        )
        input_shape = layer.input_shape(input_shapes)
        output_shape = layer.output_shape(input_shape, column)
        parameters = {p.name: p for p in layer.parameters(input_shape, column)}
        yield Part(
            layer=layer,
            column=column,
            inputs=tuple(
                tuple(
                    leaf for c in columns for leaf in made_of.get(Read(name, c), (Read(name, c),))
                )
                for name, columns in read.items()
            ),
            input_shapes=input_shapes,
            input_shape=input_shape,
            output_shape=output_shape,
            parameters_by_name={} if layer.shares else parameters,
            read_by_name=parameters,
            auxiliary=layer.auxiliary(input_shape, output_shape),
            copied=copied,
            gathers=gathers,
        )

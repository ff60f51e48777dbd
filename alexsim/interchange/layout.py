"""From weights by column to one ``state_dict``, as a network without columns has it, and back.

A plain layer holds its columns one after the other in dimension 0; what reads its own column
becomes a group. Dropout is the one place where numbers change: alexsim leaves what stays as it is
and multiplies by ``1 - rate`` at test (Krizhevsky et al. 2012, section 4.2), others divide by
``1 - rate`` in training and do nothing at test. Weights behind a dropout are therefore multiplied
by ``1 - rate`` on the way out: both functions are then the same, in training and at test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from alexsim.errors import InterchangeError, NetworkError
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Pool,
    ReLU,
    Shape,
    Sigmoid,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    Tanh,
)
from alexsim.network.network import Network
from alexsim.network.part import Part, letter

Tensor = torch.Tensor
State = Mapping[str, Tensor]

KINDS = ("weight", "bias")
_PLAIN = (
    Convolution, FullyConnected, MaxPool, AveragePool, LocalResponseNorm, SpatialResponseNorm,
    ReLU, Sigmoid, Tanh, Dropout, SoftmaxCrossEntropy,
)  # fmt: skip
_SCALES_PASS = ReLU | MaxPool | AveragePool | Dropout
"""Layers whose output scales as their input does."""


def to_plain(network: Network, state: State) -> dict[str, Tensor]:
    """Weights by column (``conv1.a.weight``) as a plain ``state_dict`` (``conv1.weight``).

    Raises:
        InterchangeError: a name is missing or unknown, or a shape is another.
        NetworkError: the network has no plain form.
    """
    shapes = plain_shapes(network)
    factors = dropout_factors(network)
    check(state, dict(_expected(network)), network)
    plain = {}
    for parts in weighted(network):
        layer = parts[0].layer.name
        for kind in KINDS:
            name = f"{layer}.{kind}"
            whole = torch.cat([state[_name(part, kind)] for part in parts]).view(shapes[name])
            scaled = kind == "weight" and layer in factors
            plain[name] = whole * factors[layer] if scaled else whole
    return plain


def from_plain(network: Network, plain: State) -> dict[str, Tensor]:
    """The reverse of ``to_plain``: a plain ``state_dict`` as weights by column.

    To the bit where dropout's rate is 0.5: halves are exact (but for numbers below 1e-37).

    Raises:
        InterchangeError: a name is missing or unknown, or a shape is another.
        NetworkError: the network has no plain form.
    """
    check(plain, plain_shapes(network), network)
    factors = dropout_factors(network)
    state = {}
    for parts in weighted(network):
        layer = parts[0].layer.name
        for kind in KINDS:
            whole = plain[f"{layer}.{kind}"]
            if kind == "weight" and layer in factors:
                whole = whole / factors[layer]
            shapes = [_shape(part, kind) for part in parts]
            columns = torch.split(whole, [shape[0] for shape in shapes])
            for part, shape, column in zip(parts, shapes, columns, strict=True):
                state[_name(part, kind)] = column.reshape(shape).clone()
    return state


def check(tensors: State, expected: Mapping[str, Shape], network: Network) -> None:
    """Refuse tensors that are not those of the network, naming the first that is not.

    Raises:
        InterchangeError: a name is missing or unknown, or a shape is another.
    """
    where = f"does not fit {network.name}"
    for name, shape in expected.items():
        if name not in tensors:
            raise InterchangeError(f"{where}: no {name}, of shape {shape} (has: {_some(tensors)})")
        if tuple(tensors[name].shape) != shape:
            given = tuple(tensors[name].shape)
            raise InterchangeError(f"{where}: {name} has shape {given}, must have {shape}")
    if unknown := tensors.keys() - expected.keys():
        raise InterchangeError(f"{where}, which has no {min(unknown)}")


def _some(tensors: State) -> str:
    names = sorted(tensors)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "nothing"


def plain_shapes(network: Network) -> dict[str, Shape]:
    """Names and shapes of the plain ``state_dict``, in order.

    Raises:
        NetworkError: the network has no plain form.
    """
    return {
        f"{parts[0].layer.name}.{kind}": plain_shape(network, parts, kind)
        for parts in weighted(network)
        for kind in KINDS
    }


def plain_shape(network: Network, parts: tuple[Part, ...], kind: str) -> Shape:
    """Shape of a layer's weights (or biases) over all its columns."""
    plain_groups(parts)  # refuses what are no groups
    units = sum(_shape(part, kind)[0] for part in parts)
    # A grouped product is a convolution over one pixel.
    pixel = (1,) if kind == "weight" and is_grouped_product(network, parts) else ()
    return (units, *_shape(parts[0], kind)[1:], *pixel)


def weighted(network: Network) -> tuple[tuple[Part, ...], ...]:
    """The layers that have weights, by column.

    Raises:
        NetworkError: a layer is of an unknown kind, or columns begin with a layer without weights,
            which each applies to the same images.
    """
    for layer in network.layers:
        # A class made from another computes something else: as that other, it would be wrong.
        if type(layer) not in _PLAIN:
            raise unknown_kind(layer, "a file of another format")
        if layer.inputs or not _is_plain(layer):
            raise NetworkError(
                f"layer {layer.name!r}: networks that are no chain of AlexNet's layers are not"
                " written in other formats, nor read from them"
            )
    first = network.parts[0]
    if len(first) > 1 and not first[0].weight_shape:
        raise NetworkError(
            f"layer {first[0].layer.name!r}: columns that begin without weights have no plain form"
        )
    return tuple(parts for parts in network.parts if parts[0].weight_shape)


def unknown_kind(layer: Layer, holder: str) -> NetworkError:
    """The error for a layer of a kind that ``holder``, such as ``a Caffe file``, cannot hold."""
    known = ", ".join(kind.__name__ for kind in _PLAIN)
    return NetworkError(
        f"layer {layer.name!r}: {holder} holds no {type(layer).__name__}, only {known}"
    )


def _is_plain(layer: Layer) -> bool:
    """Whether formats of AlexNet's time know such a layer."""
    if isinstance(layer, Dropout):
        return not (layer.rescaled or layer.whole_images)
    if isinstance(layer, Convolution):
        square = all(isinstance(v, int) for v in (layer.size, layer.stride, layer.padding))
        return square and layer.bias and layer.dilation == 1
    if isinstance(layer, Pool):
        return isinstance(layer.size, int) and isinstance(layer.stride, int) and not layer.padding
    return True


def plain_groups(parts: tuple[Part, ...]) -> int:
    """Groups of a layer once its columns are joined: 1 for all but grouped convolutions.

    Raises:
        NetworkError: its columns cannot be written as groups.
    """
    layer, columns = parts[0].layer, len(parts)
    if not isinstance(layer, Convolution):
        return 1
    if columns > 1 and len(parts[0].columns_read) == 1:
        return layer.groups * columns
    if columns > 1 and layer.groups > 1:
        raise NetworkError(f"layer {layer.name!r}: groups over all columns are no plain groups")
    return layer.groups


def is_grouped_product(network: Network, parts: tuple[Part, ...]) -> bool:
    """Whether every column of a fully connected layer has its own units from its own inputs.

    Raises:
        NetworkError: it has, but its columns differ in size, or a column is missing.
    """
    layer, first = parts[0].layer, parts[0]
    before = next((len(ps) for ps in network.parts if ps[0].layer.name == first.reads[0].layer), 1)
    if not isinstance(layer, FullyConnected) or len(first.columns_read) in (0, before):
        return False
    if len({part.weight_shape for part in parts}) > 1 or len(parts) != before:
        raise NetworkError(
            f"layer {layer.name!r}: columns of different sizes that read their own are no plain"
            " groups"
        )
    return True


def dropout_factors(network: Network) -> dict[str, float]:
    """What the weights of a layer are multiplied by in a plain ``state_dict``, where not by 1.

    Raises:
        NetworkError: something between a dropout and the next weights changes with the scale.
    """
    factors: dict[str, float] = {}
    scale, dropout = 1.0, ""
    for layer in network.layers:
        if isinstance(layer, Dropout):
            scale, dropout = scale * (1 - layer.rate), layer.name
        elif isinstance(layer, Convolution | FullyConnected):
            if scale != 1:
                factors[layer.name] = scale
            scale = 1.0
        elif scale != 1 and not isinstance(layer, _SCALES_PASS):
            raise NetworkError(
                f"layer {dropout!r}: its scale at test cannot pass {layer.name!r} to become part of"
                " weights"
            )
    return factors


def sized(network: Network, plain_or_state: State) -> Network:
    """The network with as many classes as these weights have.

    Raises:
        InterchangeError: its last weighted layer is not among them.
    """
    last = network.weighted_layers[-1]
    biases = [
        tensor for name, tensor in plain_or_state.items()
        if name.startswith(f"{last}.") and name.endswith(".bias")
    ]  # fmt: skip
    if not biases:
        raise InterchangeError(f"does not fit {network.name}: no biases of {last}")
    return with_classes(network, sum(math.prod(tensor.shape) for tensor in biases))


def with_classes(network: Network, classes: int) -> Network:
    """The network with so many classes, if its last weighted layer is fully connected."""
    last = weighted(network)[-1][0].layer
    if classes == network.classes or not isinstance(last, FullyConnected):
        return network
    return network.with_head(classes)


def _expected(network: Network) -> Iterator[tuple[str, Shape]]:
    for parts in weighted(network):
        for part in parts:
            for kind in KINDS:
                yield _name(part, kind), _shape(part, kind)


def _shape(part: Part, kind: str) -> Shape:
    return part.weight_shape if kind == "weight" else part.bias_shape


def _name(part: Part, kind: str) -> str:
    return f"{part.layer.name}.{letter(part.column)}.{kind}"

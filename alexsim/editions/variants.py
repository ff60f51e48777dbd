"""Ablations as suffixes of a network's name: ``alexnet-paper+no-lrn+tanh``.

Each is a change that the paper measured (sections 3.1 to 3.5 and 4.2) or that undoes one of its
choices; what results is planned, simulated and trained like any other network.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from alexsim.errors import NetworkError, known_as, unknown
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    SpatialResponseNorm,
    Tanh,
)
from alexsim.network.network import Network
from alexsim.network.part import INPUT

Layers = tuple[Layer, ...]
_HEAD = re.compile(r"([1-9][0-9]{0,5})-classes")
"""``+10-classes``: another last projection, as for fine-tuning, on the first GPU."""


def varied(network: Network, variants: tuple[str, ...]) -> Network:
    """The network with every named change, in order.

    Raises:
        NetworkError: a variant is unknown, changes nothing, or its layers do not fit.
    """
    for name in variants:
        if head := _HEAD.fullmatch(name.casefold()):
            network = replace(network.with_head(int(head[1])), name=f"{network.name}+{head[0]}")
            continue
        if (written := known_as(name, VARIANTS)) is None:
            raise NetworkError(unknown("variant", name, (*VARIANTS, "N-classes"), mark="+"))
        name = written
        description, change = VARIANTS[name]
        layers = change(network.layers)
        if layers == network.layers:
            raise NetworkError(f"+{name} changes nothing in {network.name}: {description}")
        network = replace(network, name=f"{network.name}+{name}", layers=layers)
    return network


def without_head(name: str) -> str:
    """A network's name without the suffix that sets its classes."""
    base, *variants = name.split("+")
    return "+".join([base, *(variant for variant in variants if not _HEAD.fullmatch(variant))])


def _no_lrn(layers: Layers) -> Layers:
    return _without(layers, LocalResponseNorm, SpatialResponseNorm)


def _no_dropout(layers: Layers) -> Layers:
    return _without(layers, Dropout)


def _without(layers: Layers, *kinds: type[Layer]) -> Layers:
    """Without layers of these kinds: their readers read what they read."""
    kept: list[Layer] = []
    instead: dict[str, str] = {}
    before = INPUT
    for layer in layers:
        reads = tuple(instead.get(name, name) for name in layer.inputs or (before,))
        before = layer.name
        if isinstance(layer, kinds):
            instead[layer.name] = reads[0]
            continue
        last = kept[-1].name if kept else INPUT
        kept.append(replace(layer, inputs=() if reads == (last,) else reads))
    return tuple(kept)


def _apart(layers: Layers) -> Layers:
    """Windows of 2 x 2 at stride 2: outputs as large as of 3 x 3 at stride 2 (section 3.4)."""
    return tuple(
        replace(layer, size=2, stride=2, padding=0, rounding="floor")
        if isinstance(layer, MaxPool) and (layer.size, layer.stride) == (3, 2)
        else layer
        for layer in layers
    )


def _no_exchange(layers: Layers) -> Layers:
    """Only the last layer with weights, whose classes compete, reads all columns."""
    weighted = [
        i for i, layer in enumerate(layers) if isinstance(layer, Convolution | FullyConnected)
    ]
    return tuple(
        replace(layer, reads="own")
        if isinstance(layer, Convolution | FullyConnected) and index != weighted[-1]
        else layer
        for index, layer in enumerate(layers)
    )


def _instead_of_relu(kind: Callable[..., Layer], word: str) -> Callable[[Layers], Layers]:
    def change(layers: Layers) -> Layers:
        names = {
            layer.name: layer.name.replace("relu", word)
            for layer in layers
            if isinstance(layer, ReLU)
        }
        inputs = [tuple(names.get(name, name) for name in layer.inputs) for layer in layers]
        return tuple(
            kind(name=names[layer.name], inputs=reads)
            if isinstance(layer, ReLU)
            else replace(layer, inputs=reads)
            for layer, reads in zip(layers, inputs, strict=True)
        )

    return change


VARIANTS: dict[str, tuple[str, Callable[[Layers], Layers]]] = {
    "no-lrn": ("no response norms (section 3.3)", _no_lrn),
    "pool2": ("pools of 2 x 2 that do not overlap (section 3.4)", _apart),
    "no-exchange": ("columns meet in the last layer only (section 3.2)", _no_exchange),
    "no-dropout": ("no dropout (section 4.2)", _no_dropout),
    "tanh": ("tanh for ReLU (section 3.1, figure 1)", _instead_of_relu(Tanh, "tanh")),
    "sigmoid": ("sigmoid for ReLU", _instead_of_relu(Sigmoid, "sigmoid")),
}

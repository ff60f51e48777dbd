"""The hybrid partition: convolutions copied, fully connected layers split (Krizhevsky 2014, "One
weird trick for parallelizing convolutional neural networks", section 4)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from alexsim.errors import NetworkError
from alexsim.network.layers import FullyConnected
from alexsim.network.network import Network


@lru_cache(maxsize=64)
def hybrid(network: Network, devices: int) -> Network:
    """``network`` in one column per device: a copy of every layer before the first fully connected
    layer, and a share of the units of each from there on.

    Raises:
        NetworkError: it is written in several columns, has nothing to copy or nothing to split.
    """
    first = first_split(network)
    layers = [
        replace(layer, units=_shares(layer.units_in(0), devices), reads="all")
        if isinstance(layer, FullyConnected)
        else layer
        for layer in network.layers
    ]
    return replace(network, layers=tuple(layers), columns=devices, copied=first)


def first_split(network: Network) -> int:
    """Place of the first layer that is split; those before it are copied.

    Raises:
        NetworkError: it is written in several columns, has nothing to copy or nothing to split.
    """
    if network.columns > 1:
        raise NetworkError(
            f"partition hybrid splits a network of one column, {network.name} is written in"
            f" {network.columns} (alexnet-owt and alexnet-1gpu are in one)"
        )
    if not network.is_chain:
        raise NetworkError(
            f"partition hybrid splits a chain of layers, {network.name} is a graph (replicas take"
            " any network)"
        )
    if any(layer.sums_for_grad for layer in network.layers):
        raise NetworkError(
            f"partition hybrid does not go with batch norms, {network.name} has some (replicas do)"
        )
    first = next((i for i, la in enumerate(network.layers) if isinstance(la, FullyConnected)), 0)
    if not first:
        raise NetworkError(
            f"partition hybrid copies the layers before the first fully connected one:"
            f" {network.name} has none"
        )
    return first


def _shares(units: int, devices: int) -> tuple[int, ...]:
    each, left = divmod(units, devices)
    return tuple(each + (device < left) for device in range(devices))

"""A network once more as plain ``torch.nn`` modules, for counters that read nothing else.

One top-level child per layer, with the layer's name. Columns become groups: a convolution that
reads its own column is a grouped one. Ties in a max-pool and the scale of dropout differ from
the plan's; neither changes what is executed.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from alexsim.errors import NetworkError
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    SpatialResponseNorm,
    Tanh,
)
from alexsim.network.network import Network, Part


class ColumnNorm(nn.Module):
    """Response norm over channels, within each of ``columns``."""

    def __init__(self, columns: int, layer: LocalResponseNorm) -> None:
        super().__init__()
        self.columns, self.layer = columns, layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``alpha`` multiplies the sum here, the mean in PyTorch."""
        n, c, h, w = x.shape
        la = self.layer
        split = x.reshape(n * self.columns, c // self.columns, h, w)
        out = F.local_response_norm(split, la.size, la.alpha * la.size, la.beta, la.k)
        return out.view(n, c, h, w)


class SpatialNorm(nn.Module):
    """Response norm over the neighbouring pixels of each map."""

    def __init__(self, layer: SpatialResponseNorm) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Squares summed by an average pool that does not divide."""
        la = self.layer
        total = F.avg_pool2d(x * x, la.size, 1, la.size // 2, divisor_override=1)
        return x * (la.k + la.alpha * total) ** -la.beta


def plain_module(network: Network, device: str = "cpu") -> nn.Module:
    """The network up to its softmax, all weights zero, ``eval()``.

    Raises:
        NetworkError: the columns of a layer cannot be written as groups.
    """
    layers = OrderedDict[str, nn.Module]()
    with torch.device("meta"):
        for parts in network.parts[:-1]:
            layers[parts[0].layer.name] = _module(network, parts)
        module = nn.Sequential(layers)
    if device != "meta":
        # NumPy's zeros take no memory until they are written to; nothing writes to these.
        module._apply(  # type: ignore[no-untyped-call]
            lambda of: torch.from_numpy(np.zeros(of.shape, np.float32)).to(device)
        )
    return module.eval()


def _module(network: Network, parts: tuple[Part, ...]) -> nn.Module:
    match parts[0].layer:
        case Convolution() as layer:
            return _convolution(layer, parts)
        case FullyConnected():
            return _fully_connected(network, parts)
        case LocalResponseNorm() as layer:
            return ColumnNorm(len(parts), layer)
        case SpatialResponseNorm() as layer:
            return SpatialNorm(layer)
        case MaxPool(size=size, stride=stride, rounding=rounding):
            return nn.MaxPool2d(size, stride, ceil_mode=rounding == "ceil")
        case AveragePool(size=size, stride=stride, rounding=rounding):
            return nn.AvgPool2d(size, stride, ceil_mode=rounding == "ceil")
        case ReLU():
            return nn.ReLU()
        case Sigmoid():
            return nn.Sigmoid()
        case Tanh():
            return nn.Tanh()
        case Dropout(rate=rate):
            return nn.Dropout(rate)
        case other:
            raise NetworkError(f"layer {other.name!r}: no plain module for {type(other).__name__}")


def plain_groups(parts: tuple[Part, ...]) -> int:
    """Groups of a layer once its columns are one: 1 for all but grouped convolutions.

    Raises:
        NetworkError: its columns cannot be written as groups.
    """
    layer, columns = parts[0].layer, len(parts)
    if not isinstance(layer, Convolution):
        return 1
    if columns > 1 and len(parts[0].sources) == 1:
        return layer.groups * columns
    if columns > 1 and layer.groups > 1:
        raise NetworkError(f"layer {layer.name!r}: groups over all columns are no plain groups")
    return layer.groups


def _convolution(layer: Convolution, parts: tuple[Part, ...]) -> nn.Module:
    first = parts[0]
    groups = plain_groups(parts)
    channels = first.input_shape[0] * (groups // layer.groups)
    ends = [layer.end_padding(extent) for extent in first.input_shape[1:]]
    uneven = any(end != layer.padding for end in ends)
    made = nn.Conv2d(
        channels,
        layer.filters * len(parts),
        layer.size,
        layer.stride,
        padding=0 if uneven else layer.padding,
        groups=groups,
    )
    if not uneven:
        return made
    border = nn.ZeroPad2d((layer.padding, ends[1], layer.padding, ends[0]))
    return nn.Sequential(OrderedDict[str, nn.Module](border=border, conv=made))


def _fully_connected(network: Network, parts: tuple[Part, ...]) -> nn.Module:
    first = parts[0]
    units = sum(part.output_shape[0] for part in parts)
    inputs = math.prod(first.input_shape)
    if network.columns > 1 and len(first.sources) < _columns_before(network, first):
        # Each column its own units from its own inputs: a grouped product over one pixel.
        grouped = nn.Conv1d(len(parts) * inputs, units, 1, groups=len(parts))
        return nn.Sequential(
            OrderedDict[str, nn.Module](
                flatten=nn.Flatten(),
                pixel=nn.Unflatten(1, (len(parts) * inputs, 1)),
                linear=grouped,
                units=nn.Flatten(),
            )
        )
    made = nn.Linear(inputs, units)
    if len(first.input_shape) == 1:
        return made
    return nn.Sequential(OrderedDict[str, nn.Module](flatten=nn.Flatten(), linear=made))


def _columns_before(network: Network, part: Part) -> int:
    return next((len(ps) for ps in network.parts if ps[0].layer.name == part.source), 0)

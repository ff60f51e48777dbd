"""A network once more as plain ``torch.nn`` modules.

One child per layer, with the layer's name; columns become groups (see ``layout``). Children are of
PyTorch's types, which is what other people's counters know: what only rearranges an input, the
zeros behind the edge of an image or its flattening, is a hook and has no place in parameters'
names. One thing differs: PyTorch sends a max-pool's gradient to the first of equal maxima, however
``MaxPool.ties`` is set.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.nn import functional as F

from alexsim.editions.load import load_network
from alexsim.errors import InterchangeError, unreadable
from alexsim.interchange.layout import (
    dropout_factors,
    is_grouped_product,
    plain_groups,
    plain_shapes,
    to_plain,
    unknown_kind,
)
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
    pair,
)
from alexsim.network.network import Network
from alexsim.network.part import Part


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


class AlexNet(nn.Module):
    """An edition as a module to train or to run with PyTorch alone.

    Images ``[N, C, H, W]`` of the edition's size go in, normalised as in training; logits
    ``[N, classes]`` come out. PyTorch's generator draws first weights of the edition's deviations.

    Weights behind a dropout are ``1 - rate`` of the edition's, as ``torch.nn.Dropout`` divides by
    that: for the edition's steps, multiply their learning rate by ``(1 - rate) ** 2``, and divide
    their weight decay by it.

    Args:
        network: an edition's name, ``FILE.py:NAME``, or a network.
        classes: outputs; the edition's if None.

    Raises:
        NetworkError: there is no such network, or it has no plain form.
    """

    def __init__(self, network: str | Network = "alexnet-2012", classes: int | None = None) -> None:
        super().__init__()
        loaded = load_network(network) if isinstance(network, str) else network
        self.network = (
            loaded if classes in (None, loaded.classes) else loaded.with_head(classes or 0)
        )
        for name, child in _children(self.network).items():
            self.add_module(name, child)
        self.to_empty(device=torch.get_default_device())
        self.draw()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``[N, classes]``."""
        x = images
        for child in self.children():
            x = child(x)
        return x.flatten(1)

    @torch.no_grad()
    def draw(self) -> None:
        """Draw the first weights anew."""
        factors = dropout_factors(self.network)
        for layer in self.network.layers:
            if isinstance(layer, Convolution | FullyConnected):
                weight = self.get_parameter(f"{layer.name}.weight")
                weight.normal_(0, layer.weight_std * factors.get(layer.name, 1.0))
                self.get_parameter(f"{layer.name}.bias").fill_(layer.bias_init)

    @classmethod
    def from_file(cls, path: str | Path) -> AlexNet:
        """What ``alexsim model export`` wrote as ``.safetensors``, ready to evaluate.

        Raises:
            InterchangeError: it is no such file, or does not fit the network it names.
            NetworkError: there is no such network.
        """
        try:
            with safe_open(path, framework="pt") as stored:
                name = (stored.metadata() or {}).get("network")
                state = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InterchangeError(unreadable(path, error)) from error
        if name is None:
            raise InterchangeError(f"{path} does not say its network: no weights of alexsim")
        state.pop("mean_image", None)
        network = load_network(name)
        model = cls(network)
        model.load_state_dict(to_plain(network, state))
        return model.eval()


def plain_module(network: Network, device: str = "cpu") -> nn.Sequential:
    """The network up to its softmax, all weights zero, ``eval()``.

    Raises:
        NetworkError: the columns of a layer cannot be written as groups.
    """
    module = nn.Sequential(_children(network))
    if device != "meta":
        # NumPy's zeros take no memory until they are written to; nothing writes to these.
        module._apply(  # type: ignore[no-untyped-call]
            lambda weight: torch.from_numpy(np.zeros(weight.shape, np.float32)).to(device)
        )
    return module.eval()


def _children(network: Network) -> OrderedDict[str, nn.Module]:
    """Without memory for weights, as yet."""
    plain_shapes(network)  # refuses what has no plain form
    with torch.device("meta"):
        return OrderedDict(
            (parts[0].layer.name, _module(network, parts)) for parts in network.parts[:-1]
        )


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
        case MaxPool(size=size, stride=stride, padding=padding, rounding=rounding):
            return nn.MaxPool2d(size, stride, padding, ceil_mode=rounding == "ceil")
        case AveragePool(size=size, stride=stride, padding=padding, rounding=rounding) as layer:
            ceil, counts = rounding == "ceil", layer.count_padding
            return nn.AvgPool2d(size, stride, padding, ceil, counts)
        case ReLU():
            return nn.ReLU()
        case Sigmoid():
            return nn.Sigmoid()
        case Tanh():
            return nn.Tanh()
        case Dropout(rate=rate):
            return nn.Dropout(rate)
        case other:
            raise unknown_kind(other, "a plain module")


def _convolution(layer: Convolution, parts: tuple[Part, ...]) -> nn.Module:
    first = parts[0]
    groups = plain_groups(parts)
    ends, (top, left) = layer.end_paddings(first.input_shape), pair(layer.padding)
    uneven = ends != (top, left)
    convolution = nn.Conv2d(
        first.input_shape[0] * (groups // layer.groups),
        layer.filters * len(parts),
        layer.size,
        layer.stride,
        padding=0 if uneven else layer.padding,
        groups=groups,
    )
    if uneven:
        border = (left, ends[1], top, ends[0])
        convolution.register_forward_pre_hook(partial(_pad, border))
    return convolution


def _fully_connected(network: Network, parts: tuple[Part, ...]) -> nn.Module:
    first = parts[0]
    units = sum(part.output_shape[0] for part in parts)
    inputs = math.prod(first.input_shape)
    if is_grouped_product(network, parts):
        # Each column its own units from its own inputs: a grouped product over one pixel.
        grouped = nn.Conv1d(len(parts) * inputs, units, 1, groups=len(parts))
        grouped.register_forward_pre_hook(_to_pixel)
        grouped.register_forward_hook(_from_pixel)
        return grouped
    product = nn.Linear(inputs, units)
    if len(first.input_shape) > 1:
        product.register_forward_pre_hook(_flatten)
    return product


def _pad(border: tuple[int, ...], _: nn.Module, inputs: tuple[Any, ...]) -> torch.Tensor:
    return F.pad(inputs[0], border)


def _flatten(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return inputs[0].flatten(1)


def _to_pixel(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
    return inputs[0].flatten(1).unsqueeze(2)


def _from_pixel(_: nn.Module, _inputs: object, out: torch.Tensor) -> torch.Tensor:
    return out.flatten(1)

"""What the kernels that compute a network are called in a card's table of times."""

from __future__ import annotations

import math

from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Network
from alexsim.network.part import Part
from alexsim_kernels import op_names
from alexsim_kernels.op_names import Pass

_KINDS = ("draw", "forward", "loss", "grad_input", "grad_weight", "update")


def kernel_name(kind: str, part: Part, end: Part | None = None) -> str:
    """The name of what one kernel does for a part, in float32; empty where there is none.

    Args:
        kind: of the op, as plans call it.
        part: that it is of.
        end: the part that the same kernel does too.
    """
    values = math.prod(part.output_shape)
    match kind, part.layer:
        case "draw", Dropout():
            return op_names.dropout(units=values)
        case "loss", SoftmaxCrossEntropy():
            return op_names.loss(classes=values)
        case "update", Convolution() | FullyConnected():
            return op_names.update(weights=part.weight_count)
        case "forward" | "grad_input" | "grad_weight", _:
            return _pass_name(kind, part, end)
    return ""


def _pass_name(pass_: Pass, part: Part, end: Part | None) -> str:
    layer = part.layer
    match layer:
        case FullyConnected():
            inputs, units = math.prod(part.input_shape), math.prod(part.output_shape)
            return op_names.linear(pass_, inputs=inputs, units=units)
        case SoftmaxCrossEntropy():
            return op_names.softmax(pass_, classes=math.prod(part.output_shape))
    if len(part.input_shape) != 3:
        return ""
    channels, height, width = part.input_shape
    extent = height, width
    match layer:
        case Convolution():
            return op_names.convolution(
                pass_, channels=channels, extent=extent, filters=layer.filters, taps=layer.size,
                stride=layer.stride, padding=layer.padding, groups=layer.groups,
            )  # fmt: skip
        case MaxPool():
            return op_names.pool(
                pass_, channels=channels, extent=extent, size=layer.size, stride=layer.stride
            )
        case LocalResponseNorm() if end and isinstance(pool := end.layer, MaxPool):
            return op_names.norm_pool(
                pass_, channels=channels, extent=extent, size=layer.size, window=pool.size,
                stride=pool.stride,
            )  # fmt: skip
        case LocalResponseNorm() | SpatialResponseNorm():
            across = isinstance(layer, LocalResponseNorm)
            return op_names.norm(
                pass_, window="across" if across else "over", channels=channels, extent=extent,
                size=layer.size,
            )  # fmt: skip
    return ""


def kernel_names(network: Network) -> frozenset[str]:
    """Those of all that kernels could do for a network, alone and for two layers at once."""
    every = [part for parts in network.parts for part in parts]
    ends = {
        name: [part for reader in readers for part in network.parts_of(reader)]
        for name, readers in network.readers.items()
    }
    return frozenset(
        kernel_name(kind, part, end)
        for part in every
        for end in (None, *ends[part.layer.name])
        for kind in _KINDS
    ) - {""}

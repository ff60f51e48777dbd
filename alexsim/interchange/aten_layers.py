"""Calls of ATen operators as our layers, where these compute the same: a function for each kind.

It returns what the call's result is among the layers, or None where its arguments, or what it
reads, have no layer here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alexsim.interchange.exported import IMAGES, Call, Constant
from alexsim.interchange.mapped import Mapped, Noise, Read, Trace, Value
from alexsim.network.layers import (
    ELU,
    GELU,
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    FullyConnected,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    MaxPool,
    Multiply,
    ReLU,
    ReLU6,
    Shape,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)


def _convolution(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    given = call.arguments
    read, weight, bias = (mapping.read(given[name]) for name in ("input", "weight", "bias"))
    if not isinstance(read, Value) or not isinstance(weight, Constant) or len(shape) != 3:
        return None
    size, stride, dilation = (
        _pair(extents) for extents in (weight.tensor.shape[2:], given["stride"], given["dilation"])
    )
    padding = given["padding"]
    if isinstance(padding, str):
        spans = [d * (s - 1) for s, d in zip(size, dilation, strict=True)]
        if padding == "same" and any(span % 2 for span in spans):
            return None
        padding = [span // 2 for span in spans] if padding == "same" else [0, 0]
    shares = mapping.claim(call.name, Convolution, weight=weight, bias=bias)
    if shares is None:
        return None
    layer = Convolution(
        name=call.name,
        inputs=(mapping.exact(read),),
        shares=shares,
        filters=weight.tensor.shape[0],
        size=_short(size),
        stride=_short(stride),
        padding=_short(_pair(padding)),
        dilation=_short(dilation),
        groups=given["groups"],
        bias=bias is not None,
        rounding="floor",
    )
    return Value(mapping.append(layer), shape)


def _linear(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    given = call.arguments
    read, weight, bias = (mapping.read(given[name]) for name in ("input", "weight", "bias"))
    if not isinstance(read, Value) or not isinstance(weight, Constant):
        return None
    if len(read.shape) != 1 or call.output.dim() != 2 or call.output.shape[0] != IMAGES:
        return None
    shares = mapping.claim(call.name, FullyConnected, weight=weight, bias=bias)
    if shares is None:
        return None
    layer = FullyConnected(
        name=call.name,
        inputs=(read.layer,),
        shares=shares,
        units=weight.tensor.shape[0],
        bias=bias is not None,
    )
    return Value(mapping.append(layer), shape)


def _batch_norm(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    given = call.arguments
    read = mapping.read(given["input"])
    names = ("weight", "bias", "running_mean", "running_var")
    parameters = {name: mapping.read(given[name]) for name in names}
    if not isinstance(read, Value) or None in parameters.values() or not given["training"]:
        return None
    if not isinstance(given["momentum"], float) or not 0 < given["momentum"] <= 1:
        return None
    inputs = (mapping.exact(read),)
    if mapping.claim(call.name, BatchNorm, **parameters) is None:
        return None
    layer = BatchNorm(
        name=call.name, inputs=inputs, epsilon=given["eps"], momentum=given["momentum"]
    )
    return Value(mapping.append(layer), shape)


def _max_pool(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    read = mapping.read(call.arguments["self"])
    if (
        not isinstance(read, Value)
        or len(read.shape) != 3
        or set(_pair(call.arguments["dilation"])) != {1}
    ):
        return None
    layer = MaxPool(name=call.name, inputs=(mapping.exact(read),), **_windows(call))
    return Value(mapping.append(layer), shape)


def _average_pool(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    given = call.arguments
    read = mapping.read(given["self"])
    if not isinstance(read, Value) or len(read.shape) != 3 or given["divisor_override"] is not None:
        return None
    layer = AveragePool(
        name=call.name, inputs=(mapping.exact(read),),
        count_padding=given["count_include_pad"], **_windows(call),
    )  # fmt: skip
    return Value(mapping.append(layer), shape)


def _windows(call: Call) -> dict[str, Any]:
    given = call.arguments
    size = _pair(given["kernel_size"])
    return {
        "size": _short(size),
        "stride": _short(_pair(given["stride"] or size)),
        "padding": _short(_pair(given["padding"])),
        "rounding": "ceil" if given["ceil_mode"] else "floor",
    }


def _adaptive_pool(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    read = mapping.read(call.arguments["self"])
    if not isinstance(read, Value) or len(read.shape) != 3:
        return None
    layer = AdaptiveAveragePool(
        name=call.name, inputs=(mapping.exact(read),), size=_short(shape[1:])
    )
    return Value(mapping.append(layer), shape)


def _mean(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    """The mean of all pixels of each map."""
    read = mapping.read(call.arguments["self"])
    axes = call.arguments.get("dim")
    if (
        not isinstance(read, Value)
        or len(read.shape) != 3
        or call.overload != "dim"
        or axes is None
    ):
        return None
    if call.output.shape[0] != IMAGES or sorted(axis % 4 for axis in axes) != [2, 3]:
        return None
    name = mapping.append(AdaptiveAveragePool(name=call.name, inputs=(mapping.exact(read),)))
    return Value(name, shape, "" if len(shape) == 3 else f"{name}.flatten")


def _dropout(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    rate = call.arguments["p"]
    if not 0 < rate < 1:
        return None
    return mapping.unary(call, Dropout, shape, rate=rate, rescaled=True)


def _add(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    reads = [mapping.read(call.arguments[name]) for name in ("self", "other")]
    if call.arguments.get("alpha", 1) != 1:
        return None
    return _joined(mapping, call, Add, reads, shape)


def _multiply(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    reads = [mapping.read(call.arguments[name]) for name in ("self", "other")]
    for noise, read in (reads, reads[::-1]):
        # What is drawn for whole images, and the rest divided by how likely it is kept.
        if isinstance(noise, Noise) and isinstance(read, Value) and 0 < noise.keep < 1:
            rescaled = math.isclose(noise.scale * noise.keep, 1)
            if rescaled:
                return mapping.unary(
                    _reading(call, reads.index(read)), Dropout, shape,
                    rate=1 - noise.keep, rescaled=True, whole_images=True,
                )  # fmt: skip
    values = [read for read in reads if isinstance(read, Value)]
    if len(values) < 2 or values[0].layer == values[1].layer:
        return None
    small = (shape[0], *[1] * (len(shape) - 1))
    values.sort(key=lambda value: value.shape != shape)
    first, second = values
    if first.shape != shape or second.shape not in (shape, small):
        return None
    units = second.shape == small and mapping.shapes[second.layer] == shape[:1]
    inputs = (mapping.exact(first), second.layer if units else mapping.exact(second))
    in_place = call.target.endswith("_")
    return Value(mapping.append(Multiply(name=call.name, inputs=inputs, in_place=in_place)), shape)


def _reading(call: Call, place: int) -> Call:
    """The call with another of its operands first."""
    name = ("self", "other")[place]
    return Call(
        name=call.name, target=call.target, overload=call.overload,
        arguments={"self": call.arguments[name]}, output=call.output, node=call.node,
    )  # fmt: skip


def _concat(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    reads = [mapping.read(node) for node in call.arguments["tensors"]]
    if len(reads) == 1:
        return reads[0]
    if call.arguments["dim"] % call.output.dim() != 1 or call.output.shape[0] != IMAGES:
        return None
    return _joined(mapping, call, Concat, reads, shape)


def _joined(
    mapping: Trace,
    call: Call,
    kind: Callable[..., Layer],
    reads: Sequence[Read | None],
    shape: Shape,
) -> Read | None:
    values = [read for read in reads if isinstance(read, Value)]
    if len(values) < len(reads) or len({value.layer for value in values}) < len(values):
        return None
    if kind is Add and any(value.shape != shape for value in values):
        return None
    shapes = {mapping.shapes[value.layer] for value in values}
    alike = kind is Add and len(shapes) == 1
    names = tuple(value.layer if alike else mapping.exact(value) for value in values)
    layer = kind(name=call.name, inputs=names, in_place=call.target.endswith("_"))
    return Value(mapping.append(layer), shape, values[0].reshaped_by if alike else "")


def _elementwise(
    make: Callable[..., Layer], **wanted: Any
) -> Callable[[Trace, Call, Shape], Read | None]:
    """A non-linearity, where its constants are these."""

    def mapped(mapping: Trace, call: Call, shape: Shape) -> Read | None:
        if any(call.arguments.get(name) != value for name, value in wanted.items()):
            return None
        return mapping.unary(call, make, shape)

    return mapped


def _leaky(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    slope = call.arguments["negative_slope"]
    return mapping.unary(call, LeakyReLU, shape, slope=slope) if 0 < slope < 1 else None


def _softmax(mapping: Trace, call: Call, shape: Shape) -> Read | None:
    read = mapping.read(call.arguments["self"])
    if not isinstance(read, Value) or call.output.shape[0] != IMAGES:
        return None
    if call.arguments["dim"] % call.output.dim() != 1 or call.arguments.get("dtype") is not None:
        return None
    return Value(mapping.append(Softmax(name=call.name, inputs=(mapping.exact(read),))), shape)


LAYERS: Mapping[str, Mapped] = {
    "adaptive_avg_pool2d": _adaptive_pool,
    "add": _add,
    "avg_pool2d": _average_pool,
    "batch_norm": _batch_norm,
    "cat": _concat,
    "conv2d": _convolution,
    "dropout": _dropout,
    "elu": _elementwise(ELU, alpha=1, scale=1, input_scale=1),
    "gelu": _elementwise(GELU, approximate="none"),
    "hardsigmoid": _elementwise(HardSigmoid),
    "hardswish": _elementwise(HardSwish),
    "hardtanh": _elementwise(ReLU6, min_val=0, max_val=6),
    "leaky_relu": _leaky,
    "linear": _linear,
    "max_pool2d": _max_pool,
    "mean": _mean,
    "mul": _multiply,
    "relu": _elementwise(ReLU),
    "relu6": _elementwise(ReLU6),
    "sigmoid": _elementwise(Sigmoid),
    "silu": _elementwise(SiLU),
    "softmax": _softmax,
    "tanh": _elementwise(Tanh),
}


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    first, *rest = (int(extent) for extent in value)
    return (first, rest[0] if rest else first)


def _short(value: Sequence[int]) -> int | tuple[int, int]:
    first, second = value
    return first if first == second else (first, second)

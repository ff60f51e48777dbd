"""Calls of ATen operators as our layers, where one computes the same.

A layer's parameters are the module's by name, so that weights, and what they become, go back and
forth to the bit. What has no layer, or only with other constants, is an ``Operator`` (``counted``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from alexsim.errors import NetworkError
from alexsim.interchange.exported import IMAGES, MADE_LIKE, Call, Constant, Exported
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
    Flatten,
    FullyConnected,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    Operator,
    ReLU,
    ReLU6,
    Shape,
    Sigmoid,
    SiLU,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
)


class Value(NamedTuple):
    """What a call returns for one image: a layer's output, in this shape."""

    layer: str
    shape: Shape
    reshaped_by: str = ""
    """The call that gave it another shape than the layer's."""


class Noise(NamedTuple):
    """Zeros and other values drawn for every image: stochastic depth."""

    keep: float
    """How likely it is not zero."""
    scale: float = 1.0


Read = Value | Constant | Noise
Counted = Callable[["Trace", Call, Shape], Layer]
Mapped = Callable[["Trace", Call, Shape], Read | None]


def view(name: str, layer: str, shape: Shape) -> Operator:
    """The same values in another shape."""
    return Operator(name=name, inputs=(layer,), target="view", shape=shape, is_view=True)


def per_image(tensor: torch.Tensor) -> Shape:
    """Shape of one image's values, of a tensor of ``IMAGES`` images; its first axis may hold
    several rows of each."""
    shape = tuple(int(extent) for extent in tensor.shape)
    if shape and shape[0] % IMAGES == 0:
        rows = shape[0] // IMAGES
        return (rows, *shape[1:]) if rows > 1 else shape[1:] or (1,)
    if IMAGES in shape:
        axis = shape.index(IMAGES)
        return (*shape[:axis], *shape[axis + 1 :]) or (1,)
    return (max(1, math.prod(shape) // IMAGES),)


@dataclass(slots=True, kw_only=True)
class Trace:
    """The layers so far, and what each call's result is among them."""

    exported: Exported
    module: nn.Module
    input_name: str
    input_shape: Shape
    operator: Counted
    """Makes an operator of a call that has no layer."""
    layers: list[Layer] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    values: dict[fx.Node, Read] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """Of each parameter of a layer, ``conv1.weight``, its key in the module's ``state_dict``."""
    taken: dict[str, str] = field(default_factory=dict)
    """Keys of parameters, each with the layer that has it."""

    def __post_init__(self) -> None:
        self.shapes[self.input_name] = self.input_shape
        self.values |= self.exported.constants
        self.values[self.exported.images] = Value(self.input_name, self.input_shape)

    # What calls read

    def read(self, node: Any) -> Read | None:
        """What an argument is; None if it is no tensor."""
        return self.values.get(node) if isinstance(node, fx.Node) else None

    def exact(self, value: Value) -> str:
        """A layer whose output has the value's very shape."""
        if self.shapes[value.layer] == value.shape:
            return value.layer
        for name, shape in self.shapes.items():
            if name == value.reshaped_by and shape == value.shape:
                return name
        return self.reshape(value)

    def reshape(self, value: Value) -> str:
        """Write a reshape as a layer, which reads its own."""
        name = value.reshaped_by
        while name in self.shapes:
            name += "'"
        if len(value.shape) == 1:
            return self.append(Flatten(name=name, inputs=(value.layer,)))
        return self.append(view(name, value.layer, value.shape))

    def append(self, layer: Layer) -> str:
        """Add a layer; its name.

        Raises:
            NetworkError: its inputs do not fit it.
        """
        shapes = [self.shapes[name] for name in layer.inputs]
        self.shapes[layer.name] = layer.output_shape(layer.input_shape(shapes))
        self.layers.append(layer)
        return layer.name

    def claim(self, layer: str, kind: type[Layer], **parameters: Read | None) -> str | None:
        """Give a layer parameters and buffers of the module: the layer whose they are already, or
        ``""``; None if it cannot have them, as they are computed, or are another's in part."""
        given = {name: read for name, read in parameters.items() if read is not None}
        if not all(isinstance(read, Constant) and read.direct for read in given.values()):
            return None
        keys = {name: next(iter(read.keys)) for name, read in given.items()}  # type: ignore[union-attr]
        owners = {self.taken.get(key, "") for key in keys.values()}
        if owners == {""}:
            self.taken |= dict.fromkeys(keys.values(), layer)
            self.keys |= {f"{layer}.{name}": key for name, key in keys.items()}
            return ""
        (owner, *others) = owners
        theirs = {name: self.keys.get(f"{owner}.{name}") for name in parameters}
        alike = not others and kind in (Convolution, FullyConnected)
        return owner if alike and {k: v for k, v in theirs.items() if v} == keys else None

    # Calls

    def run(self) -> None:
        """Map every call, in order."""
        for call in self.exported.calls:
            self.values[call.node] = self._result(call)

    def _result(self, call: Call) -> Read:
        shape = per_image(call.output)
        first = self.read(next(iter(call.arguments.values()), None))
        if call.target in _DRAWS and not isinstance(first, Value):
            return _drawn(call, first)
        module = self._module(call)
        if isinstance(module, nn.LocalResponseNorm):
            return self._response_norm(call, module, shape)
        if isinstance(first, Value):
            if call.target in _RESHAPES and math.prod(first.shape) == math.prod(shape):
                if is_view(call):
                    return Value(first.layer, shape, call.name)
            elif call.target in _SAME or _does_nothing(call):
                return first
            if call.target in MADE_LIKE:
                return Constant(keys=frozenset(), tensor=call.output, trained=False, direct=False)
        mapped = _LAYERS.get(call.target.rstrip("_"))
        result = mapped(self, call, shape) if mapped else None
        if result is None:
            result = Value(self.append(self.operator(self, call, shape)), shape)
        return result

    def _module(self, call: Call) -> nn.Module | None:
        stack = call.node.meta.get("nn_module_stack")
        path = list(stack.values())[-1][0] if stack else ""
        return dict(self.module.named_modules()).get(path)

    def _response_norm(self, call: Call, module: nn.LocalResponseNorm, shape: Shape) -> Read:
        """PyTorch writes it as a dozen calls; the last divides what the first read."""
        read = self.read(call.arguments.get("self"))
        if call.target != "div" or not isinstance(read, Value):
            return (
                read
                if isinstance(read, Value)
                else Constant(keys=frozenset(), tensor=call.output, trained=False, direct=False)
            )
        name = call.name.rpartition(".div")[0] or call.name
        layer = LocalResponseNorm(
            name=name, inputs=(self.exact(read),), size=module.size,
            alpha=module.alpha / module.size, beta=module.beta, k=module.k,
        )  # fmt: skip
        return Value(self.append(layer), shape)

    def unary(
        self, call: Call, make: Callable[..., Layer], shape: Shape, **fields: Any
    ) -> Read | None:
        """A layer that works on every value alike, whatever the shape."""
        read = self.read(call.arguments.get("self", call.arguments.get("input")))
        if not isinstance(read, Value):
            return None
        layer = make(
            name=call.name, inputs=(read.layer,), in_place=call.target.endswith("_"), **fields
        )
        return Value(self.append(layer), shape, read.reshaped_by)


_SAME = frozenset({
    "alias", "chunk", "clone", "detach", "lift_fresh_copy", "split", "split_with_sizes",
    "tensor_split", "unbind", "unsafe_chunk", "unsafe_split",
})  # fmt: skip
"""The same values; what splits a tensor returns views of it, which ``getitem`` then names."""
_RESHAPES = frozenset({
    "_unsafe_view", "flatten", "reshape", "squeeze", "unflatten", "unsqueeze", "view",
})  # fmt: skip
_DRAWS = frozenset({"bernoulli", "bernoulli_", "div_", "empty", "rand", "zeros", "ones", "full"})


def is_view(call: Call) -> bool:
    """Whether a reshape moves no value: its input's strides allow it."""
    source = next(iter(call.arguments.values()))
    if not isinstance(source, fx.Node):
        return False
    tensor = source.meta["val"]
    try:
        torch.empty_strided(tensor.shape, tensor.stride(), device="meta").view(call.output.shape)
    except RuntimeError:
        return False
    return True


def _does_nothing(call: Call) -> bool:
    if call.target.rstrip("_") in ("dropout", "feature_dropout", "alpha_dropout"):
        return not call.arguments["train"] or call.arguments["p"] == 0
    if call.target == "contiguous":
        return bool(call.arguments["self"].meta["val"].is_contiguous())
    return call.target == "to"


def _drawn(call: Call, first: Read | None) -> Read:
    """A tensor that is drawn: ``torch.empty(...).bernoulli_(p).div_(p)``."""
    given = call.arguments
    if call.target == "bernoulli_" and isinstance(given.get("p"), float):
        return Noise(keep=given["p"])
    if call.target == "div_" and isinstance(first, Noise) and isinstance(given["other"], float):
        return first._replace(scale=1 / given["other"])
    return Constant(keys=frozenset(), tensor=call.output, trained=False, direct=False)


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


_LAYERS: Mapping[str, Mapped] = {
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


def heads(mapping: Trace, weights: Sequence[float]) -> None:
    """Give every output its softmax and cost, the answer's last.

    Raises:
        NetworkError: an output does not come from the images.
    """
    ends = []
    calls = {call.node: call for call in mapping.exported.calls}
    for place, head in enumerate(mapping.exported.heads):
        node = head
        call = calls.get(head)
        if call and call.target == "log_softmax" and call.arguments["dim"] % call.output.dim() == 1:
            # A cost that is the negative log-likelihood of these is the cross entropy of those.
            node = call.arguments["self"]
        value = mapping.read(node)
        if not isinstance(value, Value):
            raise NetworkError(f"output {place} of the module does not depend on its images")
        ends.append(value)
    for place, value in reversed(list(enumerate(ends))):
        name = f"{value.layer}.softmax" if place else "softmax"
        weight = weights[place]
        mapping.append(SoftmaxCrossEntropy(name=name, inputs=(value.layer,), weight=weight))


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    first, *rest = (int(extent) for extent in value)
    return (first, rest[0] if rest else first)


def _short(value: Sequence[int]) -> int | tuple[int, int]:
    first, second = value
    return first if first == second else (first, second)

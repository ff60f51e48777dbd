"""Calls of ATen operators as our layers, where one computes the same (``aten_layers``).

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
from alexsim.interchange.refused import place_of
from alexsim.network.layers import (
    Convolution,
    Flatten,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    Operator,
    Shape,
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
    kinds: Mapping[str, Mapped]
    """Makes layers of calls, by the operators' names."""
    operator: Counted
    """Makes an operator of a call that has no layer."""
    layers: list[Layer] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    values: dict[fx.Node, Read] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """Of each parameter of a layer, ``conv1.weight``, its key in the module's ``state_dict``."""
    taken: dict[str, str] = field(default_factory=dict)
    """Keys of parameters, each with the layer that has it."""
    modules: Mapping[str, nn.Module] = field(init=False)
    """Of the module, by name."""
    state: Mapping[str, torch.Tensor] = field(init=False)
    """Its parameters and buffers, by every name that they have."""

    def __post_init__(self) -> None:
        self.modules = dict(self.module.named_modules())
        self.state = {
            **dict(self.module.named_parameters(remove_duplicate=False)),
            **dict(self.module.named_buffers(remove_duplicate=False)),
        }
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
        if call.target in MADE_LIKE:
            return Constant(keys=frozenset(), tensor=call.output, trained=False, direct=False)
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
        _refuse_uneven(call)
        mapped = self.kinds.get(call.target.rstrip("_"))
        result = mapped(self, call, shape) if mapped else None
        if result is None:
            result = Value(self.append(self.operator(self, call, shape)), shape)
        return result

    def _module(self, call: Call) -> nn.Module | None:
        stack = call.node.meta.get("nn_module_stack")
        path = list(stack.values())[-1][0] if stack else ""
        return self.modules.get(path)

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
    "alias", "chunk", "clone", "lift_fresh_copy", "split", "split_with_sizes",
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
    return is_viewed(source.meta["val"], call.output.shape)


def is_viewed(tensor: torch.Tensor, shape: Sequence[int]) -> bool:
    """Whether a tensor of another shape can have the same memory."""
    try:
        torch.empty_strided(tensor.shape, tensor.stride(), device="meta").view(*shape)
    except RuntimeError:
        return False
    return True


def _refuse_uneven(call: Call) -> None:
    """Refuse what has no whole number of values for an image, but for one number of all.

    Raises:
        NetworkError: the module splits the minibatch, or sums over it.
    """
    values = math.prod(call.output.shape)
    if values > 1 and values % IMAGES:
        raise NetworkError(
            f"{place_of(call.node)}{call.name} mixes or splits the images of a minibatch: it makes"
            " no whole number of values for each, and what one image takes cannot be said"
        )


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

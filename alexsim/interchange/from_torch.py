"""``from_torch``: a PyTorch module as a network.

The module's own names stay (``layer1.0.conv2``), its weights are the first weights of training, and
what they become goes back into its ``state_dict`` to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from alexsim.errors import NetworkError
from alexsim.interchange import traced_cache
from alexsim.interchange.aten_layers import LAYERS
from alexsim.interchange.counted import operator
from alexsim.interchange.exported import exported
from alexsim.interchange.heads import heads
from alexsim.interchange.mapped import Trace
from alexsim.network.layers import Layer, Shape, SoftmaxCrossEntropy
from alexsim.network.network import Network
from alexsim.network.part import INPUT

OTHER_HEADS = 0.3
"""Share of every output but the first in the cost: Szegedy et al. 2014, section 5."""
_IMAGENET = (3, 224, 224)


def from_torch(
    module: nn.Module,
    input_shape: Shape | None = None,
    *,
    name: str = "",
    head_weights: Sequence[float] | None = None,
) -> Network:
    """The network that a module computes, by ``torch.export``.

    Layers that there are kernels for here are what they are; other operators are ``Operator``s,
    which are counted: ``Network.not_run`` has them.

    Args:
        module: takes images ``[N, *input_shape]``; returns logits ``[N, classes]``, or several of
            them (a tuple, a named tuple, a dict), the answer first, or called ``logits``. It is not
            changed.
        input_shape: of one image, without the batch; by default the module's attribute
            ``input_shape``, or 3 x 224 x 224 where it has none.
        name: of the network; the module's class by default.
        head_weights: share of each output's cross entropy in the cost; by default 1 for the first
            and 0.3 for others.

    Raises:
        NetworkError: PyTorch cannot export it, or what it returns is no answer.
    """
    _refuse_no_module(module)
    shape = _shape_of(module, input_shape)
    if any(is_lazy(tensor) for tensor in _tensors(module)):
        raise NetworkError(
            f"{type(module).__name__} has lazy layers without a shape: call it once before"
        )
    key = traced_cache.key_of(module, shape, head_weights)
    network = traced_cache.load(key)
    if network is None:
        network = _traced(module, shape, head_weights)
        traced_cache.save(key, network)
    kind = type(module).__name__
    return replace(network, name=name or kind, title=f"{kind}, a PyTorch module", module=module)


def _refuse_no_module(given: object) -> None:
    if isinstance(given, type) and issubclass(given, nn.Module):
        raise NetworkError(
            f"from_torch takes a module, and {given.__name__} is a class of them: give"
            f" {given.__name__}()"
        )
    if not isinstance(given, nn.Module):
        raise NetworkError(
            f"from_torch takes a torch.nn.Module, got something of type {type(given).__name__}"
        )


def _shape_of(module: nn.Module, given: object) -> Shape:
    """The shape that is given, or that the module declares, or ImageNet's."""
    whose = "" if given is not None else "its "
    shape = getattr(module, "input_shape", _IMAGENET) if given is None else given
    if not (isinstance(shape, tuple | list) and shape and all(
        type(extent) is int and extent > 0 for extent in shape
    )):  # fmt: skip
        raise NetworkError(
            f"{whose}input_shape must be positive whole numbers, as (3, 224, 224), got {shape!r}"
        )
    return tuple(shape)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _traced(module: nn.Module, shape: Shape, head_weights: Sequence[float] | None) -> Network:
    calls = exported(module, shape)
    weights = tuple(head_weights or (1.0, *[OTHER_HEADS] * (len(calls.heads) - 1)))
    if len(weights) != len(calls.heads):
        raise NetworkError(
            f"head_weights must be {len(calls.heads)} numbers, as the module has outputs;"
            f" got {len(weights)}"
        )
    mapping = Trace(
        exported=calls,
        module=module,
        input_name=INPUT,
        input_shape=shape,
        kinds=LAYERS,
        operator=operator,
    )
    mapping.run()
    heads(mapping, weights)
    layers = _read_in_order(mapping.layers)
    return Network(
        name=type(module).__name__,
        input_shape=shape,
        layers=layers,
        frozen=_frozen(module, mapping.keys),
        keys=mapping.keys,
    )


def _frozen(module: nn.Module, keys: Mapping[str, str]) -> frozenset[str]:
    """Layers none of whose parameters requires a gradient.

    Raises:
        NetworkError: some of a layer's do.
    """
    learns: dict[str, set[bool]] = {}
    state = dict(module.named_parameters(remove_duplicate=False))
    for name, key in keys.items():
        if key in state:
            learns.setdefault(name.rpartition(".")[0], set()).add(state[key].requires_grad)
    for layer, both in learns.items():
        if len(both) > 1:
            raise NetworkError(
                f"layer {layer!r}: of its parameters some require a gradient and some do not: a"
                " layer learns whole, or not"
            )
    return frozenset(layer for layer, each in learns.items() if each == {False})


def _read_in_order(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Without the names of inputs where a layer reads the one before it, and without what nobody
    reads."""
    needed: set[str] = set()
    kept: list[Layer] = []
    for layer in reversed(layers):
        if layer.name in needed or not kept or isinstance(layer, SoftmaxCrossEntropy):
            kept.append(layer)
            needed.update(layer.inputs)
    before = INPUT
    ordered = []
    for layer in reversed(kept):
        ordered.append(replace(layer, inputs=()) if layer.inputs == (before,) else layer)
        before = layer.name
    return tuple(ordered)

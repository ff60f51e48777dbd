"""What PyTorch runs in one forward and backward pass of a plain module, operator by operator."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from alexsim.interchange.module import plain_module
from alexsim.network.network import Network

# They move, allocate or draw numbers; none computes a number from another.
_NO_ARITHMETIC = frozenset({
    "_reshape_alias", "_reshape_copy", "_to_copy", "_unsafe_view", "alias", "arange", "as_strided",
    "bernoulli_", "cat", "clone", "constant_pad_nd", "copy_", "detach", "empty", "empty_like",
    "empty_strided", "expand", "fill_", "full", "full_like", "lift_fresh", "new_empty",
    "new_empty_strided", "new_full", "new_zeros", "ones", "ones_like", "permute", "reshape",
    "select", "slice", "slice_backward", "split", "squeeze", "t", "transpose", "unbind",
    "unsqueeze", "view", "view_as", "zero_", "zeros", "zeros_like",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One call of an operator that computes, with how many values it reads and writes."""

    layer: str
    backward: bool
    name: str
    inputs: int
    """Values of its first argument."""
    outputs: int
    window: int = 0
    """Positions of a pool's window; 0 for other operators."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layer, self.backward = "", False
        self.operators: list[Operator] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = plain_name(str(func.overloadpacket))
        if name not in _NO_ARITHMETIC:
            first = out[0] if isinstance(out, tuple | list) else out
            self.operators.append(
                Operator(
                    layer=self.layer,
                    backward=self.backward,
                    name=name,
                    inputs=_values(args[0] if args else None),
                    outputs=_values(first),
                    window=math.prod(args[1]) if "pool" in name and not self.backward else 0,
                )
            )
        return out


def plain_name(name: str) -> str:
    """An operator's name as every counter may write it: ``aten::max_pool2d``, ``aten.mul``."""
    return name.replace("::", ".").rsplit(".", 1)[-1].removesuffix("_with_indices")


def operators(network: Network) -> tuple[Operator, ...]:
    """Operators that compute in a training step of one image, in order, without the update."""
    module = plain_module(network, "meta").train()
    image, label = example(network, "meta")
    recorder = _Recorder()
    owners: dict[Any, str] = {}

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            recorder.layer = name

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, out: torch.Tensor) -> None:
            assign(out, name)

        return hook

    def assign(out: torch.Tensor, name: str) -> None:
        # Nodes that are new in the graph since the layer before are this layer's.
        for node in _nodes(out.grad_fn, owners):
            owners[node] = name
            node.register_prehook(enter(name))

    for name, child in module.named_children():
        child.register_forward_pre_hook(enter(name))
        child.register_forward_hook(leave(name))
    last = network.layers[-1].name
    with recorder:
        scores = module(image)
        recorder.layer = last
        loss = F.cross_entropy(scores, label)
        assign(loss, last)
        recorder.backward = True
        loss.backward()  # type: ignore[no-untyped-call]
    return tuple(recorder.operators)


def example(network: Network, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """One image and its label, both zero."""
    image = torch.zeros(1, *network.input_shape, device=device)
    return image, torch.zeros(1, dtype=torch.long, device=device)


def run_training(module: nn.Module, image: torch.Tensor, label: torch.Tensor) -> None:
    """One forward and backward pass in training mode."""
    F.cross_entropy(module.train()(image), label).backward()  # type: ignore[no-untyped-call]


def _nodes(root: Any, known: dict[Any, str]) -> Iterator[Any]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in known:
            continue
        yield node
        waiting += [following for following, _ in node.next_functions]


def _values(argument: object) -> int:
    return argument.numel() if isinstance(argument, torch.Tensor) else 0

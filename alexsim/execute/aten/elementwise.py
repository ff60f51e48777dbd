"""Elementwise layers by ATen's functions: forward, and the input's gradient.

A function of ``FORWARD`` writes ``y``; one of ``BACKWARD`` writes ``dx`` from ``dy`` and what the
layer says that it reads, its output or its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from alexsim.execute.aten.chunks import chunks, rows
from alexsim.network.layers import (
    ELU,
    GELU,
    ChannelShuffle,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from alexsim.network.layers.elementwise import Move

Tensor = torch.Tensor
_aten = torch.ops.aten

FORWARD: dict[type[Layer], Callable[[Any, Tensor, Tensor], object]] = {
    ReLU: lambda _, x, y: torch.clamp_min(x, 0, out=y),
    ReLU6: lambda _, x, y: torch.clamp(x, 0, 6, out=y),
    LeakyReLU: lambda la, x, y: _aten.leaky_relu.out(x, la.slope, out=y),
    ELU: lambda _, x, y: _aten.elu.out(x, out=y),
    Sigmoid: lambda _, x, y: torch.sigmoid(x, out=y),
    Tanh: lambda _, x, y: torch.tanh(x, out=y),
    SiLU: lambda _, x, y: _aten.silu.out(x, out=y),
    GELU: lambda _, x, y: _aten.gelu.out(x, out=y),
    HardSwish: lambda _, x, y: _aten.hardswish.out(x, out=y),
    HardSigmoid: lambda _, x, y: _aten.hardsigmoid.out(x, out=y),
    Softmax: lambda _, x, y: torch.softmax(x, 1, out=y),
    ChannelShuffle: lambda la, x, y: y.unflatten(1, (-1, la.groups)).copy_(shuffled(la, x)),
}

BACKWARD: dict[type[Layer], Callable[[Any, Tensor, Tensor, Tensor], object]] = {
    ReLU: lambda _, dy, y, dx: _aten.threshold_backward.grad_input(dy, y, 0, grad_input=dx),
    ReLU6: lambda _, dy, y, dx: _aten.hardtanh_backward.grad_input(dy, y, 0, 6, grad_input=dx),
    LeakyReLU: lambda la, dy, y, dx: _aten.leaky_relu_backward.grad_input(
        dy, y, la.slope, True, grad_input=dx
    ),
    ELU: lambda _, dy, y, dx: _aten.elu_backward.grad_input(dy, 1, 1, 1, True, y, grad_input=dx),
    Sigmoid: lambda _, dy, y, dx: _aten.sigmoid_backward.grad_input(dy, y, grad_input=dx),
    Tanh: lambda _, dy, y, dx: _aten.tanh_backward.grad_input(dy, y, grad_input=dx),
    SiLU: lambda _, dy, x, dx: _aten.silu_backward.grad_input(dy, x, grad_input=dx),
    GELU: lambda _, dy, x, dx: _aten.gelu_backward.grad_input(dy, x, grad_input=dx),
    HardSwish: lambda _, dy, x, dx: dx.copy_(_aten.hardswish_backward(dy, x)),
    HardSigmoid: lambda _, dy, x, dx: _aten.hardsigmoid_backward.grad_input(dy, x, grad_input=dx),
    # ATen's function writes into a channels-last gradient as if it were contiguous.
    Softmax: lambda _, dy, y, dx: torch.mul(y, dy - (dy * y).sum(1, keepdim=True), out=dx),
}


def shuffled(layer: ChannelShuffle, x: Tensor) -> Tensor:
    """A view of the channels that a shuffle puts out, ``[N, channels per group, groups, ...]``."""
    turns = x.unflatten(1, (layer.groups, -1)).transpose(1, 2)
    taken: Tensor = turns.chunk(layer.parts, 1)[layer.part]
    return taken


def move_grad_input(layer: Move, dy: Tensor, dx: Tensor, *, add: bool) -> None:
    """Every gradient where its value was."""
    there, moved = rows(dx) if layer.flattens else dx, dy
    if isinstance(layer, ChannelShuffle):
        there, moved = shuffled(layer, dx), dy.unflatten(1, (-1, layer.groups))
    if add:
        there.add_(moved)
        return
    if there.numel() < dx.numel():
        dx.zero_()  # of channels that it did not take
    there.copy_(moved)


def in_chunks(
    compute: Callable[[slice, Tensor], object], dx: Tensor, size: int, *, add: bool
) -> None:
    """Compute a gradient a few images at a time, into ``dx`` or to be added there."""
    spare = torch.empty_like(dx[:size]) if add else dx
    for part in chunks(dx.shape[0], size):
        out = spare[: part.stop - part.start] if add else dx[part]
        compute(part, out)
        if add:
            dx[part].add_(out)


def factor_grad_input(dy: Tensor, other: Tensor, dx: Tensor, size: int, *, add: bool) -> None:
    """One factor's gradient: ``dy`` times the other, summed over pixels if this factor has none."""
    if dx.shape == dy.shape:
        (dx.addcmul_ if add else lambda a, b: torch.mul(a, b, out=dx))(dy, other)
        return
    axes = tuple(range(2, dy.ndim))
    dx = dx.view(*dx.shape, *[1] * (dy.ndim - dx.ndim))
    for part in chunks(dy.shape[0], size):
        total = (dy[part] * other[part]).sum(axes, keepdim=True)
        (dx[part].add_ if add else dx[part].copy_)(total)

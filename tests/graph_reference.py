"""Any network in plain PyTorch and autograd: each layer's meaning stands here a second time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from alexsim.network import layers as la
from alexsim.network.layers import pair
from alexsim.network.network import Network
from alexsim.network.part import INPUT, letter

Tensor = torch.Tensor
Values = dict[str, Tensor]


def convolution(layer: la.Convolution, w: Values, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    (top, left), (down, right) = pair(layer.padding), layer.end_paddings(tuple(x.shape[1:]))
    x = F.pad(x, (left, right, top, down))
    y = F.conv2d(
        x, w["weight"], w.get("bias"), layer.stride, 0, layer.dilation, groups=layer.groups
    )
    _, rows, columns = layer.output_shape((x.shape[1], height, width))
    return y[:, :, :rows, :columns]


def spatial_norm(layer: la.SpatialResponseNorm, w: Values, x: Tensor) -> Tensor:
    total = F.avg_pool2d(x * x, layer.size, 1, layer.size // 2, divisor_override=1)
    return x * (layer.k + layer.alpha * total) ** -layer.beta


def batch_norm(layer: la.BatchNorm, w: Values, x: Tensor) -> Tensor:
    running = (w["running_mean"], w["running_var"])
    return F.batch_norm(
        x, *running, w["weight"], w["bias"], w["training"], layer.momentum, layer.epsilon
    )


def layer_norm(layer: la.LayerNorm, w: Values, x: Tensor) -> Tensor:
    last = x.movedim(1, -1)
    return F.layer_norm(last, last.shape[-1:], w["weight"], w["bias"], layer.epsilon).movedim(-1, 1)


def dropout(layer: la.Dropout, w: Values, x: Tensor) -> Tensor:
    if not w["training"]:
        return x if layer.rescaled else x * (1 - layer.rate)
    return x * w["mask"] / (1 - layer.rate if layer.rescaled else 1)


def max_pool(layer: la.MaxPool, w: Values, x: Tensor) -> Tensor:
    ceil = layer.rounding == "ceil"
    return F.max_pool2d(x, layer.size, layer.stride, layer.padding, ceil_mode=ceil)


def average_pool(layer: la.AveragePool, w: Values, x: Tensor) -> Tensor:
    ceil = layer.rounding == "ceil"
    return F.avg_pool2d(x, layer.size, layer.stride, layer.padding, ceil, layer.count_padding)


def channel_shuffle(layer: la.ChannelShuffle, w: Values, x: Tensor) -> Tensor:
    return F.channel_shuffle(x, layer.groups).chunk(layer.parts, 1)[layer.part]


MEANINGS: dict[type, Callable[..., Tensor]] = {
    la.Convolution: convolution,
    la.FullyConnected: lambda _, w, x: F.linear(x.flatten(1), w["weight"], w["bias"]),
    la.MaxPool: max_pool,
    la.AveragePool: average_pool,
    la.AdaptiveAveragePool: lambda layer, _, x: F.adaptive_avg_pool2d(x, pair(layer.size)),
    la.LocalResponseNorm: lambda layer, _, x: F.local_response_norm(
        x, layer.size, layer.alpha * layer.size, layer.beta, layer.k
    ),
    la.SpatialResponseNorm: spatial_norm,
    la.BatchNorm: batch_norm,
    la.LayerNorm: layer_norm,
    la.ReLU: lambda _, __, x: F.relu(x),
    la.ReLU6: lambda _, __, x: F.relu6(x),
    la.LeakyReLU: lambda layer, _, x: F.leaky_relu(x, layer.slope),
    la.ELU: lambda _, __, x: F.elu(x),
    la.Sigmoid: lambda _, __, x: torch.sigmoid(x),
    la.Tanh: lambda _, __, x: torch.tanh(x),
    la.SiLU: lambda _, __, x: F.silu(x),
    la.GELU: lambda _, __, x: F.gelu(x),
    la.HardSwish: lambda _, __, x: F.hardswish(x),
    la.HardSigmoid: lambda _, __, x: F.hardsigmoid(x),
    la.Softmax: lambda _, __, x: torch.softmax(x, 1),
    la.Dropout: dropout,
    la.Add: lambda _, __, *xs: sum(xs),
    la.Multiply: lambda _, __, a, b: a * b,
    la.ChannelShuffle: channel_shuffle,
    la.Concat: lambda _, __, *xs: torch.cat(xs, 1),
    la.SoftmaxCrossEntropy: lambda _, __, x: F.log_softmax(x.flatten(1), 1),
}
"""``meaning(layer, its tensors by name, inputs...)``."""


def forward(
    network: Network, state: dict[str, Tensor], images: Tensor, masks: Values, *, training: bool
) -> Values:
    """Every layer's output, column by column (``fc.a``); of a head, log-probabilities. ``state`` as
    executors name it; running statistics are updated in place."""
    made = {f"{INPUT}.{letter(column)}": images for column in range(network.columns)}
    for index, parts in enumerate(network.parts):
        for part in parts:
            layer, column = part.layer, letter(part.column)
            prefix = f"{layer.name}.{column}."
            w = {
                name.removeprefix(prefix): tensor
                for name, tensor in state.items()
                if name.startswith(prefix) and not name.endswith(".momentum")
            }
            w["training"] = training
            if layer.name in masks:
                w["mask"] = masks[layer.name]
            columns = (
                [letter(p.column) for p in network.parts_of(name)]
                if layer.reads_all and name != INPUT
                else [column]
                for name in network.inputs_of(index)
            )
            inputs = (
                torch.cat([made[f"{name}.{c}"] for c in read], 1)
                for name, read in zip(network.inputs_of(index), columns, strict=True)
            )
            made[prefix[:-1]] = MEANINGS[type(layer)](layer, w, *inputs)
    return made


def cost(network: Network, made: Values, labels: Tensor) -> Tensor:
    """The weighted sum of all heads' cross-entropies, means over the minibatch."""
    return sum(head.weight * F.nll_loss(made[f"{head.name}.a"], labels) for head in network.heads)

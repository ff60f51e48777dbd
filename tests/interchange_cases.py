"""Small networks of every layer, and weights that give every layer its say."""

from __future__ import annotations

import math

import torch
from torch import nn

from alexsim.editions.load import load_network
from alexsim.interchange.layout import weighted
from alexsim.interchange.module import AlexNet
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    Tanh,
)
from alexsim.network.network import Network

State = dict[str, torch.Tensor]

EVERY = Network(
    name="every-layer",
    input_shape=(3, 21, 21),
    columns=2,
    layers=(
        Convolution(name="conv1", filters=4, size=4, stride=3),  # one zero behind the edges
        LocalResponseNorm(name="norm1", alpha=0.3, size=3),
        MaxPool(name="pool1", size=3, stride=1),
        ReLU(name="relu1"),
        Convolution(name="conv2", filters=6, size=3, padding=1),
        Sigmoid(name="sigmoid2"),
        SpatialResponseNorm(name="spatial_norm2", alpha=0.2, size=3),
        AveragePool(name="pool2", size=2, stride=1),
        Convolution(name="conv3", filters=5, size=3, padding=1, reads="all"),
        Tanh(name="tanh3"),
        FullyConnected(name="fc4", units=8),
        ReLU(name="relu4"),
        Dropout(name="dropout4"),
        FullyConnected(name="fc5", units=6),
        ReLU(name="relu5"),
        FullyConnected(name="fc6", units=(3, 4), reads="all"),
        ReLU(name="relu6"),
        Dropout(name="dropout6"),
        FullyConnected(name="fc7", units=(5, 0), reads="all"),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)
ONE = Network(
    name="one-column",
    input_shape=(1, 13, 13),
    layers=(
        Convolution(name="conv1", filters=4, size=3, rounding="floor"),
        LocalResponseNorm(name="norm1", alpha=0.4, size=5, k=1.5),
        MaxPool(name="pool1", size=3, stride=2),
        Convolution(name="conv2", filters=6, size=2, groups=2),
        ReLU(name="relu2"),
        Dropout(name="dropout2"),
        AveragePool(name="pool2", size=2, stride=2),
        FullyConnected(name="fc3", units=7),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)
SMALL = {"two columns": EVERY, "one column": ONE, "lenet-5": load_network("lenet-5")}


def drawn(network: Network, dtype: torch.dtype = torch.float32) -> State:
    """Weights by column that keep values near 1, so that every layer has its say."""
    generator = torch.Generator().manual_seed(7)
    return {
        f"{part.layer.name}.{chr(ord('a') + part.column)}.{kind}": torch.randn(
            shape, generator=generator, dtype=dtype
        )
        * (2 / math.prod(shape[1:])) ** 0.5
        for parts in weighted(network)
        for part in parts
        for kind, shape in (("weight", part.weight_shape), ("bias", part.bias_shape))
    }


def images_for(network: Network, count: int = 3, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(8)
    return torch.randn(count, *network.input_shape, generator=generator, dtype=dtype)


def module_of(network: Network, plain: State) -> nn.Module:
    module = AlexNet(network).to(next(iter(plain.values())).dtype).eval()
    module.load_state_dict(plain)
    return module


def assert_same(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

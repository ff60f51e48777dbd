"""Layers as frozen records; a layer's numbers (``filters``, ``units``) are those of one column."""

from alexsim.network.layers.base import (
    Auxiliary,
    Elementwise,
    Kept,
    Layer,
    Pair,
    Parameter,
    Reads,
    Role,
    Saved,
    Shape,
    SoftmaxCrossEntropy,
    pair,
)
from alexsim.network.layers.elementwise import (
    ELU,
    GELU,
    ChannelShuffle,
    Dropout,
    Flatten,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from alexsim.network.layers.joins import Add, Concat, Multiply
from alexsim.network.layers.norms import (
    BatchNorm,
    LayerNorm,
    LocalResponseNorm,
    SpatialResponseNorm,
)
from alexsim.network.layers.operator import Operator, Product
from alexsim.network.layers.pools import AdaptiveAveragePool, AveragePool, MaxPool, Pool
from alexsim.network.layers.weighted import Convolution, FullyConnected

__all__ = [
    "ELU", "GELU", "AdaptiveAveragePool", "Add", "Auxiliary", "AveragePool", "BatchNorm",
    "ChannelShuffle", "Concat", "Convolution", "Dropout", "Elementwise", "Flatten",
    "FullyConnected", "HardSigmoid", "HardSwish", "Kept", "Layer", "LayerNorm", "LeakyReLU",
    "LocalResponseNorm", "MaxPool", "Multiply", "Operator", "Pair", "Parameter", "Pool", "Product",
    "ReLU", "ReLU6", "Reads", "Role", "Saved", "Shape", "SiLU", "Sigmoid", "Softmax",
    "SoftmaxCrossEntropy", "SpatialResponseNorm", "Tanh", "pair",
]  # fmt: skip

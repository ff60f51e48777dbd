"""Networks with every kind of layer that AlexNet has, small enough for Triton's interpreter."""

from __future__ import annotations

from typing import Literal

from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network

BATCH = 2


def tiny(columns: int) -> Network:
    """AlexNet in small: the second convolution and the fully connected layers read all columns."""
    reads: Literal["own", "all"] = "all" if columns > 1 else "own"
    classes = (8, 0) if columns > 1 else 8
    return Network(
        name=f"tiny-{columns}",
        input_shape=(3, 9, 9),
        columns=columns,
        layers=(
            Convolution(name="conv1", filters=8, size=3, stride=1),
            LocalResponseNorm(name="norm1"),
            MaxPool(name="pool1", size=3, stride=2, ties="all"),
            ReLU(name="relu1"),
            Convolution(name="conv2", filters=8, size=3, padding=1, reads=reads),
            ReLU(name="relu2"),
            FullyConnected(name="fc3", units=16, reads=reads),
            ReLU(name="relu3"),
            Dropout(name="dropout3"),
            FullyConnected(name="fc4", units=classes, reads=reads),
            SoftmaxCrossEntropy(name="softmax"),
        ),
    )

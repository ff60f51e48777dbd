"""Networks that hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

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


@st.composite
def networks(draw: st.DrawFn) -> Network:
    columns = draw(st.integers(1, 3))
    reads = st.sampled_from(["own", "all"])
    layers: list = []
    for index in range(draw(st.integers(1, 4))):
        layers.append(
            Convolution(
                name=f"conv{index}",
                filters=draw(st.integers(1, 5)),
                size=3,
                padding=1,
                reads=draw(reads),
            )
        )
        kind = draw(st.sampled_from(["relu", "norm", "pool", "none"]))
        if kind == "relu":
            layers.append(ReLU(name=f"relu{index}"))
        if kind == "norm":
            layers.append(LocalResponseNorm(name=f"norm{index}"))
        if kind == "pool":
            layers.append(MaxPool(name=f"pool{index}", size=3, stride=1))
    layers += [
        FullyConnected(name="fc1", units=draw(st.integers(1, 6)), reads=draw(reads)),
        ReLU(name="relu_fc"),
        Dropout(name="dropout"),
        FullyConnected(name="fc2", units=(7, *[0] * (columns - 1)), reads="all"),
        SoftmaxCrossEntropy(name="softmax"),
    ]
    return Network(name="drawn", input_shape=(2, 12, 12), columns=columns, layers=tuple(layers))

"""A network of two columns for small colour pictures, its weights, and what it computes, in NumPy's
and PyTorch's plain float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from alexsim.editions.load import load_network
from alexsim.train.weights import Weights, save_weights, state_shapes

SOURCE = """
from alexsim.network.layers import (
    Convolution, Dropout, FullyConnected, ReLU, SoftmaxCrossEntropy,
)
from alexsim.network.network import Network

net = Network(
    name="tiny",
    input_shape=(3, 24, 24),
    columns=2,
    layers=(
        Convolution(name="conv1", filters=4, size=5, stride=2, padding=1),
        ReLU(name="relu1"),
        FullyConnected(name="fc2", units=6, reads="all"),
        ReLU(name="relu2"),
        Dropout(name="dropout2"),
        FullyConnected(name="fc3", units=(3, 0), reads="all"),
        SoftmaxCrossEntropy(name="softmax"),
    ),
)
"""
CLASSES = ("bright", "dark", "middle")
SIDE, MARGIN = 24, 1
"""Of the centre crop, and what is left and above of it in a square of 27 pixels."""


def write_weights(folder: Path, network: str = "", classes: tuple[str, ...] = CLASSES) -> Path:
    """Random weights in a file, of this network or another."""
    (folder / "tiny.py").write_text(SOURCE)
    name = network or f"{folder / 'tiny.py'}:net"
    loaded = load_network(name)
    channels, crop_side, _ = loaded.input_shape
    side = round(crop_side * 256 / 224)
    drawn = torch.Generator().manual_seed(7)
    path = folder / "weights.safetensors"
    save_weights(
        path,
        Weights(
            network=name,
            state={
                key: 0.05 * torch.randn(shape, generator=drawn)
                for key, shape in state_shapes(loaded).items()
            },
            classes=classes,
            normalisation="mean-image",
            mean=np.full((side, side, channels), 100, np.float32)
            + np.arange(side, dtype=np.float32)[:, None, None],
        ),
    )
    return path


def convolved(weights: Weights, crop: np.ndarray) -> torch.Tensor:
    """conv1's output for a crop, ``[8, 12, 12]``, in float64."""
    inner = slice(MARGIN, MARGIN + SIDE)
    assert weights.mean is not None
    image = torch.from_numpy(crop.astype(np.float64) - weights.mean[inner, inner])
    # The last of twelve windows of 5 at a stride of 2 hangs over by two.
    padded = F.pad(image.permute(2, 0, 1)[None], (1, 2, 1, 2))
    state = {name: value.double() for name, value in weights.state.items()}
    return torch.cat(
        [
            F.conv2d(padded, state[f"conv1.{c}.weight"], state[f"conv1.{c}.bias"], stride=2)
            for c in "ab"
        ],
        1,
    )[0]


def features(weights: Weights, crop: np.ndarray) -> np.ndarray:
    """The last hidden layer's twelve units."""
    hidden = convolved(weights, crop).relu().flatten()
    state = {name: value.double() for name, value in weights.state.items()}
    parts = [state[f"fc2.{c}.weight"] @ hidden + state[f"fc2.{c}.bias"] for c in "ab"]
    return torch.cat(parts).relu().numpy()

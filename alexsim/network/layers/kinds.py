"""What kinds of layers are called in tables and sentences."""

from __future__ import annotations

from typing import NamedTuple


class KindWords(NamedTuple):
    """A kind of layer in words."""

    singular: str
    plural: str
    group: str = "other layers"
    """What it is summed with in short tables."""


_WORDS = {
    "Convolution": KindWords("convolution", "convolutions", "convolutions"),
    "FullyConnected": KindWords("fc layer", "fc layers", "fully connected"),
    "LocalResponseNorm": KindWords("response norm", "response norms", "response norms"),
    "SpatialResponseNorm": KindWords("spatial norm", "spatial norms", "response norms"),
    "MaxPool": KindWords("max-pool", "max-pools", "pools"),
    "AveragePool": KindWords("average pool", "average pools", "pools"),
    "SoftmaxCrossEntropy": KindWords("softmax", "softmaxes"),
    "ReLU": KindWords("ReLU", "ReLUs"),
}


def kind_words(kind: str) -> KindWords:
    """Words for the name of a layer's class; of a class that has none, the name in lower case."""
    name = kind.lower()
    return _WORDS.get(kind, KindWords(name, f"{name}s"))

"""Dense networks: every layer of a block reads all that stand before it.

Sources: Huang et al. 2017, as in torchvision's ``densenet.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alexsim.editions.zoo.graph import CLASSES, IMAGENET, Graph, he_fan_in
from alexsim.network.layers import AdaptiveAveragePool, AveragePool, MaxPool, ReLU
from alexsim.network.network import Network

_BOTTLENECK = 4
_SETTINGS = {
    121: (64, 32, (6, 12, 24, 16)),
    161: (96, 48, (6, 12, 36, 24)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
}
"""Channels of the first convolution, channels that each layer adds, layers of each block."""


def _densenet(depth: int, first: int, growth: int, counts: tuple[int, ...]) -> Network:
    graph = Graph(IMAGENET, he_fan_in)
    graph.conv("features_conv0", first, 7, stride=2, padding=3)
    graph.batch_norm("features_norm0")
    graph.add(
        ReLU(name="features_relu0"),
        MaxPool(name="features_pool0", size=3, stride=2, padding=1, rounding="floor"),
    )
    for block, count in enumerate(counts, start=1):
        for index in range(1, count + 1):
            _dense_layer(graph, f"denseblock{block}_denselayer{index}", growth)
        if block < len(counts):
            _transition(graph, f"transition{block}")
    graph.batch_norm("features_norm5")
    graph.add(ReLU(name="features_relu5"), AdaptiveAveragePool(name="avgpool"))
    graph.fully_connected("classifier", CLASSES)
    return graph.network(f"densenet{depth}", f"DenseNet-{depth}: layers read all before them")


def _dense_layer(graph: Graph, name: str, growth: int) -> None:
    before = graph.last
    graph.batch_norm(f"{name}_norm1")
    graph.add(ReLU(name=f"{name}_relu1"))
    graph.conv(f"{name}_conv1", _BOTTLENECK * growth, 1)
    graph.batch_norm(f"{name}_norm2")
    graph.add(ReLU(name=f"{name}_relu2"))
    new = graph.conv(f"{name}_conv2", growth, 3, padding=1)
    graph.concat(f"{name}_concat", before, new)


def _transition(graph: Graph, name: str) -> None:
    graph.batch_norm(f"{name}_norm")
    graph.add(ReLU(name=f"{name}_relu"))
    graph.conv(f"{name}_conv", graph.channels() // 2, 1)
    graph.add(AveragePool(name=f"{name}_pool", size=2, stride=2, rounding="floor"))


DENSENETS: dict[str, Callable[[], Network]] = {
    f"densenet{depth}": partial(_densenet, depth, *settings)
    for depth, settings in _SETTINGS.items()
}

"""Dense networks: every layer of a block reads all that stand before it.

Sources: Huang et al. 2017, as in torchvision's ``densenet.py``.
"""

from __future__ import annotations

from alexsim.editions.zoo.graph import CLASSES, IMAGENET, Graph, he_fan_in
from alexsim.network.layers import AdaptiveAveragePool, AveragePool, MaxPool, ReLU
from alexsim.network.network import Network

_GROWTH, _BOTTLENECK = 32, 4


def densenet121() -> Network:
    """Four blocks of 6, 12, 24 and 16 layers, each of which adds 32 channels."""
    graph = Graph(IMAGENET, he_fan_in)
    graph.conv("features_conv0", 64, 7, stride=2, padding=3)
    graph.batch_norm("features_norm0")
    graph.add(
        ReLU(name="features_relu0"),
        MaxPool(name="features_pool0", size=3, stride=2, padding=1, rounding="floor"),
    )
    counts = (6, 12, 24, 16)
    for block, count in enumerate(counts, start=1):
        for index in range(1, count + 1):
            _dense_layer(graph, f"denseblock{block}_denselayer{index}")
        if block < len(counts):
            _transition(graph, f"transition{block}")
    graph.batch_norm("features_norm5")
    graph.add(ReLU(name="features_relu5"), AdaptiveAveragePool(name="avgpool"))
    graph.fully_connected("classifier", CLASSES)
    return graph.network("densenet121", "DenseNet-121: layers read all before them")


def _dense_layer(graph: Graph, name: str) -> None:
    before = graph.last
    graph.batch_norm(f"{name}_norm1")
    graph.add(ReLU(name=f"{name}_relu1"))
    graph.conv(f"{name}_conv1", _BOTTLENECK * _GROWTH, 1)
    graph.batch_norm(f"{name}_norm2")
    graph.add(ReLU(name=f"{name}_relu2"))
    new = graph.conv(f"{name}_conv2", _GROWTH, 3, padding=1)
    graph.concat(f"{name}_concat", before, new)


def _transition(graph: Graph, name: str) -> None:
    graph.batch_norm(f"{name}_norm")
    graph.add(ReLU(name=f"{name}_relu"))
    graph.conv(f"{name}_conv", graph.channels() // 2, 1)
    graph.add(AveragePool(name=f"{name}_pool", size=2, stride=2, rounding="floor"))

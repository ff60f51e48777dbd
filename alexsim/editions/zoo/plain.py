"""Networks of convolutions without normalisation: VGG-16 and SqueezeNet.

Sources: Simonyan & Zisserman 2014 (configuration D) and Iandola et al. 2016 (version 1.1 of their
repository), as in torchvision's ``vgg.py`` and ``squeezenet.py``.
"""

from __future__ import annotations

from alexsim.editions.zoo.graph import CLASSES, IMAGENET, Graph, always, he_fan_in, he_fan_out
from alexsim.network.layers import AdaptiveAveragePool, Convolution, Dropout, MaxPool, ReLU
from alexsim.network.network import Network

_VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Filters and convolutions of each block."""
_FIRE = {3: 16, 4: 16, 6: 32, 7: 32, 9: 48, 10: 48, 11: 64, 12: 64}
"""Squeezed channels of each fire module; either half of its output has four times as many."""


def vgg16() -> Network:
    """Thirteen convolutions of 3x3, three fully connected layers; named as in ``vgg-a``."""
    graph = Graph(IMAGENET, he_fan_out)
    for block, (filters, count) in enumerate(_VGG16, start=1):
        for index in range(1, count + 1):
            graph.conv(f"conv{block}_{index}", filters, 3, padding=1, bias=True)
            graph.add(ReLU(name=f"relu{block}_{index}"))
        graph.add(MaxPool(name=f"pool{block}", size=2, stride=2, rounding="floor"))
    # Changes nothing at 224 pixels; at others it makes what fc6 reads.
    graph.add(AdaptiveAveragePool(name="avgpool", size=7))
    for index in (6, 7):
        graph.fully_connected(f"fc{index}", 4096, always(0.01))
        graph.add(ReLU(name=f"relu{index}"), Dropout(name=f"dropout{index}", rescaled=True))
    graph.fully_connected("fc8", CLASSES, always(0.01))
    return graph.network("vgg16", "VGG-16: 3x3 convolutions only, thirteen of them")


def squeezenet1_1() -> Network:
    """Eight fire modules and a convolution for the classes: nothing is fully connected."""
    graph = Graph(IMAGENET, he_fan_in)
    graph.conv("features_0", 64, 3, stride=2, bias=True)
    graph.add(ReLU(name="features_1"), _shrink("features_2"))
    for index, squeezed in _FIRE.items():
        _fire(graph, f"features_{index}", squeezed)
        if index in (4, 7):
            graph.add(_shrink(f"features_{index + 1}"))
    graph.add(Dropout(name="classifier_0", rescaled=True))
    graph.add(
        Convolution(
            name="classifier_1", filters=CLASSES, size=1, rounding="floor", weight_std=0.01
        ),
        ReLU(name="classifier_2"),
        AdaptiveAveragePool(name="classifier_3"),
    )
    return graph.network("squeezenet1_1", "SqueezeNet 1.1: AlexNet's accuracy, 1/50 the weights")


def _fire(graph: Graph, name: str, squeezed: int) -> None:
    graph.conv(f"{name}_squeeze", squeezed, 1, bias=True)
    squeeze = graph.add(ReLU(name=f"{name}_squeeze_relu"))
    halves = []
    for half, size in (("expand1x1", 1), ("expand3x3", 3)):
        graph.conv(
            f"{name}_{half}", 4 * squeezed, size, after=squeeze, padding=size // 2, bias=True
        )
        halves.append(graph.add(ReLU(name=f"{name}_{half}_relu")))
    graph.concat(f"{name}_concat", *halves)


def _shrink(name: str) -> MaxPool:
    return MaxPool(name=name, size=3, stride=2, rounding="ceil")

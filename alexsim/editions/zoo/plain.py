"""Networks of plain convolutions: VGG and SqueezeNet.

Sources: Simonyan & Zisserman 2014 (configurations A, B, D and E) and Iandola et al. 2016 (versions
1.0 and 1.1 of their repository), as in torchvision's ``vgg.py`` and ``squeezenet.py``; VGG with
batch normalisation is torchvision's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alexsim.editions.zoo.graph import CLASSES, IMAGENET, Graph, always, he_fan_in, he_fan_out
from alexsim.network.layers import AdaptiveAveragePool, Convolution, Dropout, MaxPool, ReLU
from alexsim.network.network import Network

_FILTERS = (64, 128, 256, 512, 512)
_VGGS = {
    11: ("eight", (1, 1, 2, 2, 2)),
    13: ("ten", (2, 2, 2, 2, 2)),
    16: ("thirteen", (2, 2, 3, 3, 3)),
    19: ("sixteen", (2, 2, 4, 4, 4)),
}
"""Convolutions in words, and how many in each block, by depth."""
_FIRES = {
    "1_0": (96, 7, {3: 16, 4: 16, 5: 32, 7: 32, 8: 48, 9: 48, 10: 64, 12: 64}),
    "1_1": (64, 3, {3: 16, 4: 16, 6: 32, 7: 32, 9: 48, 10: 48, 11: 64, 12: 64}),
}
"""Filters and window of the first convolution, and squeezed channels of each fire module by its
place; either half of its output has four times as many. At the places between them are pools."""


def _vgg(depth: int, words: str, counts: tuple[int, ...], *, normalised: bool) -> Network:
    """Convolutions of 3x3, three fully connected layers; named as in ``vgg-a``."""
    graph = Graph(IMAGENET, he_fan_out)
    for block, (filters, count) in enumerate(zip(_FILTERS, counts, strict=True), start=1):
        for index in range(1, count + 1):
            graph.conv(f"conv{block}_{index}", filters, 3, padding=1, bias=True)
            if normalised:
                graph.batch_norm(f"bn{block}_{index}")
            graph.add(ReLU(name=f"relu{block}_{index}"))
        graph.add(MaxPool(name=f"pool{block}", size=2, stride=2, rounding="floor"))
    # Changes nothing at 224 pixels; at others it makes what fc6 reads.
    graph.add(AdaptiveAveragePool(name="avgpool", size=7))
    for index in (6, 7):
        graph.fully_connected(f"fc{index}", 4096, always(0.01))
        graph.add(ReLU(name=f"relu{index}"), Dropout(name=f"dropout{index}", rescaled=True))
    graph.fully_connected("fc8", CLASSES, always(0.01))
    title = f"VGG-{depth}: 3x3 convolutions only, {words} of them"
    if normalised:
        return graph.network(f"vgg{depth}_bn", f"{title}, with batch norms")
    return graph.network(f"vgg{depth}", title)


def _squeezenet(version: str, filters: int, size: int, fires: dict[int, int]) -> Network:
    """Eight fire modules and a convolution for the classes: nothing is fully connected."""
    graph = Graph(IMAGENET, he_fan_in)
    graph.conv("features_0", filters, size, stride=2, bias=True)
    graph.add(ReLU(name="features_1"), _shrink("features_2"))
    for index in range(min(fires), max(fires) + 1):
        if index in fires:
            _fire(graph, f"features_{index}", fires[index])
        else:
            graph.add(_shrink(f"features_{index}"))
    graph.add(Dropout(name="classifier_0", rescaled=True))
    graph.add(
        Convolution(
            name="classifier_1", filters=CLASSES, size=1, rounding="floor", weight_std=0.01
        ),
        ReLU(name="classifier_2"),
        AdaptiveAveragePool(name="classifier_3"),
    )
    number = version.replace("_", ".")
    return graph.network(
        f"squeezenet{version}", f"SqueezeNet {number}: AlexNet's accuracy, 1/50 the weights"
    )


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


VGGS: dict[str, Callable[[], Network]] = {
    f"vgg{depth}{'_bn' if normalised else ''}": partial(
        _vgg, depth, *settings, normalised=normalised
    )
    for normalised in (False, True)
    for depth, settings in _VGGS.items()
}
SQUEEZENETS: dict[str, Callable[[], Network]] = {
    f"squeezenet{version}": partial(_squeezenet, version, *settings)
    for version, settings in _FIRES.items()
}

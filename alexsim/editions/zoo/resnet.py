"""Residual networks.

Sources: He et al. 2016, Xie et al. 2017 (ResNeXt), Zagoruyko & Komodakis 2016 (wide), as in
torchvision's ``resnet.py``: bottlenecks have their stride in the 3x3 convolution ("ResNet v1.5"),
not in the first 1x1 one as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from alexsim.editions.zoo.graph import CLASSES, IMAGENET, Graph, he_fan_out
from alexsim.network.layers import AdaptiveAveragePool, Add, MaxPool, ReLU
from alexsim.network.network import Network

_Block = Callable[[Graph, str, int, int], None]


def _resnet(name: str, title: str, block: _Block, counts: tuple[int, ...]) -> Network:
    graph = Graph(IMAGENET, he_fan_out)
    graph.conv("conv1", 64, 7, stride=2, padding=3)
    graph.batch_norm("bn1")
    graph.add(
        ReLU(name="relu"), MaxPool(name="maxpool", size=3, stride=2, padding=1, rounding="floor")
    )
    for stage, count in enumerate(counts, start=1):
        for index in range(count):
            stride = 2 if stage > 1 and index == 0 else 1
            block(graph, f"layer{stage}_{index}", 32 * 2**stage, stride)
    graph.add(AdaptiveAveragePool(name="avgpool"))
    graph.fully_connected("fc", CLASSES)
    return graph.network(name, title)


def _basic(graph: Graph, name: str, filters: int, stride: int) -> None:
    before = graph.last
    graph.conv(f"{name}_conv1", filters, 3, stride=stride, padding=1)
    graph.batch_norm(f"{name}_bn1")
    graph.add(ReLU(name=f"{name}_relu1"))
    graph.conv(f"{name}_conv2", filters, 3, padding=1)
    _join(graph, name, before, graph.batch_norm(f"{name}_bn2"), stride)


def _bottleneck(
    graph: Graph, name: str, filters: int, stride: int, *, wider: int = 1, groups: int = 1
) -> None:
    """Convolutions of 1x1, 3x3 and 1x1; the inner ones have ``wider`` times the filters."""
    before, width = graph.last, wider * filters
    graph.conv(f"{name}_conv1", width, 1)
    graph.batch_norm(f"{name}_bn1")
    graph.add(ReLU(name=f"{name}_relu1"))
    graph.conv(f"{name}_conv2", width, 3, stride=stride, padding=1, groups=groups)
    graph.batch_norm(f"{name}_bn2")
    graph.add(ReLU(name=f"{name}_relu2"))
    graph.conv(f"{name}_conv3", 4 * filters, 1)
    _join(graph, name, before, graph.batch_norm(f"{name}_bn3"), stride)


def _join(graph: Graph, name: str, shortcut: str, residual: str, stride: int) -> None:
    """The sum with what the block read, projected where the shapes differ."""
    if stride > 1 or graph.channels(shortcut) != graph.channels(residual):
        graph.conv(
            f"{name}_downsample_0", graph.channels(residual), 1, after=shortcut, stride=stride
        )
        shortcut = graph.batch_norm(f"{name}_downsample_1")
    graph.add(
        Add(name=f"{name}_add", inputs=(residual, shortcut), in_place=True),
        ReLU(name=f"{name}_relu"),
    )


_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_DEEP = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage, by depth."""
_BOTTLENECKS = {
    **{
        f"resnet{depth}": (f"ResNet-{depth}: residual, of bottlenecks", depth, 1, 1)
        for depth in _DEEP
    },
    "resnext50_32x4d": ("ResNeXt-50: bottlenecks of 32 groups", 50, 2, 32),
    "resnext101_32x8d": ("ResNeXt-101: wide bottlenecks of 32 groups", 101, 4, 32),
    "wide_resnet50_2": ("Wide ResNet-50: bottlenecks twice as wide", 50, 2, 1),
    "wide_resnet101_2": ("Wide ResNet-101: bottlenecks twice as wide", 101, 2, 1),
}
"""Title, depth, and of the bottlenecks how much wider they are and their groups."""

RESNETS: Mapping[str, Callable[[], Network]] = {
    f"resnet{depth}": partial(
        _resnet, f"resnet{depth}", f"ResNet-{depth}: residual, of basic blocks", _basic, counts
    )
    for depth, counts in _BASIC.items()
} | {
    name: partial(
        _resnet, name, title, partial(_bottleneck, wider=wider, groups=groups), _DEEP[depth]
    )
    for name, (title, depth, wider, groups) in _BOTTLENECKS.items()
}

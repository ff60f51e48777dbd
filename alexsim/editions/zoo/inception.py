"""Networks of branches that are put side by side: GoogLeNet and Inception v3.

Sources: Szegedy et al. 2015 and 2016, as in torchvision's ``googlenet.py`` and ``inception.py``:
with batch normalisation in both, and in GoogLeNet with 3x3 windows where the paper has 5x5. As in
the paper is Caffe's ``bvlc_googlenet``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alexsim.editions.zoo.graph import CLASSES, IMAGENET, Graph, always, he_fan_in
from alexsim.network.layers import (
    AdaptiveAveragePool,
    AveragePool,
    Dropout,
    LocalResponseNorm,
    MaxPool,
    Pair,
    ReLU,
    SoftmaxCrossEntropy,
    pair,
)
from alexsim.network.network import Network

_GOOGLENET = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}
"""Filters of each branch: 1x1; reduced and 3x3; reduced and "5x5"; behind the pool."""
_HEADS = {"4a": "aux1", "4d": "aux2"}
_HEAD_WEIGHT = 0.3

_Steps = list[tuple[str, int, Pair]]
"""Name, filters and window of each convolution of a branch."""


def _inception_v3() -> Network:
    """Eleven modules, with windows of one row or column, on 299 pixels; no auxiliary head."""
    graph = Graph((3, 299, 299), always(0.1), epsilon=1e-3)
    graph.unit("Conv2d_1a_3x3", 32, 3, stride=2)
    graph.unit("Conv2d_2a_3x3", 32, 3)
    graph.unit("Conv2d_2b_3x3", 64, 3, padding=1)
    graph.add(_max_pool("maxpool1"))
    graph.unit("Conv2d_3b_1x1", 80, 1)
    graph.unit("Conv2d_4a_3x3", 192, 3)
    graph.add(_max_pool("maxpool2"))
    for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
        _module_a(graph, f"Mixed_5{letter}", pooled)
    _module_b(graph, "Mixed_6a")
    for letter, filters in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        _module_c(graph, f"Mixed_6{letter}", filters)
    _module_d(graph, "Mixed_7a")
    for letter in "bc":
        _module_e(graph, f"Mixed_7{letter}")
    graph.add(AdaptiveAveragePool(name="avgpool"), Dropout(name="dropout", rescaled=True))
    graph.fully_connected("fc", CLASSES, always(0.1))
    return graph.network("inception_v3", "Inception v3: factorised windows, 299 pixels")


def _googlenet(name: str, title: str, *, heads: bool, paper: bool = False) -> Network:
    """Nine inception modules; the auxiliary heads have 0.3 of the cost each.

    ``paper``: with response norms instead of batch norms and windows of 5x5.
    """
    weights = he_fan_in if paper else always(0.01)
    graph = Graph(IMAGENET, weights, epsilon=1e-3, normalised=not paper)
    graph.unit("conv1", 64, 7, stride=2, padding=3)
    graph.add(_max_pool("maxpool1", rounding_up=True))
    if paper:
        graph.add(_response_norm("norm1"))
    graph.unit("conv2", 64, 1)
    graph.unit("conv3", 192, 3, padding=1)
    if paper:
        graph.add(_response_norm("norm2"))
    before = graph.add(_max_pool("maxpool2", rounding_up=True))
    for module, (whole, third, fifth, pooled) in _GOOGLENET.items():
        inception = f"inception{module}"
        branches = [
            _branch(graph, before, f"{inception}_branch1", [("", whole, 1)]),
            _branch(
                graph, before, f"{inception}_branch2", [("_0", third[0], 1), ("_1", third[1], 3)]
            ),
            _branch(
                graph,
                before,
                f"{inception}_branch3",
                [("_0", fifth[0], 1), ("_1", fifth[1], 5 if paper else 3)],
            ),
            _pooled(graph, before, f"{inception}_branch4", pooled, average=False),
        ]
        before = graph.concat(f"{inception}_concat", *branches)
        if heads and module in _HEADS:
            _auxiliary(graph, _HEADS[module])
        if module in ("3b", "4e"):
            size = 3 if paper or module == "3b" else 2
            before = graph.add(_max_pool(f"maxpool{module[0]}", size=size, rounding_up=True))
    dropout = Dropout(name="dropout", rate=0.4 if paper else 0.2, rescaled=True)
    graph.add(AdaptiveAveragePool(name="avgpool"), dropout)
    graph.fully_connected("fc", CLASSES, always(0.01))
    return graph.network(name, title)


def _response_norm(name: str) -> LocalResponseNorm:
    return LocalResponseNorm(name=name, alpha=1e-4 / 5, k=1.0)


def _auxiliary(graph: Graph, name: str) -> None:
    graph.add(AdaptiveAveragePool(name=f"{name}_avgpool", size=4))
    graph.unit(f"{name}_conv", 128, 1)
    graph.fully_connected(f"{name}_fc1", 1024, always(0.01))
    graph.add(ReLU(name=f"{name}_relu"), Dropout(name=f"{name}_dropout", rate=0.7, rescaled=True))
    graph.fully_connected(f"{name}_fc2", CLASSES, always(0.01))
    graph.add(SoftmaxCrossEntropy(name=f"{name}_softmax", weight=_HEAD_WEIGHT))


def _module_a(graph: Graph, name: str, pooled: int) -> None:
    before = graph.last
    graph.concat(
        f"{name}_concat",
        _branch(graph, before, f"{name}_branch1x1", [("", 64, 1)]),
        _branch(graph, before, f"{name}_branch5x5", [("_1", 48, 1), ("_2", 64, 5)]),
        _branch(
            graph, before, f"{name}_branch3x3dbl", [("_1", 64, 1), ("_2", 96, 3), ("_3", 96, 3)]
        ),
        _pooled(graph, before, f"{name}_branch_pool", pooled),
    )


def _module_b(graph: Graph, name: str) -> None:
    before = graph.last
    third = graph.unit(f"{name}_branch3x3", 384, 3, stride=2)
    _branch(graph, before, f"{name}_branch3x3dbl", [("_1", 64, 1), ("_2", 96, 3)])
    double = graph.unit(f"{name}_branch3x3dbl_3", 96, 3, stride=2)
    graph.concat(f"{name}_concat", third, double, _shrunk(graph, before, name))


def _module_c(graph: Graph, name: str, filters: int) -> None:
    before, row, column = graph.last, (1, 7), (7, 1)
    graph.concat(
        f"{name}_concat",
        _branch(graph, before, f"{name}_branch1x1", [("", 192, 1)]),
        _branch(
            graph, before, f"{name}_branch7x7",
            [("_1", filters, 1), ("_2", filters, row), ("_3", 192, column)],
        ),
        _branch(
            graph, before, f"{name}_branch7x7dbl",
            [
                ("_1", filters, 1), ("_2", filters, column), ("_3", filters, row),
                ("_4", filters, column), ("_5", 192, row),
            ],
        ),
        _pooled(graph, before, f"{name}_branch_pool", 192),
    )  # fmt: skip


def _module_d(graph: Graph, name: str) -> None:
    before = graph.last
    _branch(graph, before, f"{name}_branch3x3", [("_1", 192, 1)])
    third = graph.unit(f"{name}_branch3x3_2", 320, 3, stride=2)
    _branch(
        graph, before, f"{name}_branch7x7x3",
        [("_1", 192, 1), ("_2", 192, (1, 7)), ("_3", 192, (7, 1))],
    )  # fmt: skip
    seventh = graph.unit(f"{name}_branch7x7x3_4", 192, 3, stride=2)
    graph.concat(f"{name}_concat", third, seventh, _shrunk(graph, before, name))


def _module_e(graph: Graph, name: str) -> None:
    before = graph.last
    whole = _branch(graph, before, f"{name}_branch1x1", [("", 320, 1)])
    _branch(graph, before, f"{name}_branch3x3", [("_1", 384, 1)])
    third = _split(graph, f"{name}_branch3x3", "_2")
    _branch(graph, before, f"{name}_branch3x3dbl", [("_1", 448, 1), ("_2", 384, 3)])
    double = _split(graph, f"{name}_branch3x3dbl", "_3")
    pooled = _pooled(graph, before, f"{name}_branch_pool", 192)
    graph.concat(f"{name}_concat", whole, third, double, pooled)


def _split(graph: Graph, name: str, number: str) -> str:
    """A row's window and a column's, side by side."""
    before = graph.last
    row = _branch(graph, before, name, [(f"{number}a", 384, (1, 3))])
    column = _branch(graph, before, name, [(f"{number}b", 384, (3, 1))])
    return graph.concat(f"{name}_concat", row, column)


def _branch(graph: Graph, before: str, name: str, steps: _Steps) -> str:
    """Convolutions that keep the image's extent, one after the other."""
    for suffix, filters, size in steps:
        height, width = pair(size)
        before = graph.unit(
            f"{name}{suffix}", filters, size, after=before, padding=(height // 2, width // 2)
        )
    return before


def _pooled(graph: Graph, before: str, name: str, filters: int, *, average: bool = True) -> str:
    """A pool that keeps the image's extent, and a 1x1 convolution."""
    if average:
        pool = AveragePool(
            name=f"{name}_avgpool", inputs=(before,), size=3, stride=1, padding=1, rounding="floor"
        )
        graph.add(pool)
        return graph.unit(name, filters, 1)
    graph.add(
        MaxPool(name=f"{name}_0", inputs=(before,), size=3, stride=1, padding=1, rounding="ceil")
    )
    return graph.unit(f"{name}_1", filters, 1)


def _shrunk(graph: Graph, before: str, name: str) -> str:
    return graph.add(
        MaxPool(name=f"{name}_branch_pool", inputs=(before,), size=3, stride=2, rounding="floor")
    )


def _max_pool(name: str, *, size: int = 3, rounding_up: bool = False) -> MaxPool:
    return MaxPool(name=name, size=size, stride=2, rounding="ceil" if rounding_up else "floor")


_GOOGLENETS = {
    "googlenet": ("GoogLeNet: inception modules", False, False),
    "googlenet-heads": ("GoogLeNet with its auxiliary heads", True, False),
    "googlenet-caffe": ("Caffe's bvlc_googlenet, as in the paper", False, True),
    "googlenet-caffe-heads": ("Caffe's bvlc_googlenet with its auxiliary heads", True, True),
}
INCEPTIONS: dict[str, Callable[[], Network]] = {
    name: partial(_googlenet, name, title, heads=heads, paper=paper)
    for name, (title, heads, paper) in _GOOGLENETS.items()
} | {"inception_v3": _inception_v3}

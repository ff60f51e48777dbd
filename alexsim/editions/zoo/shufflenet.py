"""ShuffleNetV2: half of a block's channels passes it by, and a shuffle mixes the halves.

Sources: Ma et al. 2018, as in torchvision's ``shufflenetv2.py``. A shuffle and the split behind it
are two layers here, each of which makes one half.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alexsim.editions.zoo.graph import CLASSES, IMAGENET, Graph, torch_default
from alexsim.network.layers import AdaptiveAveragePool, ChannelShuffle, MaxPool
from alexsim.network.network import Network

_BLOCKS = (4, 8, 4)
_CHANNELS = {
    "x0_5": (48, 96, 192, 1024),
    "x1_0": (116, 232, 464, 1024),
    "x1_5": (176, 352, 704, 1024),
    "x2_0": (244, 488, 976, 2048),
}
"""By width: of the three stages, and of the last convolution."""


def _shufflenet(width: str, channels: tuple[int, ...]) -> Network:
    graph = Graph(IMAGENET, torch_default)
    graph.unit("conv1", 24, 3, stride=2, padding=1)
    graph.add(MaxPool(name="maxpool", size=3, stride=2, padding=1, rounding="floor"))
    for stage, (count, wide) in enumerate(zip(_BLOCKS, channels, strict=False), start=2):
        for index in range(count):
            _block(graph, f"stage{stage}_{index}", wide // 2, shrinks=index == 0)
        graph.add(ChannelShuffle(name=f"stage{stage}_shuffle"))
    graph.unit("conv5", channels[-1], 1)
    graph.add(AdaptiveAveragePool(name="avgpool"))
    graph.fully_connected("fc", CLASSES)
    factor = width[1:].replace("_", ".")
    return graph.network(f"shufflenet_v2_{width}", f"ShuffleNetV2 {factor}x: shuffled halves")


def _block(graph: Graph, name: str, half: int, *, shrinks: bool) -> None:
    """One half by a filter per channel between 1x1 convolutions; the other as it is, or filtered
    too where the image shrinks, of which both read all channels."""
    before, depthwise = graph.last, f"{name}_branch1_depthwise"
    if shrinks:
        _filter(graph, depthwise, before, stride=2)
        left, right = graph.unit(f"{name}_branch1_project", half, 1), before
    else:
        left, right = (
            graph.add(ChannelShuffle(name=f"{name}_{side}", inputs=(before,), part=part, parts=2))
            for part, side in enumerate(("left", "right"))
        )
    graph.unit(f"{name}_branch2_expand", half, 1, after=right)
    _filter(graph, f"{name}_branch2_depthwise", graph.last, stride=2 if shrinks else 1)
    graph.concat(f"{name}_concat", left, graph.unit(f"{name}_branch2_project", half, 1))


def _filter(graph: Graph, name: str, before: str, *, stride: int) -> None:
    channels = graph.channels(before)
    graph.unit(
        name, channels, 3,
        after=before, stride=stride, padding=1, groups=channels, activation=None,
    )  # fmt: skip


SHUFFLENETS: dict[str, Callable[[], Network]] = {
    f"shufflenet_v2_{width}": partial(_shufflenet, width, channels)
    for width, channels in _CHANNELS.items()
}

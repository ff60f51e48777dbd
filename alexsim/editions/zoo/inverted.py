"""Networks of inverted residuals: MobileNetV2, MNASNet and EfficientNet-B0.

Sources: Sandler et al. 2018, Tan et al. 2019 and Tan & Le 2019, as in torchvision's
``mobilenetv2.py``, ``mnasnet.py`` and ``efficientnet.py``. Numbered modules are named for what they
are: torchvision's ``features.2.conv.0.0`` is ``features_2_expand_conv``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from alexsim.editions.zoo.graph import (
    CLASSES,
    IMAGENET,
    Activation,
    Deviation,
    Graph,
    always,
    he_fan_out,
)
from alexsim.network.layers import (
    AdaptiveAveragePool,
    Add,
    Dropout,
    Multiply,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
)
from alexsim.network.network import Network

_MOBILENET = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
    (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, blocks and first stride of each stage."""
_EFFICIENTNET = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
"""The same, and the size of the windows."""
_MNASNET = (
    (1, 16, 1, 1, 3), (3, 24, 3, 2, 3), (3, 40, 3, 2, 5), (6, 80, 3, 2, 5),
    (6, 96, 2, 1, 3), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
)  # fmt: skip
_WIDTHS = {"0_5": 0.5, "0_75": 0.75, "1_0": 1.0, "1_3": 1.3}
"""Of MNASNets: factors of the channels."""
_STOCHASTIC_DEPTH = 0.2
_MOMENTUM = 3e-4
"""Of MNASNet's batch norms."""


def _mobilenet_v2() -> Network:
    """Seventeen blocks that expand, filter each channel, and project."""
    graph = Graph(IMAGENET, he_fan_out)
    graph.unit("features_0", 32, 3, stride=2, padding=1, activation=ReLU6)
    number = 0
    for expansion, channels, count, stride in _MOBILENET:
        for index in range(count):
            number += 1
            before = graph.last
            name, first = f"features_{number}", stride if index == 0 else 1
            _filter(graph, name, expansion, size=3, stride=first, activation=ReLU6)
            _project(graph, name, channels, before, stride=first)
    graph.unit("features_18", 1280, 1, activation=ReLU6)
    _classifier(graph, always(0.01))
    return graph.network("mobilenet_v2", "MobileNetV2: inverted residuals")


def _mnasnet(version: str) -> Network:
    """MobileNetV2's blocks with the expansions and windows that a search took (variant B1)."""
    graph = Graph(IMAGENET, he_fan_out, momentum=_MOMENTUM)
    graph.unit("layers_0", _in_eights(32 * _WIDTHS[version]), 3, stride=2, padding=1)
    for stage, (expansion, channels, count, stride, size) in enumerate(_MNASNET, start=1):
        for index in range(count):
            before = graph.last
            name, first = f"layers_{stage}_{index}", stride if index == 0 else 1
            _filter(graph, name, expansion, size=size, stride=first, activation=ReLU)
            wide = _in_eights(channels * _WIDTHS[version])
            _project(graph, name, wide, before, stride=first)
    graph.unit("layers_8", 1280, 1)
    # Uniform within (3 / fan-out) ** 0.5.
    _classifier(graph, lambda _, fan_out: float(fan_out**-0.5))
    factor = version.replace("_", ".")
    return graph.network(f"mnasnet{version}", f"MNASNet {factor}: searched inverted residuals")


def _in_eights(channels: float) -> int:
    """The nearest multiple of 8; the next one, where that is less than nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def _efficientnet_b0() -> Network:
    """Sixteen inverted residuals; squeeze and excitation rates each channel before projection.

    Blocks are left out of single images (stochastic depth), later ones more often.
    """
    graph = Graph(IMAGENET, he_fan_out)
    graph.unit("features_0", 32, 3, stride=2, padding=1, activation=SiLU)
    blocks, number = sum(stage[2] for stage in _EFFICIENTNET), 0
    for stage, (expansion, channels, count, stride, size) in enumerate(_EFFICIENTNET, start=1):
        for index in range(count):
            before = graph.last
            name, first = f"features_{stage}_{index}", stride if index == 0 else 1
            squeezed = max(1, graph.channels() // 4)
            _filter(graph, name, expansion, size=size, stride=first, activation=SiLU)
            _excite(graph, name, squeezed)
            left_out = _STOCHASTIC_DEPTH * number / blocks
            _project(graph, name, channels, before, stride=first, left_out=left_out)
            number += 1
    graph.unit("features_8", 1280, 1, activation=SiLU)
    # Uniform within fan-out ** -0.5.
    _classifier(graph, lambda _, fan_out: float((3 * fan_out) ** -0.5))
    return graph.network("efficientnet_b0", "EfficientNet-B0: with squeeze and excitation")


def _filter(
    graph: Graph, name: str, expansion: int, *, size: int, stride: int, activation: Activation
) -> None:
    """More channels, then a filter for each of them."""
    channels = expansion * graph.channels()
    if expansion > 1:
        graph.unit(f"{name}_expand", channels, 1, activation=activation)
    graph.unit(
        f"{name}_depthwise", channels, size,
        stride=stride, padding=size // 2, groups=channels, activation=activation,
    )  # fmt: skip


def _excite(graph: Graph, name: str, squeezed: int) -> None:
    """Each channel times a factor that is computed from all channels' means."""
    before, channels = graph.last, graph.channels()
    graph.add(AdaptiveAveragePool(name=f"{name}_se_avgpool"))
    graph.conv(f"{name}_se_fc1", squeezed, 1, bias=True)
    graph.add(SiLU(name=f"{name}_se_silu"))
    graph.conv(f"{name}_se_fc2", channels, 1, bias=True)
    factors = graph.add(Sigmoid(name=f"{name}_se_sigmoid"))
    graph.add(Multiply(name=f"{name}_multiply", inputs=(before, factors)))


def _project(
    graph: Graph, name: str, channels: int, shortcut: str, *, stride: int, left_out: float = 0.0
) -> None:
    """Fewer channels again, and the sum with what the block read, if that has their shape."""
    graph.unit(f"{name}_project", channels, 1, activation=None)
    if stride > 1 or graph.channels(shortcut) != channels:
        return
    if left_out:
        graph.add(
            Dropout(
                name=f"{name}_stochastic_depth", rate=left_out, rescaled=True, whole_images=True
            )
        )
    # torchvision's EfficientNet writes result += input, its MobileNetV2 x + conv(x).
    add = Add(name=f"{name}_add", inputs=(graph.last, shortcut), in_place=bool(left_out))
    graph.add(add)


def _classifier(graph: Graph, first_weights: Deviation) -> None:
    graph.add(
        AdaptiveAveragePool(name="avgpool"), Dropout(name="classifier_0", rate=0.2, rescaled=True)
    )
    graph.fully_connected("classifier_1", CLASSES, first_weights)


INVERTED: dict[str, Callable[[], Network]] = {
    "mobilenet_v2": _mobilenet_v2,
    **{f"mnasnet{version}": partial(_mnasnet, version) for version in _WIDTHS},
    "efficientnet_b0": _efficientnet_b0,
}

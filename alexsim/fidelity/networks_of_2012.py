"""Networks as tables of 2011 to 2013 describe them in words, and what one step of them costs.

A description is a list of layers between commas (``conv 5x5 3->32 (pad 2), max 3/2, fc 1024->10``).
cuda-convnet's layers have a ReLU after each convolution, and pools whose last windows may hang over
the edge. Locally connected layers (``local``) ran by its convolution kernels, with the filters of
each window.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from alexsim.costs.cost import Cost, Work, memory_bound
from alexsim.costs.libraries import load_library
from alexsim.machine.device import Device
from alexsim.network import counts
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SoftmaxCrossEntropy,
)
from alexsim.network.network import Network
from alexsim.network.part import Part
from alexsim.plan.buffers import partial_sum_copies
from alexsim.plan.plan import OpKind

_CIFAR_BATCH, _CIFAR_CLASSES = 10_000, 10
_ILSVRC_IMAGES = 1_300_000
"""As the paper of 2013 rounds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A network, its images per step, and how many steps the stated time holds."""

    network: Network
    library: str
    batch_size: int
    steps: float
    partial_sum: int
    """Windows per partial sum of a weight gradient; 0: not stated."""
    local: frozenset[str] = frozenset()
    """Convolutions whose windows have filters of their own."""

    def costs(self, device: Device) -> tuple[Cost, ...]:
        """Pieces of the time of one training step."""
        model = load_library(self.library)
        costs: list[Cost] = []
        for index, (part,) in enumerate(self.network.parts):
            for work in _works(part, self.batch_size, first=index == 0):
                costs += model.costs(device, work, "fp32")
            if isinstance(part.layer, Convolution):
                moved = self._more_bytes(part)
                architecture = f"architecture:{device.architecture.name}:memory"
                traits = ("memory", architecture, "elementwise:cuda-convnet")
                costs += [memory_bound(device, moved, traits)] if moved > 0 else []
        return tuple(costs)

    def _more_bytes(self, part: Part) -> float:
        """Bytes beside what such a convolution moves.

        Partial sums: written, and read to be added. Filters of every window: read by two passes,
        written by the third, and 5 accesses of the update.
        """
        windows = math.prod(part.output_shape[1:])
        weights = FLOAT_BYTES * part.weight_count
        if part.layer.name in self.local:
            return 8.0 * weights * (windows - 1)
        if not self.partial_sum:
            return 0
        copies = -(-windows // self.partial_sum)
        return 2.0 * weights * (copies - partial_sum_copies(part))


def run_of(ran: str, shape: str, batch: str, library: str, unit: str) -> Run | str:
    """The run that a row states, or why it cannot be said.

    Args:
        ran: what ran: one step of all images of a batch of 10,000, or a whole training.
        shape: images; layers; and of a training how many such batches.
        batch: images per step.
        library: whose kernels, with their date.
        unit: of a training on ImageNet, with its epochs.
    """
    if not batch.isdigit():
        return "batch size not stated"
    described = _described(ran, shape)
    if isinstance(described, str):
        return described
    network, local = described
    if not (images := _images(ran, shape, unit)):
        return "how many images the time holds is not stated"
    partial = re.search(r"partialSum=(\d+)", shape)
    return Run(
        network=network,
        library="cuda-convnet-2011-09" if "2011" in library else "cuda-convnet",
        batch_size=int(batch),
        steps=images / int(batch),
        partial_sum=int(partial[1]) if partial else 0,
        local=local,
    )


def _images(ran: str, shape: str, unit: str) -> int:
    """Images in the stated time; 0: not stated."""
    if "whole training step" in ran:
        return _CIFAR_BATCH
    if "whole training" not in ran:
        return 0
    if epochs := re.search(r"(\d+) epochs of 1.3 million images", unit):
        return int(epochs[1]) * _ILSVRC_IMAGES
    _, _, length = shape.rpartition("; ")
    return _CIFAR_BATCH * sum(int(n) * int(m) for n, m in re.findall(r"(\d+) x (\d)\b", length))


def _described(name: str, shape: str) -> tuple[Network, frozenset[str]] | str:
    """The network, and which of its convolutions are locally connected."""
    if name.startswith("ZFNet"):
        return _zfnet(), frozenset()
    images = re.match(r"(\d+)x\1x(\d+)", shape)
    _, _, rest = re.sub(r" \(.*?\)", "", shape).partition("; ")
    listed = rest.partition("; ")[0]
    if images is None or not listed:
        return "the network is not described"
    layers: list[Layer] = []
    local = set()
    for number, text in enumerate(listed.split(", "), start=1):
        new = _layers(text, number)
        if not new:
            return f"no such layer in descriptions: {text}"
        layers += new
        if text.startswith("local"):
            local.add(new[0].name)
    layers.append(SoftmaxCrossEntropy(name="softmax"))
    side = int(images[1])
    network = Network(name=name, input_shape=(int(images[2]), side, side), layers=tuple(layers))
    return network, frozenset(local)


def _layers(text: str, number: int) -> list[Layer]:
    """A layer of a description, with the ReLU after a convolution; empty: none that is known."""
    if convolution := re.match(r"(conv|local) (\d+)x\2 \d+->(\d+)$", text):
        size, filters = int(convolution[2]), int(convolution[3])
        layer = Convolution(
            name=f"conv{number}", filters=filters, size=size, padding=(size - 1) // 2
        )
        return [layer, ReLU(name=f"relu{number}")]
    if pool := re.match(r"(max|avg) (\d)/(\d)$", text):
        kind = MaxPool if pool[1] == "max" else AveragePool
        size, stride = int(pool[2]), int(pool[3])
        return [kind(name=f"pool{number}", size=size, stride=stride, rounding="ceil")]
    if norm := re.match(r"cmrnorm (\d+)$", text):
        return [LocalResponseNorm(name=f"norm{number}", size=int(norm[1]))]
    if units := re.match(r"fc(?: \d+->(\d+))?$", text):
        return [FullyConnected(name=f"fc{number}", units=int(units[1] or _CIFAR_CLASSES))]
    return []


def _zfnet() -> Network:
    """Zeiler and Fergus 2013, figure 3: maps of 110, 55, 26, 13 and 6 pixels."""

    def convolution(number: int, filters: int, size: int, stride: int, padding: int) -> list[Layer]:
        layer = Convolution(
            name=f"conv{number}",
            filters=filters,
            size=size,
            stride=stride,
            padding=padding,
            rounding="floor",
        )
        return [layer, ReLU(name=f"relu{number}")]

    def pool(number: int) -> Layer:
        return MaxPool(name=f"pool{number}", size=3, stride=2, rounding="ceil")

    dense: list[Layer] = []
    for number in (6, 7):
        dense += [FullyConnected(name=f"fc{number}", units=4096), ReLU(name=f"relu{number}")]
        dense.append(Dropout(name=f"dropout{number}"))
    layers = (
        *convolution(1, 96, 7, 2, 1),
        pool(1),
        LocalResponseNorm(name="norm1"),
        *convolution(2, 256, 5, 2, 0),
        pool(2),
        LocalResponseNorm(name="norm2"),
        *convolution(3, 384, 3, 1, 1),
        *convolution(4, 384, 3, 1, 1),
        *convolution(5, 256, 3, 1, 1),
        pool(5),
        *dense,
        FullyConnected(name="fc8", units=1000),
        SoftmaxCrossEntropy(name="softmax"),
    )
    return Network(name="zfnet", input_shape=(3, 224, 224), layers=layers)


def _works(part: Part, batch_size: int, *, first: bool) -> list[Work]:
    """A layer's ops in a training step; images need no gradient."""
    wanted = [(OpKind.FORWARD, counts.forward(part, batch_size))]
    if not first:
        wanted.append((OpKind.GRAD_INPUT, counts.grad_input(part, batch_size)))
    if part.weight_shape:
        wanted.append((OpKind.GRAD_WEIGHT, counts.grad_weight(part, batch_size, fused=False)))
        wanted.append((OpKind.UPDATE, counts.update(part, fused=False)))
    return [
        Work(kind=kind, part=part, batch_size=batch_size, count=count) for kind, count in wanted
    ]

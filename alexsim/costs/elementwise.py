"""Layers that move bytes: pools, norms, activations, dropout, softmax, updates; and fc products."""

from __future__ import annotations

import math
from dataclasses import replace

from alexsim.costs.cost import Cost, Learned, Precision, Work, bytes_of, memory_bound
from alexsim.costs.features import memory_features, product_features
from alexsim.costs.gemm import gemm, tensor_speedup
from alexsim.machine.device import Device
from alexsim.network import counts
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import FullyConnected, Pool, pair
from alexsim.plan.plan import OpKind

_NORMS = ("LocalResponseNorm", "SpatialResponseNorm")
_NORM_GRADIENT_PASSES = 9
"""Operands that the two kernels of 2012 read and write for a norm's gradient (the plan's count,
each operand once, is 4): a product of gradient, output and denominator, then its windowed sum."""


def fully_connected(
    device: Device, work: Work, family: str, precision: Precision = "fp32"
) -> list[Cost]:
    """A cuBLAS product; if it adds straight into the momentum, also its part of the update."""
    part = work.part
    units, inputs = part.weight_shape
    images = work.batch_size
    product = {
        OpKind.FORWARD: (units, images, inputs),
        OpKind.GRAD_INPUT: (inputs, images, units),
        OpKind.GRAD_WEIGHT: (units, inputs, images),
    }[work.kind]
    seconds, limit = gemm(device, *product, split=True, vectors=True, precision=precision)
    traits = product_traits(device, work.kind, precision, family)
    learned = product_features(device.basis, work.kind, product, precision=precision)
    costs = [Cost(seconds, limit, traits, flop=work.count.flop, learned=learned)]
    if work.fused:
        costs.append(part_of_update(device, work, _traits(device, "update", OpKind.UPDATE, family)))
    if work.kind == OpKind.FORWARD and part.bias_shape:
        moved = 2 * work.widths(part).output * images * units
        costs.append(memory_bound(device, moved, (*_by_memory(device), "elementwise:bias")))
    return costs


def product_traits(
    device: Device, kind: OpKind, precision: Precision, family: str = ""
) -> tuple[str, ...]:
    """What cuBLAS products have in common with others.

    With images innermost (cuda-convnet) no pass turns its operands; with images outermost each
    turns others, and differs from the others by that.
    """
    architecture = device.architecture.name
    traits = (f"fc:{kind}", f"architecture:{architecture}", f"architecture:{architecture}:fc")
    if family == "cuda-convnet":
        return traits[1:]
    if tensor_speedup(device, precision) > 1:
        return (*traits, f"precision:{precision}:fc")
    return traits


def cast(device: Device, moved_bytes: int) -> Cost:
    """Copies of numbers as another type."""
    return memory_bound(device, moved_bytes, _by_memory(device))


def elementwise(device: Device, work: Work, family: str, precision: Precision) -> list[Cost]:
    """Any other op: the bytes that the plan counts for it."""
    if work.kind == OpKind.UPDATE:
        traits = _traits(device, "update", OpKind.UPDATE, family)
        return [part_of_update(device, work, traits)]
    moved, layer = bytes_of(work, precision), type(work.part.layer).__name__
    if family == "cuda-convnet" and layer in _NORMS and work.kind == OpKind.GRAD_INPUT:
        moved *= _NORM_GRADIENT_PASSES / 4
    traits = _traits(device, layer, work.kind, family)
    return [memory_bound(device, moved, traits, _learned(device, work, moved, precision))]


_OPS = {
    "ReLU": "relu", "ReLU6": "relu", "LeakyReLU": "relu", "LocalResponseNorm": "lrn",
    "SpatialResponseNorm": "lrn", "BatchNorm": "batchnorm", "LayerNorm": "layernorm",
    "Dropout": "dropout", "Concat": "copy", "Flatten": "copy", "SoftmaxCrossEntropy": "softmax",
    "Softmax": "softmax", "MaxPool": "pool", "AveragePool": "pool", "AdaptiveAveragePool": "pool",
    **dict.fromkeys(
        ("ELU", "Sigmoid", "Tanh", "SiLU", "GELU", "HardSwish", "HardSigmoid"), "transcendental"
    ),
}  # fmt: skip
"""What a layer's op is among the measured ones; others move bytes as an addition does."""


def _learned(device: Device, work: Work, moved: float, precision: Precision) -> Learned | None:
    part, layer = work.part, work.part.layer
    if not moved:
        return None
    channels, *sides = part.output_shape
    pixels = work.batch_size * math.prod(sides)
    item = 2 if precision == "fp16" else FLOAT_BYTES
    forward = work.kind == OpKind.FORWARD
    op = _OPS.get(type(layer).__name__, "add")
    return memory_features(
        device.basis, op, moved, float(item * channels * pixels), pixels, channels,
        # Of gradients only those of response norms were measured: others are asked about as ops
        # that move as many bytes, batch norms' as what keeps statistics.
        backward=2.0 if op == "batchnorm" else float(op == "lrn" and not forward),
        window=float(math.prod(pair(layer.size))) if isinstance(layer, Pool) else 1.0,
        precision=precision,
    )  # fmt: skip


def part_of_update(device: Device, work: Work, traits: tuple[str, ...]) -> Cost:
    """What an update op does of an update, or a weight gradient that is fused with it.

    Fused or not, an update takes as long as its bytes in one kernel: the weight gradient's part of
    it is not done again, so both together never cost more than the two ops apart.
    """
    moved_bytes = whole_bytes = work.count.moved_bytes
    if work.fused:
        whole_bytes = counts.update(work.part, fused=False).moved_bytes
    if work.kind == OpKind.GRAD_WEIGHT:
        moved_bytes = whole_bytes - counts.update(work.part, fused=True).moved_bytes
    return share(memory_bound(device, whole_bytes, traits), moved_bytes / whole_bytes)


def share(whole: Cost, part: float) -> Cost:
    """The given part of a piece, where another kernel does the rest."""
    return replace(whole, seconds=whole.seconds * part, least_s=whole.least_s * part)


def _traits(device: Device, layer: str, kind: OpKind, family: str) -> tuple[str, ...]:
    if family == "cuda-convnet":
        # Its kernels' passes over memory are known; other libraries' figures do not apply to them.
        return (*_by_memory(device), "elementwise:cuda-convnet")
    return (*_by_memory(device), f"elementwise:{layer}:{kind}", f"family:{family}:elementwise")


def is_product(work: Work) -> bool:
    """Whether the op is a fully connected layer's product."""
    return isinstance(work.part.layer, FullyConnected) and work.kind in (
        OpKind.FORWARD,
        OpKind.GRAD_INPUT,
        OpKind.GRAD_WEIGHT,
    )


def _by_memory(device: Device) -> tuple[str, ...]:
    return ("memory", f"architecture:{device.architecture.name}:memory")

"""Layers that move bytes: pools, norms, activations, dropout, softmax, updates; and fc products."""

from __future__ import annotations

import math

from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import FullyConnected
from alexsim.plan.records import OpKind
from alexsim.simulate.costs.gemm import gemm, tensor_speedup
from alexsim.simulate.costs.records import Cost, Precision, Work, memory_bound

_NORMS = ("LocalResponseNorm", "SpatialResponseNorm")
_NORM_GRADIENT_PASSES = 9
"""Operands that the two kernels of 2012 read and write for a norm's gradient (the plan's count,
each operand once, is 4): a product of gradient, output and denominator, then its windowed sum."""


def fully_connected(device: Device, work: Work, precision: Precision = "fp32") -> list[Cost]:
    """A cuBLAS product; the weight gradient reads and writes what it is added to."""
    part = work.part
    units, inputs = part.weight_shape
    images = work.batch_size
    product = {
        OpKind.FORWARD: (units, images, inputs),
        OpKind.GRAD_INPUT: (inputs, images, units),
        OpKind.GRAD_WEIGHT: (units, inputs, images),
    }[work.kind]
    seconds, limit = gemm(device, *product, split=True, vectors=True, precision=precision)
    kind = str(work.kind)
    architecture = device.architecture.name
    traits: tuple[str, ...] = (
        f"fc:{kind}",
        f"architecture:{architecture}",
        f"architecture:{architecture}:fc",
    )
    if tensor_speedup(device, precision) > 1:
        traits = (*traits, f"precision:{precision}:fc")
    costs = [Cost(seconds, limit, traits)]
    if work.fused:
        moved = 2 * FLOAT_BYTES * math.prod(part.weight_shape)
        costs.append(memory_bound(device, moved, (*_by_memory(device), "update")))
    if work.kind == OpKind.FORWARD:
        moved = 2 * FLOAT_BYTES * images * units
        costs.append(memory_bound(device, moved, (*_by_memory(device), "elementwise:bias")))
    return costs


def elementwise(device: Device, work: Work, family: str, precision: Precision) -> list[Cost]:
    """Any other op: the bytes that the plan counts for it."""
    layer = "update" if work.kind == OpKind.UPDATE else type(work.part.layer).__name__
    kind = str(work.kind)
    moved = float(work.count.moved_bytes)
    if precision == "fp16" and work.kind != OpKind.UPDATE:
        moved /= 2
    if family == "cuda-convnet" and layer in _NORMS and work.kind == OpKind.GRAD_INPUT:
        moved *= _NORM_GRADIENT_PASSES / 4
    traits: tuple[str, ...] = (*_by_memory(device), f"elementwise:{layer}:{kind}")
    if family == "cuda-convnet":
        # Its kernels' passes over memory are known; nobody else's figures speak for them.
        traits = (*_by_memory(device), "elementwise:cuda-convnet")
    else:
        traits = (*traits, f"family:{family}:elementwise")
    return [memory_bound(device, moved, traits)]


def is_product(work: Work) -> bool:
    """Whether the op is a fully connected layer's product."""
    return isinstance(work.part.layer, FullyConnected) and work.kind in (
        OpKind.FORWARD,
        OpKind.GRAD_INPUT,
        OpKind.GRAD_WEIGHT,
    )


def _by_memory(device: Device) -> tuple[str, ...]:
    return ("memory", f"architecture:{device.architecture.name}:memory")

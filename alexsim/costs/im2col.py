"""Convolution as one matrix product per image (Caffe, Torch's SpatialConvolutionMM, CorrMM).

Each image's windows are written out as the columns of a matrix (``im2col``), which a cuBLAS
product reads; the input gradient goes the way back (``col2im``). Frameworks did so from 2013 to
2016, with the cuBLAS of their time.
"""

from __future__ import annotations

from alexsim.costs.cost import (
    ConvolutionShape,
    Cost,
    Limit,
    Work,
    convolution_shape,
    launch_s,
    memory_bound,
)
from alexsim.costs.cublas import product_of_2014
from alexsim.costs.features import convolution_features
from alexsim.costs.gemm import gemm
from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import Convolution, pair
from alexsim.plan.plan import OpKind

_LAST_YEAR = 2015
"""Of cards whose products frameworks took from the cuBLAS of that time."""
_WRITE, _GATHER = 0.7, 0.4
"""Share of the memory's rate of ``im2col``, a thread per pixel and channel that writes all its
taps, and of ``col2im``, whose threads gather as many, far apart."""


def product(device: Device, kind: OpKind, shape: ConvolutionShape) -> tuple[float, Limit]:
    """Seconds of the product of one image and group, and what limits it."""
    sides = {
        OpKind.FORWARD: (shape.outputs, shape.filters, shape.depth),
        OpKind.GRAD_INPUT: (shape.outputs, shape.depth, shape.filters),
        OpKind.GRAD_WEIGHT: (shape.depth, shape.filters, shape.outputs),
    }[kind]
    if device.year > _LAST_YEAR or device.architecture.registers_per_thread.value < 128:
        return gemm(device, *sides)
    return product_of_2014(device, *sides, by_depth=kind == OpKind.GRAD_WEIGHT)


def windows_s(device: Device, kind: OpKind, shape: ConvolutionShape) -> float:
    """Seconds in which all images' windows are written out, or gathered."""
    if shape.taps == 1 and shape.stride == 1:
        return 0.0
    matrix = FLOAT_BYTES * shape.batch_size * shape.groups * shape.depth * shape.outputs
    share = _GATHER if kind == OpKind.GRAD_INPUT else _WRITE
    moved_s = (matrix + shape.input_bytes) / device.memory_bytes_per_s.value
    return max(moved_s, launch_s(device)) / share


def whole_s(device: Device, kind: OpKind, shape: ConvolutionShape) -> float:
    """Seconds of all images: one product for each image and group, between kernels that write and
    read its windows."""
    each_s = product(device, kind, shape)[0] + 2 * launch_s(device)
    return shape.batch_size * shape.groups * each_s + windows_s(device, kind, shape)


def _learned(device: Device, work: Work, shape: ConvolutionShape, library: str) -> Cost:
    layer = work.part.layer
    assert isinstance(layer, Convolution)
    learned = convolution_features(
        device.basis, work.kind, shape, pair(layer.size), algorithm="im2col",
        base_s=whole_s(device.basis, work.kind, shape),
    )  # fmt: skip
    traits = (f"library:{library}", f"library:{library}:{work.kind}")
    limit = product(device, work.kind, shape)[1]
    seconds = whole_s(device, work.kind, shape)
    return Cost(seconds, limit, traits, flop=work.count.flop, learned=learned)


def convolution(device: Device, work: Work, library: str) -> list[Cost]:
    """A convolution op by im2col and cuBLAS, or a CPU's BLAS."""
    shape = convolution_shape(work)
    if device.architecture.platform == "cpu" or device.year > _LAST_YEAR:
        return [_learned(device, work, shape, library)]
    seconds, limit = product(device, work.kind, shape)
    launches = shape.batch_size * shape.groups
    architecture = device.architecture.name
    kind = str(work.kind)
    costs = [
        Cost(
            launches * seconds,
            limit,
            (
                f"library:{library}",
                f"library:{library}:{kind}",
                f"architecture:{architecture}",
                f"architecture:{architecture}:{library}",
            ),
            flop=work.count.flop,
        )
    ]
    if moving_s := windows_s(device, work.kind, shape):
        traits: tuple[str, ...] = (f"im2col:{kind}", f"architecture:{architecture}:memory")
        costs.append(Cost(moving_s, "memory", traits))
    if work.kind == OpKind.FORWARD:
        traits = ("memory", f"architecture:{architecture}:memory", "elementwise:bias")
        costs.append(memory_bound(device, 2 * shape.output_bytes, traits))
    # Kernels on one image are short: each waits for the kernel before it to drain.
    each = 2 + (work.kind == OpKind.FORWARD)
    costs.append(Cost(each * shape.batch_size * launch_s(device), "launch", ("im2col:launch",)))
    return costs

"""Convolution as one matrix product per image (Caffe, Torch's SpatialConvolutionMM, CorrMM).

Each image's windows are written out as the columns of a matrix (``im2col``), which a cuBLAS
product reads; the input gradient goes the way back (``col2im``).
"""

from __future__ import annotations

from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.plan import OpKind
from alexsim.simulate.costs.cost import Cost, Work, convolution_shape, launch_s, memory_bound
from alexsim.simulate.costs.gemm import gemm


def convolution(device: Device, work: Work, library: str) -> list[Cost]:
    """A convolution op by im2col and cuBLAS."""
    shape = convolution_shape(work)
    product = {
        OpKind.FORWARD: (shape.filters, shape.outputs, shape.depth),
        OpKind.GRAD_INPUT: (shape.depth, shape.outputs, shape.filters),
        OpKind.GRAD_WEIGHT: (shape.filters, shape.depth, shape.outputs),
    }[work.kind]
    seconds, limit = gemm(device, *product)
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
    if shape.taps > 1 or shape.stride > 1:
        matrix = FLOAT_BYTES * shape.groups * shape.depth * shape.outputs
        image = shape.input_bytes / shape.batch_size
        traits: tuple[str, ...] = (f"im2col:{kind}", f"architecture:{architecture}:memory")
        costs.append(memory_bound(device, shape.batch_size * (matrix + image), traits))
    if work.kind == OpKind.FORWARD:
        traits = ("memory", f"architecture:{architecture}:memory", "elementwise:bias")
        costs.append(memory_bound(device, 2 * shape.output_bytes, traits))
    # Kernels on one image are short: each waits for the kernel before it to drain.
    each = 2 + (work.kind == OpKind.FORWARD)
    costs.append(Cost(each * shape.batch_size * launch_s(device), "launch", ("im2col:launch",)))
    return costs

"""A convolution op by cuDNN, or by another library of its algorithms."""

from __future__ import annotations

from operator import attrgetter

from alexsim.costs.cost import (
    Cost,
    Limit,
    Precision,
    Work,
    convolution_shape,
    launch_s,
)
from alexsim.costs.cudnn import candidates
from alexsim.costs.features import convolution_features
from alexsim.costs.gemm import tensor_speedup
from alexsim.machine.device import Device
from alexsim.network.layers import Convolution, pair


def convolution(
    device: Device,
    work: Work,
    library: str,
    allowed: frozenset[str],
    precision: Precision = "fp32",
    *,
    algorithm: str = "",
) -> Cost:
    """A convolution op by the fastest of the allowed algorithms that can do it.

    A library searches for it, as ``cudnnFindConvolution...`` does by trial; or ``algorithm`` says
    how it was chosen or is done (of ``features.STATED``), whose cost measured kernels have taught.
    """
    shape, kind, layer = convolution_shape(work), work.kind, work.part.layer
    assert isinstance(layer, Convolution)
    best = min(
        candidates(device, kind, shape, allowed, precision).values(), key=attrgetter("seconds")
    )
    few = ":few" if shape.channels <= 3 else ""
    architecture = device.architecture.name
    traits: tuple[str, ...] = (
        f"library:{library}",
        f"library:{library}:{kind}{few}",
        f"architecture:{architecture}",
        f"architecture:{architecture}:cudnn",
    )
    if tensor_speedup(device, precision) > 1:
        # What keeps tensor cores waiting is much the same for every precision.
        tensor = ("precision:tensor", f"precision:{precision}:{architecture}")
        traits = (*traits, *tensor, f"precision:{precision}:conv")
    learned = convolution_features(
        device.basis, kind, shape, pair(layer.size), allowed=allowed, algorithm=algorithm,
        version=version_of(library), precision=precision,
    )  # fmt: skip
    return Cost(best.seconds, best.limit, traits, flop=best.flop, learned=learned)


_DEPTHWISE = 0.25
"""Share of the lanes that PyTorch's own depthwise kernels keep busy: each multiply-add waits for a
load that a neighbour shares."""


def depthwise(device: Device, work: Work) -> Cost:
    """A depthwise convolution by PyTorch's own kernels (``aten/native/cuda/DepthwiseConv2d.cu``),
    which it takes before cuDNN's."""
    shape = convolution_shape(work)
    moved_s = (shape.input_bytes + shape.output_bytes) / device.memory_bytes_per_s.value
    compute_s = work.count.flop / (_DEPTHWISE * device.sustained_flop_per_s)
    chosen = "family:pytorch:depthwise"
    architecture = f"architecture:{device.architecture.name}"
    limit: Limit = "compute" if compute_s > moved_s else "memory"
    seconds = max(moved_s, compute_s, launch_s(device))
    traits = (chosen, f"{chosen}:{work.kind}", architecture)
    return Cost(seconds, limit, traits, flop=work.count.flop)


def version_of(library: str) -> float:
    """cuDNN's version as a number; 0 of libraries that are not cuDNN."""
    number = library.removeprefix("cudnn-v")
    return float(number) if number != library else 0.0

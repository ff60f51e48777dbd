"""A convolution op by cuDNN, or by another library of its algorithms."""

from __future__ import annotations

from operator import attrgetter

from alexsim.machine.device import Device
from alexsim.network.layers import Convolution, pair
from alexsim.simulate.costs.cost import Cost, Precision, Work, convolution_shape
from alexsim.simulate.costs.cudnn import candidates
from alexsim.simulate.costs.features import convolution_features
from alexsim.simulate.costs.gemm import tensor_speedup


def convolution(
    device: Device,
    work: Work,
    library: str,
    allowed: frozenset[str],
    precision: Precision = "fp32",
) -> Cost:
    """A convolution op by the fastest of the allowed algorithms that can do it.

    A library searches for it, as ``cudnnFindConvolution...`` does by trial.
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
        device.basis, kind, shape, pair(layer.size), version=version_of(library),
        precision=precision,
    )  # fmt: skip
    return Cost(best.seconds, best.limit, traits, flop=best.flop, learned=learned)


def version_of(library: str) -> float:
    """cuDNN's version as a number; 0 of libraries that are not cuDNN."""
    number = library.removeprefix("cudnn-v")
    return float(number) if number != library else 0.0

"""cuDNN's convolutions by version, and Nervana's: implicit products, FFT and Winograd.

A version has a set of algorithms; each op takes the fastest by the model, as
``cudnnFindConvolution...`` does by trial. Versions and what they brought, from the release notes:

=======  ===============================================================
v1, v2   implicit product
v3       FFT, for stride 1
v4       FFT in tiles of 32 x 32
v5       Winograd F(2x2, 3x3), fused, for all but the weight gradient
v5.1     Winograd F(4x4, 3x3), transforms in memory, weight gradient too
v7       tensor cores for FP16; v8: TF32
=======  ===============================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.plan import OpKind
from alexsim.simulate.costs.cost import (
    LAUNCH_S,
    ConvolutionShape,
    Cost,
    Limit,
    Precision,
    Work,
    convolution_shape,
)
from alexsim.simulate.costs.gemm import gemm, tensor_speedup

VERSIONS = ("v1", "v2", "v3", "v4", "v5", "v5.1", "v6", "v7", "v8")
_FFT_FROM, _TILES_FROM, _FUSED_FROM, _WINOGRAD_FROM = 2, 3, 4, 5
_FFT_LARGEST = 256
_FFTS = ((False, "fft"), (True, "fft-tiled"))


def algorithms(version: str) -> frozenset[str]:
    """Algorithms that a version has."""
    age = VERSIONS.index(version)
    names = {"implicit"}
    if age >= _FFT_FROM:
        names.add("fft")
    if age >= _TILES_FROM:
        names.add("fft-tiled")
    if age >= _FUSED_FROM:
        names.add("winograd-2")
    if age >= _WINOGRAD_FROM:
        names.add("winograd-4")
    return frozenset(names)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An algorithm's time, what limits it, and the FLOP of the multiply-adds that it does."""

    seconds: float
    limit: Limit
    flop: float


def convolution(
    device: Device,
    work: Work,
    library: str,
    allowed: frozenset[str],
    precision: Precision = "fp32",
) -> tuple[Cost, ...]:
    """A convolution op by each of the allowed algorithms that can do it."""
    shape, kind = convolution_shape(work), work.kind
    candidates = []
    if "implicit" in allowed:
        seconds, limit = implicit(device, kind, shape, precision)
        candidates.append(Candidate(seconds, limit, work.count.flop))
    # Depthwise convolutions have no matrices for tensor cores: in half precision they are done as
    # in float32.
    plain = precision == "fp32" or (shape.groups > 1 and shape.channels == 1)
    if shape.stride == 1 and shape.size > 1 and plain:
        sides = (_fft_tile(kind, shape, tiled=t) for t, n in _FFTS if n in allowed)
        candidates += [fft(device, kind, shape, side) for side in sides if side]
        if shape.size == 3:
            if "winograd-2" in allowed and kind != OpKind.GRAD_WEIGHT:
                candidates.append(winograd(device, kind, shape, 2))
            if "winograd-4" in allowed:
                candidates.append(winograd(device, kind, shape, 4))
    few = ":few" if shape.channels <= 3 else ""
    architecture = device.architecture.name
    # All algorithms have the same traits: a correction of one algorithm alone would change which is
    # the fastest, and could lead a faster card to a slower algorithm.
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
    return tuple(Cost(c.seconds, c.limit, traits, flop=c.flop) for c in candidates)


def implicit(
    device: Device, kind: OpKind, shape: ConvolutionShape, precision: Precision = "fp32"
) -> tuple[float, Limit]:
    """One matrix product over all images; the matrix of windows is never in memory.

    The input gradient is the product of the turned filters with the output's gradient, or, for
    few channels, one product whose results are added into the input (cuDNN's algorithm 0).
    """
    images, groups = shape.batch_size, shape.groups
    pixels = images * shape.outputs

    def product(rows: int, columns: int, depth: int, *, split: bool = False) -> tuple[float, Limit]:
        seconds, limit = gemm(
            device, rows, columns, depth, split=split, operands_move=False, precision=precision
        )
        return groups * seconds, limit

    if kind == OpKind.FORWARD:
        seconds, limit = product(shape.filters, pixels, shape.depth)
    elif kind == OpKind.GRAD_WEIGHT:
        seconds, limit = product(shape.filters, shape.depth, pixels, split=True)
    else:
        depth = ceil(shape.filters * shape.taps / shape.stride**2)
        gather = product(shape.channels, images * shape.inputs, depth)
        scatter_s, scatter_limit = product(shape.depth, pixels, shape.filters)
        seconds, limit = min(gather, (scatter_s, scatter_limit))
    return seconds, limit


def _fft_tile(kind: OpKind, shape: ConvolutionShape, *, tiled: bool) -> int | None:
    """Side of the transforms, a power of two, or None where they do not apply."""
    if tiled:
        return 32 if shape.size <= 16 and shape.extent > 32 else None
    needed = shape.extent
    if kind == OpKind.GRAD_INPUT:
        needed = shape.out_extent + 2 * (shape.size - 1)
    side = 1 << max(3, ceil(log2(needed)))
    return side if side <= _FFT_LARGEST else None


def fft(device: Device, kind: OpKind, shape: ConvolutionShape, side: int) -> Candidate:
    """Transform, multiply per frequency, transform back (Mathieu et al. 2013).

    A complex multiply-add is four real multiply-adds; a real transform of n^2 points takes
    2.5 n^2 log2 n^2 FLOP. The spectra of inputs, filters and outputs cross memory twice.
    """
    useful = side - shape.size + 1
    pieces = 1 if side >= shape.extent else ceil(shape.out_extent / useful) ** 2
    images = shape.batch_size * pieces
    planes = shape.groups * (
        images * shape.channels + shape.channels * shape.filters + images * shape.filters
    )
    frequencies = side * (side // 2 + 1)
    transform_flop = planes * 2.5 * side**2 * log2(side**2)
    moved = planes * frequencies * 2 * FLOAT_BYTES * 2 + shape.input_bytes + shape.output_bytes
    rows, columns, depth = {
        OpKind.FORWARD: (shape.filters, images, shape.channels),
        OpKind.GRAD_INPUT: (shape.channels, images, shape.filters),
        OpKind.GRAD_WEIGHT: (shape.filters, shape.channels, images),
    }[kind]
    batches = shape.groups * frequencies
    product_s, limit = gemm(device, rows, columns, 4 * depth, batches=batches)
    transform_s = max(
        transform_flop / (0.3 * device.flop_per_s), moved / device.memory_bytes_per_s.value
    )
    return Candidate(
        product_s + transform_s,
        limit if product_s > transform_s else "memory",
        2 * batches * rows * columns * 4 * depth,
    )


def winograd(device: Device, kind: OpKind, shape: ConvolutionShape, outputs: int) -> Candidate:
    """F(m x m, 3 x 3): (m + 2)^2 products over tiles of m x m outputs (Lavin & Gray 2015).

    F(2x2) keeps its transforms in registers; F(4x4) writes them to memory and reads them back.
    """
    points = (outputs + 2) ** 2
    extent = shape.out_extent
    if kind == OpKind.GRAD_INPUT:
        extent = round(shape.inputs**0.5)
    tiles = shape.batch_size * ceil(extent / outputs) ** 2
    rows, columns, depth = {
        OpKind.FORWARD: (shape.filters, tiles, shape.channels),
        OpKind.GRAD_INPUT: (shape.channels, tiles, shape.filters),
        OpKind.GRAD_WEIGHT: (shape.filters, shape.channels, tiles),
    }[kind]
    batches, split = shape.groups * points, kind == OpKind.GRAD_WEIGHT
    product_s, limit = gemm(device, rows, columns, depth, batches=batches, split=split)
    flop = 2 * batches * rows * columns * depth
    moved = shape.input_bytes + shape.output_bytes
    if outputs > 2:
        channels = shape.groups * (shape.channels + shape.filters)
        moved += FLOAT_BYTES * 2 * points * (tiles * channels + shape.channels * shape.filters)
    moved_s = moved / device.memory_bytes_per_s.value
    seconds = product_s + moved_s + 2 * LAUNCH_S
    if outputs == 2:
        # Transforms of 32 and 24 additions per tile and channel share the lanes with the products.
        seconds = max(product_s * 1.15, moved_s)
    return Candidate(seconds, limit if product_s > moved_s else "memory", flop)

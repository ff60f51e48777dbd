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
from functools import lru_cache
from math import ceil, log2

from alexsim.costs.cost import (
    ConvolutionShape,
    Limit,
    Precision,
    launch_s,
)
from alexsim.costs.gemm import gemm
from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.plan import OpKind

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


@lru_cache(maxsize=16384)
def candidates(
    device: Device,
    kind: OpKind,
    shape: ConvolutionShape,
    allowed: frozenset[str],
    precision: Precision = "fp32",
) -> dict[str, Candidate]:
    """Each of the allowed algorithms that can do a convolution's pass, by name."""
    ways = {}
    flop = 2.0 * shape.batch_size * shape.groups * shape.filters * shape.outputs * shape.depth
    if "implicit" in allowed:
        ways["implicit"] = Candidate(*implicit(device, kind, shape, precision), flop)
    if "gemm" in allowed:
        ways["gemm"] = Candidate(*explicit(device, kind, shape, precision), flop)
    plain = precision == "fp32" or shape.depthwise
    if shape.stride == 1 and shape.size > 1 and plain:
        for tiled, name in _FFTS:
            if name in allowed and (side := _fft_tile(kind, shape, tiled=tiled)):
                ways[name] = fft(device, kind, shape, side)
        if shape.size == 3 and not shape.depthwise:
            if "winograd-2" in allowed and kind != OpKind.GRAD_WEIGHT:
                ways["winograd-2"] = winograd(device, kind, shape, 2)
            if "winograd-4" in allowed:
                ways["winograd-4"] = winograd(device, kind, shape, 4)
    return ways


_DEPTHWISE = 0.1
"""Share of the lanes that depthwise kernels keep busy: every multiply-add waits for its own load
(median of the fastest algorithms on eight cards)."""


def implicit(
    device: Device, kind: OpKind, shape: ConvolutionShape, precision: Precision = "fp32"
) -> tuple[float, Limit]:
    """One matrix product over all images and groups in one launch; the matrix of windows is never
    in memory.

    The input gradient is the product of the turned filters with the output's gradient, or, for
    few channels, one product whose results are added into the input (cuDNN's algorithm 0).
    Depthwise convolutions have no matrices for tiles nor tensor cores.
    """
    least_s = (shape.input_bytes + shape.output_bytes) / device.memory_bytes_per_s.value
    if shape.depthwise:
        multiplied = (
            2 * shape.batch_size * shape.groups * shape.filters * shape.outputs * shape.taps
        )
        seconds = multiplied / (_DEPTHWISE * device.sustained_flop_per_s)
        limit: Limit = "compute"
    else:
        rows, columns, depth = product_sides(kind, shape)
        split = kind == OpKind.GRAD_WEIGHT
        seconds, limit = gemm(
            device, rows, columns, depth, batches=shape.groups, split=split,
            operands_move=False, precision=precision,
        )  # fmt: skip
        if kind == OpKind.GRAD_INPUT:
            scattered = gemm(
                device, shape.depth, shape.batch_size * shape.outputs, shape.filters,
                batches=shape.groups, operands_move=False, precision=precision,
            )  # fmt: skip
            seconds, limit = min((seconds, limit), scattered)
    if precision == "fp16":
        least_s /= 2
    if seconds > max(least_s, launch_s(device)):
        return seconds, limit
    return max(least_s, launch_s(device)), "memory" if least_s > launch_s(device) else "launch"


def product_sides(kind: OpKind, shape: ConvolutionShape) -> tuple[int, int, int]:
    """Rows, columns and depth of one group's product in a pass."""
    pixels = shape.batch_size * shape.outputs
    if kind == OpKind.FORWARD:
        return shape.filters, pixels, shape.depth
    if kind == OpKind.GRAD_WEIGHT:
        return shape.filters, shape.depth, pixels
    depth = ceil(shape.filters * shape.taps / shape.stride**2)
    return shape.channels, shape.batch_size * shape.inputs, depth


def explicit(
    device: Device, kind: OpKind, shape: ConvolutionShape, precision: Precision = "fp32"
) -> tuple[float, Limit]:
    """As ``implicit``, with the windows of all images written out and read back."""
    seconds, limit = implicit(device, kind, shape, precision)
    matrix = FLOAT_BYTES * shape.batch_size * shape.groups * shape.depth * shape.outputs
    moved_s = 2 * matrix / device.memory_bytes_per_s.value
    return seconds + moved_s + launch_s(device), limit if seconds > moved_s else "memory"


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
        transform_flop / (0.3 * device.sustained_flop_per_s),
        moved / device.memory_bytes_per_s.value,
    )
    return Candidate(
        product_s + transform_s + 2 * launch_s(device),
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
    seconds = product_s + moved_s + 2 * launch_s(device)
    if outputs == 2:
        # Transforms of 32 and 24 additions per tile and channel share the lanes with the products.
        seconds = max(product_s * 1.15, moved_s, launch_s(device))
    return Candidate(seconds, limit if product_s > moved_s else "memory", flop)

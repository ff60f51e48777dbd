"""What the trees look at: a call's shape and its mechanism, without the card's own scale.

Ratios, shares, logarithms and counts, so that what one card has taught holds for another: how
the product's tiles fill the multiprocessors, which algorithm would be how much slower, what limits.
They are those of the device's sheet: a number that a user changes moves the mechanism alone, so
more of a resource is never slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from math import ceil, gcd, log, log2

from alexsim.costs.cost import (
    ConvolutionShape,
    Kind,
    Learned,
    Precision,
    Realm,
    launch_s,
)
from alexsim.costs.cudnn import candidates, product_sides
from alexsim.costs.gemm import gemm, peak_flop_per_s, tensor_speedup
from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.plan import OpKind

_TILES = ((128, 128), (128, 64), (64, 64), (32, 32))
_SIDES = (
    "rows", "columns", "depth", "groups",
    *(f"{what} {rows}x{columns}" for rows, columns in _TILES for what in ("waves", "last", "fill")),
    "rows divide", "columns divide", "depth divides",
)  # fmt: skip
ALGORITHMS = ("implicit", "gemm", "fft", "fft-tiled", "winograd-2", "winograd-4")
STATED = ("", "advised", "precomputed", *ALGORITHMS, "im2col", "libdnn")
"""Which algorithm ran: empty where the library chose the fastest by trial, ``advised`` where it
chose by rules without a trial."""
_ALL = frozenset(ALGORITHMS)
STEP = "step"
"""Forward, both gradients and the update in one measured call."""
_PASSES = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT, STEP)
PRODUCTS = ("linear", "gemm", "bmm", "gemv")
MEMORY_OPS = (
    "add", "relu", "copy", "scalar", "transcendental", "pool", "lrn", "batchnorm", "dropout",
    "bias", "softmax", "layernorm",
)  # fmt: skip
_NEVER = 9.0
"""Logarithm of how much slower an algorithm is that cannot do the call."""

NAMES: dict[Kind, tuple[str, ...]] = {
    "convolution": (
        "over roofline", "compute over memory", *(f"{name} instead" for name in ALGORITHMS),
        "launch", *_SIDES, "channels", "filters", "height of filter", "width of filter", "stride",
        "padding", "channels last", "pass", "algorithm", "version", "depthwise", "epilogue",
        "precision",
    ),
    "product": (
        "over roofline", "compute over memory", "launch", *_SIDES, "pass", "op", "version",
        "epilogue", "precision", "cores fed", "L2", "clocks of launch",
    ),
    "memory": (
        "launch", "bytes", "bytes over L2", "op", "pass", "moved per output", "rows", "row",
        "window", "multiprocessors", "lanes", "clock", "bytes per clock", "L2",
        "shared memory", "watts", "precision",
    ),
}  # fmt: skip
"""Features by kind of call, in order."""


def _sides(device: Device, rows: int, columns: int, depth: int, groups: int) -> list[float]:
    multiprocessors = device.multiprocessors.value
    numbers = [log(rows), log(columns), log(depth), log(groups)]
    for high, wide in _TILES:
        down, across = ceil(rows / high), ceil(columns / wide)
        waves = down * across * groups / multiprocessors
        numbers += (log(waves), waves / ceil(waves), rows * columns / (down * high * across * wide))
    return [*numbers, log2(gcd(rows, 64)), log2(gcd(columns, 64)), log2(gcd(depth, 64))]


def _precision(device: Device, precision: Precision) -> float:
    if precision == "fp32":
        return 0.0
    return 1.0 if tensor_speedup(device, precision) > 1 else 2.0


_OTHERS: Mapping[str, Realm] = {"hip": "amd", "cpu": "cpu"}


def _realm(device: Device, precision: Precision) -> Realm:
    if other := _OTHERS.get(device.architecture.platform):
        return other
    if device.architecture.generation in ("fermi", "tesla"):
        return "before"
    if precision == "fp32":
        return "fp32"
    # Half precision without tensor cores: two cards are too few to say what others do.
    return "half" if tensor_speedup(device, precision) > 1 else "before"


@lru_cache(maxsize=16384)
def convolution_features(  # noqa: PLR0913 - what tells calls apart
    device: Device,
    kind: OpKind | str,
    shape: ConvolutionShape,
    filter_sides: tuple[int, int],
    *,
    base_s: float = 0.0,
    allowed: frozenset[str] = _ALL,
    algorithm: str = "",
    version: float = 0.0,
    channels_last: bool = False,
    epilogue: float = 0.0,
    precision: Precision = "fp32",
) -> Learned:
    """Features of a convolution's pass, or of a whole ``STEP``.

    Args:
        device: with its sheet's numbers.
        kind: the pass.
        shape: dimensions per group.
        filter_sides: height and width.
        base_s: seconds of the mechanism; by default of the fastest that is allowed.
        allowed: algorithms that the library has.
        algorithm: of ``STATED``.
        version: cuDNN's; 0 where it is another library.
        channels_last: whether operands are transposed on the way.
        epilogue: 1 with a bias, 2 with an activation, 3 with both, 0 without.
        precision: of the products.
    """
    passes = [OpKind(kind)] if kind != STEP else [*_PASSES[:3]]
    ways: dict[str, float] = {}
    for each in passes:
        assert isinstance(each, OpKind)
        for name, way in candidates(device, each, shape, _ALL, precision).items():
            ways[name] = ways.get(name, 0.0) + way.seconds
    base_s = base_s or min(seconds for name, seconds in ways.items() if name in allowed)
    moved = shape.input_bytes + shape.output_bytes
    moved += FLOAT_BYTES * shape.groups * shape.filters * shape.depth
    memory_s = len(passes) * moved / device.memory_bytes_per_s.value
    flop = 2.0 * shape.batch_size * shape.groups * shape.filters * shape.outputs * shape.depth
    compute_s = len(passes) * flop / peak_flop_per_s(device, precision)
    first = passes[0]
    assert isinstance(first, OpKind)
    padding = (shape.extent - shape.height) // 2
    return Learned(
        "convolution",
        _realm(device, precision),
        (
            log(base_s / max(compute_s, memory_s)),
            log(compute_s / memory_s),
            *(log(ways[a] / base_s) if a in ways else _NEVER for a in ALGORITHMS),
            launch_s(device) / base_s,
            *_sides(device, *product_sides(first, shape), shape.groups),
            log(shape.channels),
            log(shape.filters),
            *filter_sides,
            shape.stride,
            padding,
            float(channels_last),
            _PASSES.index(kind),
            STATED.index(algorithm),
            version,
            float(shape.depthwise),
            epilogue,
            _precision(device, precision),
        ),
    )


@lru_cache(maxsize=16384)
def product_features(  # noqa: PLR0913 - what tells calls apart
    device: Device,
    kind: OpKind | str,
    sides: tuple[int, int, int],
    batches: int = 1,
    *,
    op: str = "linear",
    base_s: float = 0.0,
    version: float = 0.0,
    epilogue: float = 0.0,
    precision: Precision = "fp32",
) -> Learned:
    """Features of a matrix product's pass; ``op`` is of ``PRODUCTS``, ``version`` CUDA's."""
    rows, columns, depth = sides
    item = 2 if precision == "fp16" else FLOAT_BYTES
    moved = item * batches * (rows * depth + depth * columns + rows * columns)
    compute_s = 2.0 * batches * rows * columns * depth / peak_flop_per_s(device, precision)
    memory_s = moved / device.memory_bytes_per_s.value
    base_s = base_s or product_s(device, sides, batches, precision)
    return Learned(
        "product",
        _realm(device, precision),
        (
            log(base_s / max(compute_s, memory_s)),
            log(compute_s / memory_s),
            launch_s(device) / base_s,
            *_sides(device, rows, columns, depth, batches),
            _PASSES.index(kind),
            PRODUCTS.index(op),
            version,
            epilogue,
            _precision(device, precision),
            log(peak_flop_per_s(device, precision) / device.memory_bytes_per_s.value),
            log(moved / device.l2_bytes.value),
            log(launch_s(device) * device.clock_hz.value),
        ),
    )


def product_s(
    device: Device, sides: tuple[int, int, int], batches: int, precision: Precision
) -> float:
    """Seconds of a product's mechanism."""
    return gemm(device, *sides, batches=batches, split=True, vectors=True, precision=precision)[0]


@lru_cache(maxsize=16384)
def memory_features(  # noqa: PLR0913 - what tells calls apart
    device: Device,
    op: str,
    moved_bytes: float,
    output_bytes: float,
    rows: float,
    row: float,
    *,
    backward: float = 0.0,
    window: float = 1.0,
    precision: Precision = "fp32",
) -> Learned:
    """Features of an op that moves bytes; ``op`` is of ``MEMORY_OPS``.

    Args:
        device: with its sheet's numbers.
        op: what is done.
        moved_bytes: read and written.
        output_bytes: written.
        rows: images and pixels, or rows of a matrix.
        row: channels, or a row's values.
        backward: 1 for a gradient, 2 for a training step's forward pass that keeps statistics.
        window: values that an output looks at.
        precision: of the numbers.
    """
    clock, multiprocessors = device.clock_hz.value, device.multiprocessors.value
    moved_s = moved_bytes / device.memory_bytes_per_s.value
    return Learned(
        "memory",
        _realm(device, precision),
        (
            log(launch_s(device) / moved_s),
            log(moved_bytes),
            log(moved_bytes / device.l2_bytes.value),
            MEMORY_OPS.index(op),
            backward,
            moved_bytes / output_bytes,
            log(rows),
            log(row),
            window,
            multiprocessors,
            device.architecture.lanes_per_sm.value,
            clock / 1e9,
            device.memory_bytes_per_s.value / clock / multiprocessors,
            log(device.l2_bytes.value),
            device.shared_bytes_per_sm.value / 1024,
            device.power_w.value / multiprocessors,
            0.0 if precision == "fp32" else 1.0,
        ),
    )

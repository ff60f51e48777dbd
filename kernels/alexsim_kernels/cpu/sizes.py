"""Scratch of every kernel, by shape and number of threads.

Imports nothing but the standard library: a plan states what a step takes before anything is built.
"""

from __future__ import annotations

from typing import Literal, get_args

from alexsim_kernels.cpu import indirect_cuts
from alexsim_kernels.cpu.algorithm import Algorithm, Pass, Shape, choose
from alexsim_kernels.cpu.cuts import cut
from alexsim_kernels.cpu.scratch import Buffers, padded, tiled
from alexsim_kernels.cpu.windows import Windows

Window = Literal["across", "over"]
Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_PIXELS = 16
"""``PIXELS`` of ``norm.cpp``."""
_UNITS, _INPUTS, _STRIP = 48, 64, 256
"""``UNITS``, ``INPUTS`` and ``STRIP`` of ``linear.cpp``."""
_PAIRS_DEPTH, _PAIRS_UNITS, _PAIRS_INPUTS, _PAIRS_STRIP = 256, 48, 256, 128
"""``DEPTH``, ``UNITS``, ``INPUTS`` and ``STRIP`` of ``linear_bf16.cpp``."""
_MOST_ROWS = 6
"""``PANEL_ROWS`` of ``product.h``: units of a strip of gradients."""

_NORM_SLICES = 256
"""Slices of a batch norm's pixels, at most: short sums round less."""
_NORM_SLICE_PIXELS = 256
"""Of a slice, at least."""


def convolution(
    shape: Shape,
    pass_: Pass,
    *,
    algorithm: Algorithm | None = None,
    threads: int,
    item_bytes: int = 4,
) -> Buffers:
    """Of a pass of a convolution.

    Args:
        shape: of the convolution.
        pass_: ``forward``, ``grad_input`` or ``grad_weight``.
        algorithm: what it is computed by; ``choose``'s if not given.
        threads: that compute it.
        item_bytes: of a value: 4, or 8 for float64. It decides the cuts.
    """
    algorithm = algorithm or choose(shape, pass_)
    if algorithm.kind == "indirect":
        return indirect_cuts.cut(shape, pass_, threads, item_bytes).buffers
    cuts = tiled if algorithm.rows else cut
    return cuts(shape, algorithm, pass_, threads, item_bytes).buffers


def linear(
    pass_: Pass,
    images: int,
    inputs: int,
    units: int,
    *,
    threads: int,
    precision: Precision = "fp32",
) -> Buffers:
    """Of a pass of a fully connected layer.

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "bf16":
        return _linear_of_pairs(pass_, images, inputs, units, threads)
    if pass_ == "forward":
        return Buffers(
            {"packed": padded(images) * inputs, "block": threads * _UNITS * padded(images)}
        )
    if pass_ == "grad_input":
        return Buffers({"block": threads * _INPUTS * (_STRIP + images)})
    strips = (units + _MOST_ROWS) * images
    return Buffers({"packed": strips, "block": threads * 4 * _INPUTS * images})


def _linear_of_pairs(pass_: Pass, images: int, inputs: int, units: int, threads: int) -> Buffers:
    """Of bfloat16: a pair of values is as large as a value of float32."""
    if pass_ == "forward":
        packed = padded(images) * -(-inputs // 2)
        each = _PAIRS_UNITS * (padded(images) + _PAIRS_DEPTH)
    elif pass_ == "grad_input":
        packed = images * padded(-(-units // 2))
        each = _PAIRS_INPUTS * (images + _PAIRS_STRIP)
    else:
        packed = (units + _MOST_ROWS) * -(-images // 2)
        each = _PAIRS_INPUTS * -(-images // 2)
    return Buffers({"packed": packed, "block": threads * each})


def norm(window: Window, channels: int, width: int, size: int, *, threads: int) -> Buffers:
    """Of a response norm of images ``width`` pixels wide; the same both ways."""
    wide = padded(channels)
    if window == "across":
        gap = padded(size)
        each = 2 * _PIXELS * (wide + gap) + 2 * gap
    else:
        each = (width + size - 1) * wide + 2 * size * width * wide
    return Buffers({"threads": threads * each})


def pool(windows: Windows, channels: int, width: int, *, threads: int) -> Buffers:
    """Of a pool's backward pass; a forward pass takes none."""
    return Buffers({"band": threads * windows.band_rows() * width * padded(channels)})


def batch_norm(pixels: int, channels: int) -> Buffers:
    """Of any pass of a batch norm; ``pixels`` are those of all images together."""
    wide = padded(channels)
    return Buffers(
        {
            "partial": 3 * batch_norm_slices(pixels) * wide,
            "factors": 4 * wide,
            "dweight": wide,
            "dbias": wide,
        }
    )


def batch_norm_slices(pixels: int) -> int:
    """Slices of the pixels, whose sums are added in their order."""
    return max(1, min(_NORM_SLICES, pixels // _NORM_SLICE_PIXELS))

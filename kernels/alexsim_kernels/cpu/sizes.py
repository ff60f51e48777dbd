"""Scratch of every kernel, by shape and number of threads.

Imports nothing but the standard library: a plan states what a step takes before anything is built.
"""

from __future__ import annotations

from typing import Literal

from alexsim_kernels.cpu.algorithm import Algorithm, Pass, Shape, choose
from alexsim_kernels.cpu.cuts import cut
from alexsim_kernels.cpu.scratch import Buffers, padded, tiled
from alexsim_kernels.cpu.windows import Windows

Window = Literal["across", "over"]
_PIXELS = 16
"""``PIXELS`` of ``norm.cpp``."""
_UNITS, _INPUTS, _STRIP = 48, 64, 256
"""``UNITS``, ``INPUTS`` and ``STRIP`` of ``linear.cpp``."""
_MOST_ROWS = 6
"""``PANEL_ROWS`` of ``product.h``: units of a strip of gradients."""


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
    cuts = tiled if algorithm.rows else cut
    return cuts(shape, algorithm, pass_, threads, item_bytes).buffers


def linear(pass_: Pass, images: int, inputs: int, units: int, *, threads: int) -> Buffers:
    """Of a pass of a fully connected layer."""
    if pass_ == "forward":
        return Buffers(
            {"packed": padded(images) * inputs, "block": threads * _UNITS * padded(images)}
        )
    if pass_ == "grad_input":
        return Buffers({"block": threads * _INPUTS * (_STRIP + images)})
    strips = (units + _MOST_ROWS) * images
    return Buffers({"packed": strips, "block": threads * 4 * _INPUTS * images})


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

"""How convolutions without tiles are cut to fit the caches, and their scratch.

Imports nothing but the standard library, so that a plan can state it.
"""

from __future__ import annotations

from typing import NamedTuple

from alexsim_kernels.cpu.algorithm import Algorithm, Pass, Shape
from alexsim_kernels.cpu.scratch import Buffers, padded, pitch, slices

_BLOCK = 96
"""Pixels at a time: a multiple of the micro-kernel's rows. With ``_DEPTH`` values each they take
144 KiB, and a panel of filters is read from cache once for all of them."""
_DEPTH = 384
"""Values of a sum at a time."""
_CHUNK_BYTES = 3 << 20
"""Gathered rows of a weight gradient, for each thread."""
_PANEL = 64
"""Filters of a panel of ``product.h``, at most."""
_SLICES = 64
"""Partial sums of a depthwise weight gradient, for whatever number of threads."""


class Cut(NamedTuple):
    """How a pass is cut, and its scratch."""

    buffers: Buffers
    block: int = 1
    tap_block: int = 1
    channel_block: int = 1
    slices: int = 1
    parts: int = 1
    depth_pitch: int = 0
    result_pitch: int = 0
    gathered_thread: int = 0
    sums_thread: int = 0
    results_thread: int = 0


def cut(shape: Shape, algorithm: Algorithm, pass_: Pass, threads: int, item_bytes: int) -> Cut:
    """The cut of ``direct`` and ``depthwise``."""
    taps = shape.taps[0] * shape.taps[1]
    channels, filters = shape.group_channels, shape.group_filters
    if pass_ == "grad_input":
        channels, filters = filters, channels
    pixels = shape.images * shape.out[0] * shape.out[1]
    if algorithm.kind == "depthwise":
        wide = padded(shape.channels)
        if pass_ != "grad_weight":
            return Cut(Buffers({"packed": taps * wide}))
        block = -(-pixels // _SLICES)
        return Cut(Buffers({"sums": -(-pixels // block) * (taps + 1) * wide}), block)
    result_pitch, depth = pitch(filters), taps * channels
    if pass_ == "grad_weight":
        depth_pitch = pitch(depth)
        block = max(32, min(pixels, _CHUNK_BYTES // (item_bytes * (depth_pitch + result_pitch))))
        gathered, results = block * depth_pitch, block * result_pitch
        values = (depth + 1) * padded(filters)
        count, parts = slices(
            -(-pixels // block), -(-filters // _PANEL), shape.groups, values, threads, item_bytes
        )
        sizes = {
            "gathered": threads * gathered,
            "sums": shape.groups * count * values,
            "results": threads * results,
        }
        return Cut(
            Buffers(sizes), block, taps, slices=count, parts=parts, depth_pitch=depth_pitch,
            result_pitch=result_pitch, gathered_thread=gathered, results_thread=results,
        )  # fmt: skip
    channel_block = -(-channels // -(-channels // _DEPTH))
    tap_block = max(1, _DEPTH // channels)
    if tap_block > shape.taps[1]:
        tap_block -= tap_block % shape.taps[1]  # whole rows of taps lie in a row in memory
    depth_pitch = pitch(min(taps, tap_block) * channel_block)
    gathered, sums = _BLOCK * depth_pitch, _BLOCK * result_pitch
    sizes = {
        "packed": shape.groups * depth * padded(filters),
        "gathered": threads * gathered,
        "sums": threads * sums,
    }
    return Cut(
        Buffers(sizes), _BLOCK, tap_block, channel_block, depth_pitch=depth_pitch,
        result_pitch=result_pitch, gathered_thread=gathered, sums_thread=sums,
    )  # fmt: skip

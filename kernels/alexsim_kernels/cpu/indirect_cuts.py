"""How convolutions whose pixels are read where they lie are cut, and their scratch.

Imports nothing but the standard library, so that a plan can state it.
"""

from __future__ import annotations

from typing import NamedTuple

from alexsim_kernels.cpu.algorithm import Pass, Shape
from alexsim_kernels.cpu.scratch import LANES, Buffers, padded

_POINTER_BYTES = 8
_PIXELS = 192
"""Pixels at a time, a multiple of the micro-kernel's rows: a panel of filters is read from cache
once for all of them."""
_DEPTH = 512
"""Values of a sum at a time: 128 KiB of a panel."""
_BLOCK = 256
"""Filters, and channels, of a block of weight gradients: it stays in the second cache."""
_NARROW = 16 << 10
"""Weight gradients of so many values lie in the first caches: then fewer pixels at a time are
faster, as these come from memory."""
_TASKS = 16
"""Blocks and slices of a weight gradient, at least, for whatever number of threads."""
_MOST_COLUMNS = 64
"""``PANEL * WIDTH`` of ``product.h``, at most."""


class Cut(NamedTuple):
    """How a pass is cut, and its scratch; pointers of a thread."""

    pixels: int
    tap_block: int
    channel_block: int
    filter_block: int
    slices: int
    table_thread: int
    buffers: Buffers


def cut(shape: Shape, pass_: Pass, threads: int, item_bytes: int) -> Cut:
    """How a pass of ``indirect`` is cut."""
    taps = shape.taps[0] * shape.taps[1]
    channels, filters = shape.group_channels, shape.group_filters
    values = _POINTER_BYTES // item_bytes
    if pass_ == "grad_weight":
        return _weight_cut(shape, taps, threads, values)
    if pass_ == "grad_input":
        channels, filters = filters, channels
    channel_block = _even(channels, _DEPTH)
    table = 2 * (taps + 1) * _PIXELS
    sizes = {
        "packed": shape.groups * taps * channels * padded(filters),
        "zeros": channels,
        "table": threads * table * values,
    }
    tap_block = max(1, _DEPTH // channels)
    return Cut(_PIXELS, tap_block, channel_block, 1, 1, table, Buffers(sizes))


def _weight_cut(shape: Shape, taps: int, threads: int, values: int) -> Cut:
    channels, filters = shape.group_channels, shape.group_filters
    channel_block, filter_block = _even(channels, _BLOCK), -(-filters // -(-filters // _BLOCK))
    narrow = channel_block * filter_block <= _NARROW
    pixels, count = 64 if narrow else 128, shape.images * shape.out[0] * shape.out[1]
    blocks = shape.groups * taps * -(-channels // channel_block) * -(-filters // filter_block)
    slices = max(1, min(-(-_TASKS // blocks), count // pixels))
    copies = threads if slices == taps == 1 else slices * blocks
    sizes = {
        "zeros": padded(shape.channels),
        "table": threads * 5 * pixels * values,
        "sums": copies * filter_block * padded(channel_block),
        "bias_sums": shape.groups * slices * padded(filters),
        "edges": threads * pixels * _MOST_COLUMNS if channels % LANES else 0,
    }
    return Cut(pixels, 1, channel_block, filter_block, slices, 5 * pixels, Buffers(sizes))


def _even(channels: int, most: int) -> int:
    """Channels at a time, about as many each time; whole vectors."""
    return padded(-(-channels // -(-channels // most)))

"""Convolutions whose pixels are read where they lie: how they are cut, what kernels are told."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from alexsim_kernels.cpu.algorithm import Pass, Shape
from alexsim_kernels.cpu.grid import Grid, Tap, bank, forward_grid, input_grids, turned
from alexsim_kernels.cpu.scratch import LANES, Buffers, padded
from alexsim_kernels.cpu.tensors import Filters, Map, Parts, Tensor, call, threads

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


class _Indirect(ctypes.Structure):
    _fields_ = [
        ("source", Map),
        ("target", Map),
        ("filters", Filters),
        ("groups", ctypes.c_long),
        ("filter_group", ctypes.c_long),
        ("grid", Grid),
        ("taps", ctypes.c_long),
        ("tap", ctypes.POINTER(Tap)),
        ("bias", ctypes.c_void_p),
        *(
            (name, ctypes.c_long)
            for name in (
                "relu", "add", "threads", "pixels", "tap_block", "channel_block", "filter_block",
                "slices",
            )
        ),
        *((name, ctypes.c_void_p) for name in ("packed", "zeros", "table")),
        ("table_thread", ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ("sums", "bias_sums", "edges")),
    ]  # fmt: skip


class _Cut(NamedTuple):
    """How a pass is cut, and its scratch; pointers of a thread."""

    pixels: int
    tap_block: int
    channel_block: int
    filter_block: int
    slices: int
    table_thread: int
    buffers: Buffers


def buffers(shape: Shape, pass_: Pass, threads: int, item_bytes: int) -> Buffers:
    """Scratch of a pass."""
    return _cut(shape, pass_, threads, item_bytes).buffers


def _cut(shape: Shape, pass_: Pass, threads: int, item_bytes: int) -> _Cut:
    taps = shape.taps[0] * shape.taps[1]
    channels, filters = shape.group_channels, shape.group_filters
    values = ctypes.sizeof(ctypes.c_void_p) // item_bytes  # of a pointer
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
    return _Cut(_PIXELS, tap_block, channel_block, 1, 1, table, Buffers(sizes))


def _weight_cut(shape: Shape, taps: int, threads: int, values: int) -> _Cut:
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
    return _Cut(pixels, 1, channel_block, filter_block, slices, 5 * pixels, Buffers(sizes))


def _even(channels: int, most: int) -> int:
    """Channels at a time, about as many each time; whole vectors."""
    return padded(-(-channels // -(-channels // most)))


def forward(
    maps: tuple[Map, Map],
    weight: Tensor,
    bias: int | None,
    shape: Shape,
    like: Tensor,
    scratch: Tensor | None,
    *,
    relu: bool,
    add: bool,
) -> None:
    """See ``convolution.forward``; ``maps`` are those of ``x`` and ``y``."""
    made = _described(maps, weight, shape, "forward", like, scratch)
    _set_grid(made, *forward_grid(shape))
    made.bias, made.relu, made.add = bias, relu, add
    call("indirect_product", like, ctypes.byref(made), ctypes.c_long(1))


def grad_input(
    maps: tuple[Map, Map],
    weight: Tensor,
    shape: Shape,
    like: Tensor,
    scratch: Tensor | None,
    *,
    add: bool,
) -> None:
    """See ``convolution.grad_input``; ``maps`` are those of ``dy`` and ``dx``."""
    made = _described(maps, weight, shape, "grad_input", like, scratch)
    made.filters, made.add = turned(made.filters), add
    grids = list(input_grids(shape))
    each = (_Indirect * len(grids))(*[made] * len(grids))
    tap_bytes = shape.groups * shape.group_filters * padded(shape.group_channels)
    tap_bytes *= like.element_size()
    behind = 0
    for part, (grid, taps) in zip(each, grids, strict=True):
        _set_grid(part, grid, taps)
        part.packed += behind
        behind += len(taps) * tap_bytes
    call("indirect_product", like, each, ctypes.c_long(len(grids)))


def grad_weight(
    maps: tuple[Map, Map],
    dweight: Tensor,
    dbias: int | None,
    shape: Shape,
    like: Tensor,
    scratch: Tensor | None,
    *,
    add: bool,
) -> None:
    """See ``convolution.grad_weight``; ``maps`` are those of ``x`` and ``dy``."""
    made = _described(maps, dweight, shape, "grad_weight", like, scratch)
    _set_grid(made, *forward_grid(shape))
    made.bias, made.add = dbias, add
    call("indirect_grad_weight", like, ctypes.byref(made))


def _described(
    maps: tuple[Map, Map],
    weight: Tensor,
    shape: Shape,
    pass_: Pass,
    like: Tensor,
    scratch: Tensor | None,
) -> _Indirect:
    """All but the grid and its taps."""
    count = threads()
    cut = _cut(shape, pass_, count, like.element_size())
    parts = Parts(cut.buffers, like, scratch)
    made = _Indirect(source=maps[0], target=maps[1], groups=shape.groups, threads=count)
    made.filters = bank(weight, shape)
    made.filter_group = shape.group_filters * weight.stride(0)
    for name in cut.buffers.sizes:
        setattr(made, name, parts[name])
    for name in cut._fields[:-1]:
        setattr(made, name, getattr(cut, name))
    made.keeps_alive = parts
    return made


def _set_grid(made: _Indirect, grid: Grid, taps: list[Tap]) -> None:
    made.grid, made.taps, made.tap = grid, len(taps), (Tap * len(taps))(*taps)

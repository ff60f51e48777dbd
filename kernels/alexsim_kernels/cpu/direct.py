"""Convolutions of any shape on CPUs: how they are cut, and what the kernels of them are told."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from alexsim_kernels.cpu.algorithm import Algorithm, Pass, Shape
from alexsim_kernels.cpu.grid import Grid, Tap, bank, forward_grid, input_grids, turned
from alexsim_kernels.cpu.scratch import Buffers, padded, pitch
from alexsim_kernels.cpu.tensors import Filters, Map, Parts, Tensor, call, threads

_BLOCK = 96
"""Pixels at a time: a multiple of the micro-kernel's rows. With ``_DEPTH`` values each they take
144 KiB, and a panel of filters is read from cache once for all of them."""
_DEPTH = 384
"""Values of a sum at a time."""
_CHUNK_BYTES = 3 << 20
"""Gathered rows of a weight gradient, for all threads."""
_SLICES = 64
"""Partial sums of a depthwise weight gradient, for whatever number of threads."""


class _Direct(ctypes.Structure):
    _fields_ = [
        ("source", Map),
        ("target", Map),
        ("filters", Filters),
        ("groups", ctypes.c_long),
        ("filter_group", ctypes.c_long),
        ("grid", Grid),
        ("taps", ctypes.c_long),
        ("run", ctypes.c_long),
        ("tap", ctypes.POINTER(Tap)),
        ("bias", ctypes.c_void_p),
        *(
            (name, ctypes.c_long)
            for name in ("relu", "add", "threads", "block", "tap_block", "channel_block")
        ),
        *((name, ctypes.c_void_p) for name in ("packed", "gathered", "sums", "results")),
        *(
            (name, ctypes.c_long)
            for name in ("depth_pitch", "result_pitch", "gathered_thread", "sums_thread")
        ),
    ]


class _Cut(NamedTuple):
    """How a pass is cut, and its scratch."""

    block: int
    tap_block: int
    channel_block: int
    depth_pitch: int
    result_pitch: int
    gathered_thread: int
    sums_thread: int
    buffers: Buffers


def buffers(
    shape: Shape, algorithm: Algorithm, pass_: Pass, threads: int, item_bytes: int
) -> Buffers:
    """Scratch of ``direct`` and ``depthwise``."""
    return _cut(shape, algorithm, pass_, threads, item_bytes).buffers


def _cut(shape: Shape, algorithm: Algorithm, pass_: Pass, threads: int, item_bytes: int) -> _Cut:
    taps = shape.taps[0] * shape.taps[1]
    channels, filters = shape.group_channels, shape.group_filters
    if pass_ == "grad_input":
        channels, filters = filters, channels
    pixels = shape.images * shape.out[0] * shape.out[1]
    if algorithm.kind == "depthwise":
        wide = padded(shape.channels)
        if pass_ != "grad_weight":
            return _Cut(1, 1, 1, 0, 0, 0, 0, Buffers({"packed": taps * wide}))
        block = -(-pixels // _SLICES)
        sums = -(-pixels // block) * (taps + 1) * wide
        return _Cut(block, 1, 1, 0, 0, 0, 0, Buffers({"sums": sums}))
    result_pitch, depth = pitch(filters), taps * channels
    if pass_ == "grad_weight":
        depth_pitch = pitch(depth)
        block = max(32, min(pixels, _CHUNK_BYTES // (item_bytes * (depth_pitch + result_pitch))))
        sizes = {
            "gathered": block * depth_pitch,
            "sums": depth * padded(filters),
            "results": block * result_pitch,
        }
        return _Cut(block, taps, 1, depth_pitch, result_pitch, 0, 0, Buffers(sizes))
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
    return _Cut(
        _BLOCK, tap_block, channel_block, depth_pitch, result_pitch, gathered, sums, Buffers(sizes)
    )


def forward(
    maps: tuple[Map, Map],
    weight: Tensor,
    bias: int | None,
    shape: Shape,
    algorithm: Algorithm,
    like: Tensor,
    scratch: Tensor | None,
    *,
    relu: bool,
    add: bool,
) -> None:
    """See ``convolution.forward``; ``maps`` are those of ``x`` and ``y``."""
    cut = _cut(shape, algorithm, "forward", threads(), like.element_size())
    parts = Parts(cut.buffers, like, scratch)
    group = shape.group_filters * weight.stride(0)
    made = _described(maps, bank(weight, shape), group, shape, cut, parts)
    _set_forward_grid(made, shape)
    made.bias, made.relu, made.add = bias, relu, add
    kind = "depthwise" if algorithm.kind == "depthwise" else "direct"
    call(f"{kind}_product", like, ctypes.byref(made))


def grad_input(
    maps: tuple[Map, Map],
    weight: Tensor,
    shape: Shape,
    algorithm: Algorithm,
    like: Tensor,
    scratch: Tensor | None,
    *,
    add: bool,
) -> None:
    """See ``convolution.grad_input``; ``maps`` are those of ``dy`` and ``dx``."""
    cut = _cut(shape, algorithm, "grad_input", threads(), like.element_size())
    parts = Parts(cut.buffers, like, scratch)
    filters, group = turned(bank(weight, shape)), shape.group_filters * weight.stride(0)
    kind = "depthwise" if algorithm.kind == "depthwise" else "direct"
    for grid, taps in input_grids(shape):
        made = _described(maps, filters, group, shape, cut, parts)
        made.grid, made.add = grid, add
        _set_taps(made, taps)
        call(f"{kind}_product", like, ctypes.byref(made))


def grad_weight(
    maps: tuple[Map, Map],
    dweight: Tensor,
    dbias: int | None,
    shape: Shape,
    algorithm: Algorithm,
    like: Tensor,
    scratch: Tensor | None,
    *,
    add: bool,
) -> None:
    """See ``convolution.grad_weight``; ``maps`` are those of ``x`` and ``dy``."""
    cut = _cut(shape, algorithm, "grad_weight", threads(), like.element_size())
    parts = Parts(cut.buffers, like, scratch)
    group = shape.group_filters * dweight.stride(0)
    made = _described(maps, bank(dweight, shape), group, shape, cut, parts)
    _set_forward_grid(made, shape)
    made.bias, made.add = dbias, add
    kind = "depthwise" if algorithm.kind == "depthwise" else "direct"
    call(f"{kind}_grad_weight", like, ctypes.byref(made))


def _described(
    maps: tuple[Map, Map], filters: Filters, group: int, shape: Shape, cut: _Cut, parts: Parts
) -> _Direct:
    """All but the grid and its taps; groups of filters are ``group`` values apart."""
    made = _Direct(source=maps[0], target=maps[1], filters=filters, groups=shape.groups)
    made.filter_group = group
    made.threads = threads()
    for name in cut.buffers.sizes:
        setattr(made, name, parts[name])
    for name in cut._fields[:-1]:
        setattr(made, name, getattr(cut, name))
    return made


def _set_forward_grid(made: _Direct, shape: Shape) -> None:
    made.grid, taps = forward_grid(shape)
    x = made.source
    dense = shape.groups == shape.dilation[1] == 1 and x.pixel == x.channels
    whole = made.tap_block % shape.taps[1] == 0 or made.tap_block >= shape.taps[0] * shape.taps[1]
    _set_taps(made, taps, shape.taps[1] if dense and whole else 1)


def _set_taps(made: _Direct, taps: list[Tap], run: int = 1) -> None:
    made.taps = len(taps)
    made.run = run
    made.tap = (Tap * len(taps))(*taps)

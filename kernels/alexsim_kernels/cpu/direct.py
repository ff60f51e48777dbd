"""Convolutions of any shape on CPUs: how they are cut, and what the kernels of them are told."""

from __future__ import annotations

import ctypes

from alexsim_kernels.cpu.algorithm import Algorithm, Shape
from alexsim_kernels.cpu.cuts import Cut, cut
from alexsim_kernels.cpu.tensors import Filters, Map, Parts, Tensor, call, threads


class _Tap(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("row", "column", "r", "s")]


class _Grid(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "rows", "columns", "top", "left", "down", "across", "source_down", "source_across",
        )
    ]  # fmt: skip


class _Direct(ctypes.Structure):
    _fields_ = [
        ("source", Map),
        ("target", Map),
        ("filters", Filters),
        ("groups", ctypes.c_long),
        ("filter_group", ctypes.c_long),
        ("grid", _Grid),
        ("taps", ctypes.c_long),
        ("run", ctypes.c_long),
        ("tap", ctypes.POINTER(_Tap)),
        ("bias", ctypes.c_void_p),
        *(
            (name, ctypes.c_long)
            for name in (
                "relu", "add", "threads", "block", "tap_block", "channel_block", "slices", "parts",
            )
        ),
        *((name, ctypes.c_void_p) for name in ("packed", "gathered", "sums", "results")),
        *(
            (name, ctypes.c_long)
            for name in (
                "depth_pitch", "result_pitch", "gathered_thread", "sums_thread", "results_thread",
            )
        ),
    ]  # fmt: skip


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
    how = cut(shape, algorithm, "forward", threads(), like.element_size())
    parts = Parts(how.buffers, like, scratch)
    group = shape.group_filters * weight.stride(0)
    made = _described(maps, _bank(weight, shape), group, shape, how, parts)
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
    """See ``convolution.grad_input``; ``maps`` are those of ``dy`` and ``dx``.

    A grid for each place of a pixel between strides: row ``h = top + stride i`` meets tap ``r`` of
    output row ``i + (top + padding - r dilation) / stride``, where that is whole.
    """
    how = cut(shape, algorithm, "grad_input", threads(), like.element_size())
    parts = Parts(how.buffers, like, scratch)
    bank, group = _bank(weight, shape), shape.group_filters * weight.stride(0)
    bank.filters, bank.channels = bank.channels, bank.filters
    bank.filter, bank.channel = bank.channel, bank.filter
    kind = "depthwise" if algorithm.kind == "depthwise" else "direct"
    for top in range(min(shape.stride[0], shape.extent[0])):
        rows = _meeting(shape, 0, top)
        for left in range(min(shape.stride[1], shape.extent[1])):
            columns = _meeting(shape, 1, left)
            made = _described(maps, bank, group, shape, how, parts)
            made.grid = _Grid(
                -(-(shape.extent[0] - top) // shape.stride[0]),
                -(-(shape.extent[1] - left) // shape.stride[1]),
                top, left, *shape.stride, 1, 1,
            )  # fmt: skip
            _set_taps(made, [_Tap(i, j, r, s) for i, r in rows for j, s in columns])
            made.add = add
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
    how = cut(shape, algorithm, "grad_weight", threads(), like.element_size())
    parts = Parts(how.buffers, like, scratch)
    group = shape.group_filters * dweight.stride(0)
    made = _described(maps, _bank(dweight, shape), group, shape, how, parts)
    _set_forward_grid(made, shape)
    made.bias, made.add = dbias, add
    kind = "depthwise" if algorithm.kind == "depthwise" else "direct"
    call(f"{kind}_grad_weight", like, ctypes.byref(made))


def _bank(weight: Tensor, shape: Shape) -> Filters:
    return Filters(
        weight.data_ptr(), shape.group_filters, shape.group_channels, *shape.taps,
        *weight.stride(), *shape.taps, 1, 0,
    )  # fmt: skip


def _described(
    maps: tuple[Map, Map], bank: Filters, group: int, shape: Shape, how: Cut, parts: Parts
) -> _Direct:
    """All but the grid and its taps; groups of filters are ``group`` values apart."""
    made = _Direct(source=maps[0], target=maps[1], filters=bank, groups=shape.groups)
    made.filter_group = group
    made.threads = threads()
    for name in how.buffers.sizes:
        setattr(made, name, parts[name])
    for name in how._fields[1:]:
        setattr(made, name, getattr(how, name))
    return made


def _set_forward_grid(made: _Direct, shape: Shape) -> None:
    made.grid = _Grid(*shape.out, 0, 0, 1, 1, *shape.stride)
    x = made.source
    dense = shape.groups == shape.dilation[1] == 1 and x.pixel == x.channels
    whole = made.tap_block % shape.taps[1] == 0 or made.tap_block >= shape.taps[0] * shape.taps[1]
    _set_taps(
        made,
        [
            _Tap(
                r * shape.dilation[0] - shape.padding[0],
                s * shape.dilation[1] - shape.padding[1],
                r, s,
            )
            for r in range(shape.taps[0])
            for s in range(shape.taps[1])
        ],
        shape.taps[1] if dense and whole else 1,
    )  # fmt: skip


def _set_taps(made: _Direct, taps: list[_Tap], run: int = 1) -> None:
    made.taps = len(taps)
    made.run = run
    made.tap = (_Tap * len(taps))(*taps)


def _meeting(shape: Shape, axis: int, first: int) -> list[tuple[int, int]]:
    """Taps that meet a pixel at that place between strides: where in the output, and which."""
    offsets = (
        (first + shape.padding[axis] - tap * shape.dilation[axis], tap)
        for tap in range(shape.taps[axis])
    )
    stride = shape.stride[axis]
    return [(offset // stride, tap) for offset, tap in offsets if offset % stride == 0]

"""Convolutions whose pixels are read where they lie: how they are cut, what kernels are told."""

from __future__ import annotations

import ctypes

from alexsim_kernels.cpu.algorithm import Pass, Shape
from alexsim_kernels.cpu.grid import Grid, Tap, bank, forward_grid, input_grids, turned
from alexsim_kernels.cpu.indirect_cuts import cut
from alexsim_kernels.cpu.scratch import padded
from alexsim_kernels.cpu.tensors import Filters, Map, Parts, Tensor, call, threads


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
    how = cut(shape, pass_, count, like.element_size())
    parts = Parts(how.buffers, like, scratch)
    made = _Indirect(source=maps[0], target=maps[1], groups=shape.groups, threads=count)
    made.filters = bank(weight, shape)
    made.filter_group = shape.group_filters * weight.stride(0)
    for name in how.buffers.sizes:
        setattr(made, name, parts[name])
    for name in how._fields[:-1]:
        setattr(made, name, getattr(how, name))
    made.keeps_alive = parts
    return made


def _set_grid(made: _Indirect, grid: Grid, taps: list[Tap]) -> None:
    made.grid, made.taps, made.tap = grid, len(taps), (Tap * len(taps))(*taps)

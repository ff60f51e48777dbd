"""Convolutions of any shape on CPUs: how they are cut, and what the kernels of them are told."""

from __future__ import annotations

import ctypes

from alexsim_kernels.cpu.algorithm import Algorithm, Shape
from alexsim_kernels.cpu.cuts import Cut, cut
from alexsim_kernels.cpu.grid import Grid, Tap, bank, forward_grid, input_grids, turned
from alexsim_kernels.cpu.tensors import Filters, Map, Parts, Tensor, call, threads


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
    made = _described(maps, bank(weight, shape), group, shape, how, parts)
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
    how = cut(shape, algorithm, "grad_input", threads(), like.element_size())
    parts = Parts(how.buffers, like, scratch)
    filters, group = turned(bank(weight, shape)), shape.group_filters * weight.stride(0)
    kind = "depthwise" if algorithm.kind == "depthwise" else "direct"
    for grid, taps in input_grids(shape):
        made = _described(maps, filters, group, shape, how, parts)
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
    how = cut(shape, algorithm, "grad_weight", threads(), like.element_size())
    parts = Parts(how.buffers, like, scratch)
    group = shape.group_filters * dweight.stride(0)
    made = _described(maps, bank(dweight, shape), group, shape, how, parts)
    _set_forward_grid(made, shape)
    made.bias, made.add = dbias, add
    kind = "depthwise" if algorithm.kind == "depthwise" else "direct"
    call(f"{kind}_grad_weight", like, ctypes.byref(made))


def _described(
    maps: tuple[Map, Map], filters: Filters, group: int, shape: Shape, how: Cut, parts: Parts
) -> _Direct:
    """All but the grid and its taps; groups of filters are ``group`` values apart."""
    made = _Direct(source=maps[0], target=maps[1], filters=filters, groups=shape.groups)
    made.filter_group = group
    made.threads = threads()
    for name in how.buffers.sizes:
        setattr(made, name, parts[name])
    for name in how._fields[1:]:
        setattr(made, name, getattr(how, name))
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

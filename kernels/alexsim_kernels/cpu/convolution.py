"""Convolutions on CPUs: forward, gradient of the input, gradients of weights and biases.

``y[n, k, p, q] = bias[k] + sum over c, r, s of
x[n, c, p * stride + r * dilation - padding, q * ...] * weight[k, c, r, s]``; values outside are
zero, below and to the right as many as the output needs. The algorithm is ``algorithm.choose``'s
unless it is given. Every sum runs in an order that does not depend on the number of threads.

NaN and infinity travel: by Winograd's method at least to every output that depends on them, and at
most to all of their tile.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace

from alexsim_kernels.cpu import direct, indirect
from alexsim_kernels.cpu.algorithm import (
    Algorithm,
    Pass,
    Shape,
    Size,
    choose,
    is_depthwise,
    tile_taps,
)
from alexsim_kernels.cpu.scratch import tiled
from alexsim_kernels.cpu.tensors import (
    Filters,
    Map,
    Parts,
    Tensor,
    call,
    check_type,
    image_map,
    same_shape,
    threads,
    vector,
)


class _TileSet(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_long)
        for name in ("height", "width", "top", "down", "left", "across", "tiles")
    ]


class _Winograd(ctypes.Structure):
    _fields_ = [
        ("x", Map),
        ("y", Map),
        ("filters", Filters),
        *((name, ctypes.c_long) for name in ("groups", "taps", "pad_top", "pad_left")),
        ("bias", ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ("relu", "add", "sets", "threads")),
        ("set", ctypes.POINTER(_TileSet)),
        *((name, ctypes.c_long) for name in ("slices", "parts")),
        *(
            (name, ctypes.c_void_p)
            for name in ("sums", "transformed", "tiles", "results", "folded")
        ),
        *(
            (name, ctypes.c_long)
            for name in (
                "tile_pitch", "result_pitch", "transformed_room", "tiles_room", "results_room",
                "folded_room",
            )
        ),
    ]  # fmt: skip


def shape_of(
    x: Tensor,
    weight: Tensor,
    y: Tensor,
    *,
    stride: Size = (1, 1),
    padding: Size = (0, 0),
    dilation: Size = (1, 1),
    groups: int = 1,
) -> Shape:
    """The convolution of these tensors.

    Raises:
        ValueError: they do not go together.
    """
    if not x.ndim == weight.ndim == y.ndim == 4:
        raise ValueError(
            f"x, weight and y must have 4 axes, got {[list(t.shape) for t in (x, weight, y)]}"
        )
    images, channels, *extent = x.shape
    filters, _, *taps = weight.shape
    shape = Shape(
        images=images,
        channels=channels,
        extent=(extent[0], extent[1]),
        filters=filters,
        taps=(taps[0], taps[1]),
        out=(y.shape[2], y.shape[3]),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    same_shape("weight", weight, (filters, shape.group_channels, *shape.taps))
    same_shape("y", y, (images, filters, *shape.out))
    return shape


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    stride: Size = (1, 1),
    padding: Size = (0, 0),
    dilation: Size = (1, 1),
    groups: int = 1,
    relu: bool = False,
    add: bool = False,
    algorithm: Algorithm | None = None,
    scratch: Tensor | None = None,
) -> None:
    """Write the convolution of ``x`` into ``y``.

    Args:
        x: ``[N, C, H, W]``, channels-last; a slice of a wider block's channels will do.
        weight: ``[K, C / groups, R, S]``, any strides.
        bias: ``[K]``, or None.
        y: ``[N, K, P, Q]``, channels-last like ``x``; written whole.
        stride: of windows, down and across.
        padding: zeros above and to the left.
        dilation: distance of taps.
        groups: into which channels and filters are cut.
        relu: whether negative results become zero.
        add: whether to add to what is in ``y``, before the ReLU.
        algorithm: ``choose``'s if not given.
        scratch: bytes of ``sizes.convolution``, uint8; allocated if not given.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
    """
    check_type(x=x, weight=weight, bias=bias, y=y)
    shape = shape_of(x, weight, y, stride=stride, padding=padding, dilation=dilation, groups=groups)
    algorithm = _checked(algorithm, shape, "forward")
    at = vector("bias", bias, shape.filters)
    maps = image_map("x", x), image_map("y", y)
    if algorithm.rows:
        bank = _bank(weight, shape, algorithm)
        made = _tiled(maps, bank, shape, algorithm, "forward", x, scratch)
        made.bias, made.relu, made.add = at, relu, add
        call("winograd_correlate", x, ctypes.byref(made), shape.group_filters * weight.stride(0))
    elif algorithm.kind == "indirect":
        indirect.forward(maps, weight, at, shape, x, scratch, relu=relu, add=add)
    else:
        direct.forward(maps, weight, at, shape, algorithm, x, scratch, relu=relu, add=add)


def grad_input(
    dy: Tensor,
    weight: Tensor,
    dx: Tensor,
    *,
    stride: Size = (1, 1),
    padding: Size = (0, 0),
    dilation: Size = (1, 1),
    groups: int = 1,
    add: bool = False,
    algorithm: Algorithm | None = None,
    scratch: Tensor | None = None,
) -> None:
    """Write the gradient of the input into ``dx``; arguments as ``forward``'s.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
    """
    check_type(dy=dy, weight=weight, dx=dx)
    shape = shape_of(
        dx, weight, dy, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    algorithm = _checked(algorithm, shape, "grad_input")
    maps = image_map("dy", dy), image_map("dx", dx)
    if algorithm.rows:
        # Correlation of dy with the turned filters, whose channels are the filters.
        bank = _bank(weight, shape, algorithm)
        bank.filters, bank.channels = bank.channels, bank.filters
        bank.filter, bank.channel = bank.channel, bank.filter
        bank.turned = 1
        over = (shape.taps[0] - 1 - padding[0], shape.taps[1] - 1 - padding[1])
        made = _tiled(
            maps, bank, replace(shape, padding=(0, 0)), algorithm, "grad_input", dy, scratch
        )
        made.pad_top, made.pad_left = over
        made.add = add
        call("winograd_correlate", dy, ctypes.byref(made), shape.group_filters * weight.stride(0))
    elif algorithm.kind == "indirect":
        indirect.grad_input(maps, weight, shape, dy, scratch, add=add)
    else:
        direct.grad_input(maps, weight, shape, algorithm, dy, scratch, add=add)


def grad_weight(
    x: Tensor,
    dy: Tensor,
    dweight: Tensor,
    dbias: Tensor | None,
    *,
    stride: Size = (1, 1),
    padding: Size = (0, 0),
    dilation: Size = (1, 1),
    groups: int = 1,
    add: bool = False,
    algorithm: Algorithm | None = None,
    scratch: Tensor | None = None,
) -> None:
    """Write the gradients of weights and biases, summed over images; arguments as ``forward``'s.

    Raises:
        ValueError: tensors do not go together, or scratch is too small.
    """
    check_type(x=x, dy=dy, dweight=dweight, dbias=dbias)
    shape = shape_of(
        x, dweight, dy, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    algorithm = _checked(algorithm, shape, "grad_weight")
    at = vector("dbias", dbias, shape.filters)
    maps = image_map("x", x), image_map("dy", dy)
    if algorithm.rows:
        bank = _bank(dweight, shape, algorithm)
        made = _tiled(maps, bank, shape, algorithm, "grad_weight", x, scratch)
        made.bias, made.add = at, add
        call("winograd_grad_weight", x, ctypes.byref(made), shape.group_filters * dweight.stride(0))
    elif algorithm.kind == "indirect":
        indirect.grad_weight(maps, dweight, at, shape, x, scratch, add=add)
    else:
        direct.grad_weight(maps, dweight, at, shape, algorithm, x, scratch, add=add)


def _checked(algorithm: Algorithm | None, shape: Shape, pass_: Pass) -> Algorithm:
    """``choose``'s, or the given algorithm if it covers the shape."""
    if algorithm is None:
        return choose(shape, pass_)
    fits = {"direct": True, "indirect": True, "depthwise": is_depthwise(shape)}.get(algorithm.kind)
    if fits is None:
        fold = shape.stride[0] if algorithm.kind == "folded" else 1
        extent = shape.extent if pass_ == "grad_input" else shape.out
        taps = tile_taps(shape, algorithm.kind)
        fits = (
            shape.taps[0] == shape.taps[1]
            and shape.dilation == (1, 1)
            and shape.stride == (fold, fold)
            and (fold > 1 or algorithm.kind == "winograd")
            and (fold == 1 or (pass_ != "grad_input" and shape.groups == 1))
            and all(_covers(side, size, taps) for side, size in _sides(algorithm, extent))
        )
    if not fits:
        raise ValueError(f"{algorithm.name} does not compute {pass_} of {shape}")
    return algorithm


def _sides(algorithm: Algorithm, extent: Size) -> list[tuple[tuple[int, ...], int]]:
    return [(algorithm.rows, extent[0]), (algorithm.columns, extent[1])]


def _covers(tiles: tuple[int, ...], extent: int, taps: int) -> bool:
    """Whether they reach the end, and none begins there."""
    known = {3: {4, 5}, 5: {4}}.get(taps, set())
    return set(tiles) <= known and sum(tiles) >= extent > sum(tiles[:-1])


def _bank(weight: Tensor, shape: Shape, algorithm: Algorithm) -> Filters:
    """One group's filters, as Winograd's method sees them."""
    taps = tile_taps(shape, algorithm.kind)
    fold = shape.stride[0] if algorithm.kind == "folded" else 1
    return Filters(
        weight.data_ptr(), shape.group_filters, shape.group_channels * fold * fold, taps, taps,
        *weight.stride(), *shape.taps, fold, 0,
    )  # fmt: skip


def _tiled(
    maps: tuple[Map, Map],
    bank: Filters,
    shape: Shape,
    algorithm: Algorithm,
    pass_: Pass,
    like: Tensor,
    scratch: Tensor | None,
) -> _Winograd:
    count = threads()
    cut = tiled(shape, algorithm, pass_, count, like.element_size())
    parts = Parts(cut.buffers, like, scratch)
    sets = (_TileSet * len(cut.sets))(
        *(
            _TileSet(*s.size, s.first[0], s.count[0], s.first[1], s.count[1], s.tiles)
            for s in cut.sets
        )
    )
    made = _Winograd(
        *maps, bank, shape.groups, bank.rows, *shape.padding, None, False, False, len(cut.sets),
        count, sets, cut.slices, cut.parts,
        *(parts[name] for name in cut.buffers.sizes),
        cut.tile_pitch, cut.result_pitch, cut.transformed_room, cut.tiles_room, cut.results_room,
        cut.folded_room,
    )  # fmt: skip
    made.keeps_alive = parts
    return made

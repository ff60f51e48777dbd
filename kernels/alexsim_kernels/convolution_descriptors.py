"""Convolutions whose tiles are fetched by a card's copy engine (TMA, from sm_90 on): stride 1, one
group.

A block of output pixels is a box of images, rows and columns. What it reads at a tap is the same
box of the input, moved by the tap: one tensor descriptor fetches it, and fills what lies outside
the image with zeros. No address is computed per value, and no thread waits for one. Boxes that
stick out of the images waste products: ``pixel_box`` takes that which wastes fewest.

Before sm_90 Triton makes pointers of descriptors: right, and not fast.

With ``SPECIALISED`` some warps only fetch and others only multiply. A program computes one tile, or
(``PERSISTENT``) one after another.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from math import prod

import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from alexsim_kernels.common import Config, Precision, Tensor, dot, triton_name
from alexsim_kernels.tuning import programs

Box = tuple[int, int, int]
"""Images, rows, columns."""
_ALIGNED = 16
"""Bytes of which the copy engine's addresses and strides are multiples."""


@triton.jit
def _corner(
    tile,
    across: tl.constexpr,
    P,
    Q,
    IMAGES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A tile's first image, row and column, and which of ``across`` tiles it is of the same box."""
    box, beside = tile // across, tile % across
    wide, high = tl.cdiv(Q, COLUMNS), tl.cdiv(P, ROWS)
    image = box // (wide * high) * IMAGES
    return image, box // wide % high * ROWS, box % wide * COLUMNS, beside


@triton.jit
def _forward_tile(
    tile, x, weight, bias, y, out_height, out_width,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, RELU: tl.constexpr, HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr, SPECIALISED: tl.constexpr,
    IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    pixels: tl.constexpr = IMAGES * ROWS * COLUMNS
    pieces: tl.constexpr = (CHANNELS + BLOCK_DEPTH - 1) // BLOCK_DEPTH
    filter_tiles: tl.constexpr = (FILTERS + BLOCK_FILTERS - 1) // BLOCK_FILTERS
    image, p, q, filter_tile = _corner(
        tile, filter_tiles, out_height, out_width, IMAGES, ROWS, COLUMNS
    )
    first = filter_tile * BLOCK_FILTERS
    acc = tl.zeros((pixels, BLOCK_FILTERS), dtype=tl.float32)
    for step in tl.range(R * S * pieces, warp_specialize=SPECIALISED):
        tap, channel = step // pieces, (step % pieces) * BLOCK_DEPTH
        values = x.load([p - TOP + tap // S, q - LEFT + tap % S, image, channel])
        weights = weight.load([first, tap, channel]).reshape(BLOCK_FILTERS, BLOCK_DEPTH)
        acc = dot(values.reshape(pixels, BLOCK_DEPTH), weights.T, acc, PRECISION)
    if HAS_BIAS:
        filter_ = first + tl.arange(0, BLOCK_FILTERS)
        acc += tl.load(bias + filter_, mask=filter_ < FILTERS, other=0.0)[None, :]
    if RELU:
        acc = tl.where(acc < 0, 0.0, acc)  # NaN stays NaN
    y.store([p, q, image, first], acc.reshape(ROWS, COLUMNS, IMAGES, BLOCK_FILTERS).to(y.dtype))


@triton.jit
def _forward(
    x, weight, bias, y, out_height, out_width, tiles,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, RELU: tl.constexpr, HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr, PERSISTENT: tl.constexpr, SPECIALISED: tl.constexpr,
    BLOCK_IMAGES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    BLOCK_FILTERS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    if PERSISTENT:
        for tile in tl.range(
            tl.program_id(0), tiles, tl.num_programs(0), warp_specialize=SPECIALISED
        ):
            _forward_tile(
                tile, x, weight, bias, y, out_height, out_width,
                CHANNELS, FILTERS, R, S, TOP, LEFT, RELU, HAS_BIAS, PRECISION, False,
                BLOCK_IMAGES, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_FILTERS, BLOCK_DEPTH,
            )  # fmt: skip
    else:
        _forward_tile(
            tl.program_id(0), x, weight, bias, y, out_height, out_width,
            CHANNELS, FILTERS, R, S, TOP, LEFT, RELU, HAS_BIAS, PRECISION, SPECIALISED,
            BLOCK_IMAGES, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_FILTERS, BLOCK_DEPTH,
        )  # fmt: skip


@triton.jit
def _grad_input_tile(
    tile, dy, weight, out, dx, height, width,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, MASKED: tl.constexpr, ADD: tl.constexpr,
    PRECISION: tl.constexpr, SPECIALISED: tl.constexpr,
    IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    pixels: tl.constexpr = IMAGES * ROWS * COLUMNS
    pieces: tl.constexpr = (FILTERS + BLOCK_DEPTH - 1) // BLOCK_DEPTH
    channel_tiles: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    image, row, column, channel_tile = _corner(
        tile, channel_tiles, height, width, IMAGES, ROWS, COLUMNS
    )
    first = channel_tile * BLOCK_CHANNELS
    acc = tl.zeros((pixels, BLOCK_CHANNELS), dtype=tl.float32)
    for step in tl.range(R * S * pieces, warp_specialize=SPECIALISED):
        tap, filter_ = step // pieces, (step % pieces) * BLOCK_DEPTH
        at = [row + TOP - tap // S, column + LEFT - tap % S, image, filter_]
        gradients = dy.load(at).reshape(pixels, BLOCK_DEPTH)
        if MASKED:
            passed = out.load(at).reshape(pixels, BLOCK_DEPTH) > 0
            gradients = tl.where(passed, gradients, 0.0)
        weights = weight.load([filter_, tap, first]).reshape(BLOCK_DEPTH, BLOCK_CHANNELS)
        acc = dot(gradients, weights, acc, PRECISION)
    at = [row, column, image, first]
    if ADD:
        acc += dx.load(at).reshape(pixels, BLOCK_CHANNELS)
    dx.store(at, acc.reshape(ROWS, COLUMNS, IMAGES, BLOCK_CHANNELS).to(dx.dtype))


@triton.jit
def _grad_input(
    dy, weight, out, dx, height, width, tiles,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, MASKED: tl.constexpr, ADD: tl.constexpr,
    PRECISION: tl.constexpr, PERSISTENT: tl.constexpr, SPECIALISED: tl.constexpr,
    BLOCK_IMAGES: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_DEPTH: tl.constexpr,
):  # fmt: skip
    if PERSISTENT:
        for tile in tl.range(
            tl.program_id(0), tiles, tl.num_programs(0), warp_specialize=SPECIALISED
        ):
            _grad_input_tile(
                tile, dy, weight, out, dx, height, width,
                CHANNELS, FILTERS, R, S, TOP, LEFT, MASKED, ADD, PRECISION, False,
                BLOCK_IMAGES, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_CHANNELS, BLOCK_DEPTH,
            )  # fmt: skip
    else:
        _grad_input_tile(
            tl.program_id(0), dy, weight, out, dx, height, width,
            CHANNELS, FILTERS, R, S, TOP, LEFT, MASKED, ADD, PRECISION, SPECIALISED,
            BLOCK_IMAGES, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_CHANNELS, BLOCK_DEPTH,
        )  # fmt: skip


@triton.jit(do_not_specialize=["turns", "per_split"])
def _grad_weight(
    x, dy, out, partial, partial_bias, out_height, out_width, turns, per_split,
    CHANNELS: tl.constexpr, FILTERS: tl.constexpr, R: tl.constexpr, S: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    SPECIALISED: tl.constexpr, BLOCK_IMAGES: tl.constexpr, BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr, BLOCK_FILTERS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    pixels: tl.constexpr = BLOCK_IMAGES * BLOCK_ROWS * BLOCK_COLUMNS
    pieces: tl.constexpr = (CHANNELS + BLOCK_CHANNELS - 1) // BLOCK_CHANNELS
    column_tile, split = tl.program_id(0), tl.program_id(2)
    tap, first_channel = column_tile // pieces, (column_tile % pieces) * BLOCK_CHANNELS
    first = tl.program_id(1) * BLOCK_FILTERS
    acc = tl.zeros((BLOCK_FILTERS, BLOCK_CHANNELS), dtype=tl.float32)
    total = tl.zeros((BLOCK_FILTERS,), dtype=tl.float32)
    last = tl.minimum((split + 1) * per_split, turns)
    for turn in tl.range(split * per_split, last, warp_specialize=SPECIALISED):
        image, p, q, _ = _corner(
            turn, 1, out_height, out_width, BLOCK_IMAGES, BLOCK_ROWS, BLOCK_COLUMNS
        )
        gradients = dy.load([p, q, image, first]).reshape(pixels, BLOCK_FILTERS)
        if MASKED:
            passed = out.load([p, q, image, first]).reshape(pixels, BLOCK_FILTERS) > 0
            gradients = tl.where(passed, gradients, 0.0)
        total += tl.sum(gradients.to(tl.float32), axis=0)
        values = x.load([p - TOP + tap // S, q - LEFT + tap % S, image, first_channel])
        acc = dot(gradients.T, values.reshape(pixels, BLOCK_CHANNELS), acc, PRECISION)
    filter_ = first + tl.arange(0, BLOCK_FILTERS)
    channel = first_channel + tl.arange(0, BLOCK_CHANNELS)
    offset = split * FILTERS + filter_
    at = offset[:, None] * (R * S * CHANNELS) + (tap * CHANNELS + channel)[None, :]
    exists = (filter_ < FILTERS)[:, None] & (channel < CHANNELS)[None, :]
    tl.store(partial + at, acc, mask=exists)
    if column_tile == 0:
        tl.store(partial_bias + offset, total, mask=filter_ < FILTERS)


def fit(*tensors: Tensor, weight: Tensor, stride: int, groups: int) -> bool:
    """Whether the copy engine reaches all of a convolution's images and filters."""
    reached = weight.shape[1] * weight.element_size() % _ALIGNED == 0
    for x in tensors:
        strides = (x.stride(axis) * x.element_size() for axis in (0, 2, 3))
        reached = reached and x.stride(1) == 1 and not any(bytes_ % _ALIGNED for bytes_ in strides)
    aligned = all(x.data_ptr() % _ALIGNED == 0 for x in (*tensors, weight))
    return stride == 1 and groups == 1 and reached and aligned


@cache
def pixel_box(images: int, rows: int, columns: int, pixels: int) -> Box:
    """The box of so many pixels, a power of two, of which fewest cover all images; the widest."""
    sides = [1 << power for power in range(pixels.bit_length())]
    boxes = [box for box in product(sides, sides, sides) if prod(box) == pixels]
    return min(boxes, key=lambda box: (_boxes((images, rows, columns), box), -box[2], -box[1]))


def _boxes(size: Box, box: Box) -> int:
    return prod(triton.cdiv(extent, side) for extent, side in zip(size, box, strict=True))


def pixel_tiles(y: Tensor, pixels: int) -> int:
    """Boxes of so many pixels that cover images ``[N, K, P, Q]``."""
    size = y.shape[0], y.shape[2], y.shape[3]
    return _boxes(size, pixel_box(*size, pixels))


def _box(y: Tensor, pixels: int) -> dict[str, int]:
    images, rows, columns = pixel_box(y.shape[0], y.shape[2], y.shape[3], pixels)
    return {"BLOCK_IMAGES": images, "BLOCK_ROWS": rows, "BLOCK_COLUMNS": columns}


def _images(x: Tensor, box: dict[str, int], channels: int) -> TensorDescriptor:
    # Images behind rows and columns: boxes of one pixel of many images are matrices already.
    block = [box["BLOCK_ROWS"], box["BLOCK_COLUMNS"], box["BLOCK_IMAGES"], channels]
    return TensorDescriptor.from_tensor(x.permute(2, 3, 0, 1), block)


def _filters(weight: Tensor, filters: int, channels: int) -> TensorDescriptor:
    k, c, r, s = weight.shape
    # They are checked to lie so; strides of axes of one tap are anything.
    return TensorDescriptor(weight, [k, r * s, c], [r * s * c, c, 1], [filters, 1, channels])


def _constants(
    weight: Tensor, padding: tuple[int, int], precision: Precision, config: Config
) -> dict[str, int | str | bool]:
    return {
        "CHANNELS": weight.shape[1], "FILTERS": weight.shape[0], "R": weight.shape[2],
        "S": weight.shape[3], "TOP": padding[0], "LEFT": padding[1],
        "PRECISION": triton_name(precision), "SPECIALISED": config.specialised,
        "num_warps": config.warps, "num_stages": config.stages,
    }  # fmt: skip


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    padding: tuple[int, int],
    relu: bool,
    precision: Precision,
    config: Config,
) -> None:
    """See ``convolution.forward``."""
    box = _box(y, config.block_m)
    tiles = pixel_tiles(y, config.block_m) * triton.cdiv(weight.shape[0], config.block_n)
    _forward[(programs(tiles, config, x),)](
        _images(x, box, config.block_k), _filters(weight, config.block_n, config.block_k),
        bias if bias is not None else x, _images(y, box, config.block_n), *y.shape[2:], tiles,
        RELU=relu, HAS_BIAS=bias is not None, PERSISTENT=config.persistent > 0, **box,
        BLOCK_FILTERS=config.block_n, BLOCK_DEPTH=config.block_k,
        **_constants(weight, padding, precision, config),
    )  # fmt: skip


def grad_input(
    dy: Tensor,
    weight: Tensor,
    dx: Tensor,
    *,
    padding: tuple[int, int],
    relu_output: Tensor | None,
    accumulate: bool,
    precision: Precision,
    config: Config,
) -> None:
    """See ``convolution.grad_input``."""
    box = _box(dx, config.block_m)
    tiles = pixel_tiles(dx, config.block_m) * triton.cdiv(weight.shape[1], config.block_n)
    mask = dy if relu_output is None else relu_output
    _grad_input[(programs(tiles, config, dy),)](
        _images(dy, box, config.block_k), _filters(weight, config.block_k, config.block_n),
        _images(mask, box, config.block_k), _images(dx, box, config.block_n), *dx.shape[2:], tiles,
        MASKED=relu_output is not None, ADD=accumulate, PERSISTENT=config.persistent > 0, **box,
        BLOCK_CHANNELS=config.block_n, BLOCK_DEPTH=config.block_k,
        **_constants(weight, padding, precision, config),
    )  # fmt: skip


def grad_weight(
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    partial: tuple[Tensor, Tensor],
    *,
    splits: int,
    padding: tuple[int, int],
    relu_output: Tensor | None,
    precision: Precision,
    config: Config,
) -> None:
    """Write the parts of the gradients of weights and biases: see ``convolution_weight``."""
    box = _box(dy, config.block_k)
    turns = pixel_tiles(dy, config.block_k)
    filters, channels = weight.shape[:2]
    tiles = triton.cdiv(channels, config.block_n) * weight.shape[2] * weight.shape[3]
    mask = dy if relu_output is None else relu_output
    _grad_weight[(tiles, triton.cdiv(filters, config.block_m), splits)](
        _images(x, box, config.block_n), _images(dy, box, config.block_m),
        _images(mask, box, config.block_m), *partial, *dy.shape[2:], turns,
        triton.cdiv(turns, splits), MASKED=relu_output is not None, **box,
        BLOCK_FILTERS=config.block_m, BLOCK_CHANNELS=config.block_n,
        **_constants(weight, padding, precision, config),
    )  # fmt: skip

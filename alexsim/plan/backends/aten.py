"""ATen's functions: how each op runs, the scratch it takes, and the images it takes at a time.

ATen's convolutions allocate their results, and our pools and norms keep a few rows beside them.
Working on few images at a time bounds both, and keeps elementwise passes inside the cache. The
functions of ``alexsim.execute.aten`` follow these numbers; a test watches that they allocate
nothing beyond them.
"""

from __future__ import annotations

import math
from functools import lru_cache

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    FullyConnected,
    HardSwish,
    LayerNorm,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    Softmax,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    pair,
)
from alexsim.network.layers.elementwise import Move
from alexsim.network.part import Part
from alexsim.plan.backends.base import Asked, Choice, Passes
from alexsim.plan.plan import Op, OpKind
from alexsim.units import MIB

_CONVOLUTION_BYTES = 16 * MIB
_CACHED_BYTES = 4 * MIB
"""Elementwise passes over this much scratch stay in a core's share of the cache."""
_MOST_IMAGES = 32
_WINOGRAD_IMAGES, _WINOGRAD_ROWS = 16, 48
WINOGRAD_OUTPUTS, WINOGRAD_TAPS = 5, 3
"""Winograd's F(5, 3): tiles of 5 x 5 outputs for 3 x 3 filters."""
_PASSES = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT, OpKind.LOSS)


class Aten:
    """PyTorch's functions on the CPU or a card; they run every layer."""

    def choose(self, asked: Asked) -> Choice:
        """Algorithm, chunk and scratch of one op."""
        return _choice(asked)

    def fuses(self, first: Asked, second: Part, *, rows: bool, adds: bool) -> Passes:
        """A product's epilogue runs on values that have just been written, still in the cache.

        Gradients are separate: ATen's take no mask. A norm and a pool gain nothing, as each is
        several of ATen's functions.
        """
        del second, rows, adds
        part = first.part
        return "forward" if part is not None and part.layer.kernel == "product" else "none"

    def done_flop(self, op: Op, part: Part) -> int:
        """Of Winograd's method, the products of its tiles."""
        if op.algorithm != "winograd":
            return op.count.flop
        extents = part.input_shape[1:]
        tiles = math.prod(_tiles(extent) for extent in extents)
        products = tiles * (WINOGRAD_OUTPUTS + WINOGRAD_TAPS - 1) ** 2
        return op.count.flop * products // (math.prod(extents) * WINOGRAD_TAPS**2)


@lru_cache(maxsize=1 << 13)
def _choice(asked: Asked) -> Choice:
    part, images = asked.part, asked.images
    per_image, fixed = 0, 0
    algorithm = ""
    if part is not None and asked.kind in _PASSES:
        algorithm = _algorithm(asked.kind, part, images)
        per_image, fixed, limit = _needs(asked, part, algorithm)
        if per_image:
            images = min(_MOST_IMAGES, images, max(1, limit // per_image))
            images = 1 << (images.bit_length() - 1)
    return Choice(
        backend="aten",
        algorithm=algorithm,
        chunk_images=images,
        scratch_bytes=images * per_image + fixed,
    )


def adds_apart(part: Part) -> bool:
    """Whether gradients of its parameters are computed apart and then added to what is there."""
    return not isinstance(part.layer, FullyConnected)


def _algorithm(kind: OpKind, part: Part, batch_size: int) -> str:
    layer = part.layer
    if not isinstance(layer, Convolution):
        return ""
    if _wins_by_winograd(kind, part, batch_size):
        return "winograd"
    return "direct"


def _needs(asked: Asked, part: Part, algorithm: str) -> tuple[int, int, int]:
    """Scratch bytes per image of a chunk and beside them, and the most that its images may take."""
    if asked.accumulate and asked.kind == OpKind.GRAD_WEIGHT and adds_apart(part):
        per_image, fixed, limit = _needs(asked._replace(accumulate=False), part, algorithm)
        return per_image, fixed + FLOAT_BYTES * part.parameters_read, limit
    kind, batch_size, accumulate = asked.kind, asked.images, asked.accumulate
    inputs = FLOAT_BYTES * math.prod(part.input_shape)
    match part.layer:
        case Convolution():
            if algorithm == "winograd":
                per_image, fixed = _winograd(kind, part)
                return per_image, fixed, _WINOGRAD_IMAGES * per_image
            return *_convolution(kind, part), _CONVOLUTION_BYTES
        case MaxPool() | LocalResponseNorm() | SpatialResponseNorm():
            # Max-pools add their gradients in any case.
            added = inputs if accumulate and not isinstance(part.layer, MaxPool) else 0
            return _rows(kind, part) + added, 0, _CACHED_BYTES
        case FullyConnected():
            # Added after the product, as on two devices, so that both round alike.
            return 0, batch_size * inputs if accumulate else 0, 0
        case SoftmaxCrossEntropy() if kind == OpKind.LOSS:
            # Which probabilities exceed, and which equal, the label's: one byte each.
            return 0, 2 * batch_size * math.prod(part.output_shape), 0
        case SoftmaxCrossEntropy() if accumulate:
            return 0, batch_size * inputs, 0
        case Add() | Concat() | AveragePool() | AdaptiveAveragePool() | Dropout() | Move():
            return 0, 0, 0
        case BatchNorm():
            fixed = 16 * FLOAT_BYTES * part.input_shape[0]
            if kind == OpKind.FORWARD:
                return inputs, fixed, _CACHED_BYTES
            # Copies of slices of channels: the input, and the output's gradient. ATen's
            # function needs no cache, and fewer, larger calls are faster.
            limit = 2 * _CACHED_BYTES if kind == OpKind.GRAD_INPUT else _CONVOLUTION_BYTES
            return 2 * inputs, fixed, limit
        case LayerNorm():
            return 4 * inputs, 0, _CACHED_BYTES
        case Multiply() if kind == OpKind.GRAD_INPUT:
            return inputs, 0, _CACHED_BYTES
        case HardSwish() | Softmax() if kind == OpKind.GRAD_INPUT:
            return 2 * inputs, 0, _CACHED_BYTES
    return inputs if accumulate else 0, 0, _CACHED_BYTES


def _wins_by_winograd(kind: OpKind, part: Part, batch_size: int) -> bool:
    """Whether an op of a convolution takes Winograd's method.

    It pays for 3 x 3 filters at stride 1 on maps that its tiles cover with little waste, with so
    many tiles at a time that the products have many rows, and with so many channels that the
    transforms are small beside the products: 192 and more, or 128 for weight gradients, where
    direct kernels are slower (measured on conv3, conv4 and conv5, and on ResNet-50's).
    """
    layer = part.layer
    if not isinstance(layer, Convolution):
        return False
    plain = {layer.size: WINOGRAD_TAPS, layer.stride: 1, layer.padding: WINOGRAD_TAPS // 2}
    if any(pair(value) != (wanted, wanted) for value, wanted in plain.items()):
        return False
    if layer.groups > 1 or pair(layer.dilation) != (1, 1):
        return False
    channels, *extents = part.input_shape
    if _tiles(extents[1]) * min(batch_size, _WINOGRAD_IMAGES) < _WINOGRAD_ROWS:
        return False
    enough = 128 if kind == OpKind.GRAD_WEIGHT else 192
    covered = [extent / (WINOGRAD_OUTPUTS * _tiles(extent)) for extent in extents]
    return min(channels, layer.filters) >= enough and min(covered) >= 0.8


def _tiles(extent: int) -> int:
    return -(-extent // WINOGRAD_OUTPUTS)


def _winograd(kind: OpKind, part: Part) -> tuple[int, int]:
    """Bytes per image of maps and tiles before and after the products, and of the filters."""
    channels, height, width = part.input_shape
    inputs, outputs = channels, part.output_shape[0]
    if kind == OpKind.GRAD_INPUT:
        inputs, outputs = outputs, inputs
    products = WINOGRAD_OUTPUTS + WINOGRAD_TAPS - 1
    tall = _tiles(height) * WINOGRAD_OUTPUTS
    both = products * width + products**2 * _tiles(width)
    per_image = inputs * (both + (tall + WINOGRAD_TAPS - 1) * width)
    per_image += outputs * (both + tall * width)
    # Transformed filters, and up to two copies of the filters while they are rearranged.
    fixed = inputs * outputs * (products**2 + 2 * WINOGRAD_TAPS**2)
    return FLOAT_BYTES * per_image, FLOAT_BYTES * fixed


def padded_image_bytes(part: Part) -> int:
    """Bytes of one input image with its zero border, where ATen cannot imply the border."""
    layer = part.layer
    assert isinstance(layer, Convolution)
    channels, height, width = part.input_shape
    before, (bottom, right) = pair(layer.padding), layer.end_paddings(part.input_shape)
    if (bottom, right) == before:
        return 0
    return FLOAT_BYTES * channels * (height + before[0] + bottom) * (width + before[1] + right)


def _convolution(kind: OpKind, part: Part) -> tuple[int, int]:
    inputs = FLOAT_BYTES * math.prod(part.input_shape)
    outputs = FLOAT_BYTES * math.prod(part.output_shape)
    padded = padded_image_bytes(part)
    if kind == OpKind.FORWARD:
        return outputs + padded, 0
    if kind == OpKind.GRAD_INPUT:
        return padded or inputs, 0
    return padded or inputs // 4, FLOAT_BYTES * part.parameters_read


def _rows(kind: OpKind, part: Part) -> int:
    """Bytes of scratch per image of a pool or norm: its padded or half-pooled rows."""
    channels, height, width = part.input_shape
    backward = kind == OpKind.GRAD_INPUT
    match part.layer:
        case MaxPool(ties="first") if backward:
            # Copies of what is a slice of channels; maxima, and where they are in eight bytes.
            outputs = math.prod(part.output_shape)
            return FLOAT_BYTES * (2 * math.prod(part.input_shape) + 4 * outputs)
        case MaxPool():
            rows = channels * height * part.output_shape[2]
            return FLOAT_BYTES * rows * (3 if backward else 1)
        case LocalResponseNorm(size=size):
            padded = 2 * (channels + size - 1) * height * width
        case SpatialResponseNorm(size=size):
            grown = (height + size - 1) * channels
            padded = grown * (width + size - 1) + grown * width
        case _:
            raise AssertionError(part.layer)
    return FLOAT_BYTES * (padded + channels * height * width)

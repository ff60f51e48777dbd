"""Scratch memory of a backend, and the images that it works on at a time.

``triton``: parts of a convolution's weight gradient, before they are added. ``aten``: ATen's
convolutions allocate their results, and our pools and norms keep a few rows beside them. Working on
few images at a time bounds both, and keeps elementwise passes inside the cache. The backends follow
these numbers, a test watches that they allocate nothing beyond them.
"""

from __future__ import annotations

import itertools
import math

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Network, Part
from alexsim.plan.records import Op, OpKind
from alexsim.units import MIB

_CONVOLUTION_BYTES = 16 * MIB
_CACHED_BYTES = 4 * MIB
"""Elementwise passes over this much scratch stay in a core's share of the cache."""
_MOST_IMAGES = 32
_WINOGRAD_IMAGES = 16
SPLIT_BYTES, MOST_SPLITS = 16 * MIB, 512
"""Most bytes and parts of a weight gradient in Triton's kernels."""
WINOGRAD_OUTPUTS, WINOGRAD_TAPS = 5, 3
"""Winograd's F(5, 3): tiles of 5 x 5 outputs for 3 x 3 filters."""


def chunk_and_scratch(
    backend: str, kind: OpKind, part: Part | None, batch_size: int, *, accumulate: bool
) -> tuple[int, int]:
    """Images per chunk and scratch bytes of one op; ``(batch_size, 0)`` if it needs none."""
    if backend == "aten":
        return _aten(kind, part, batch_size, accumulate=accumulate)
    if backend == "triton" and kind == OpKind.GRAD_WEIGHT and part is not None:
        return batch_size, _splits(part)
    return batch_size, 0


def _splits(part: Part) -> int:
    """Bytes that the parts of a convolution's weight gradient may take."""
    if not isinstance(part.layer, Convolution) or 2 * FLOAT_BYTES * part.weight_count > SPLIT_BYTES:
        return 0
    return SPLIT_BYTES + FLOAT_BYTES * MOST_SPLITS * part.layer.filters


def _aten(kind: OpKind, part: Part | None, batch_size: int, *, accumulate: bool) -> tuple[int, int]:
    if part is None or kind not in (
        OpKind.FORWARD,
        OpKind.GRAD_INPUT,
        OpKind.GRAD_WEIGHT,
        OpKind.LOSS,
    ):
        return batch_size, 0
    match part.layer:
        case Convolution() if uses_winograd(kind, part):
            per_image, fixed = _winograd(kind, part)
            limit = _WINOGRAD_IMAGES * per_image
        case Convolution():
            per_image, fixed = _convolution(kind, part)
            limit = _CONVOLUTION_BYTES
        case MaxPool() | LocalResponseNorm() | SpatialResponseNorm():
            per_image, fixed, limit = _rows(kind, part), 0, _CACHED_BYTES
        case FullyConnected() if accumulate:
            # Added after the product, as on two devices, so that both round alike.
            return batch_size, FLOAT_BYTES * batch_size * math.prod(part.input_shape)
        case SoftmaxCrossEntropy() if kind == OpKind.LOSS:
            # Which probabilities exceed, and which equal, the label's: one byte each.
            return batch_size, 2 * batch_size * math.prod(part.output_shape)
        case _:
            return batch_size, 0
    images = min(_MOST_IMAGES, batch_size, max(1, limit // per_image)) if per_image else batch_size
    images = 1 << (images.bit_length() - 1)
    return images, images * per_image + fixed


def refused(backend: str, network: Network) -> str:
    """Why a backend cannot run a network, or nothing."""
    if backend == "triton":
        for before, after in itertools.pairwise(network.parts):
            windows = isinstance(before[0].layer, Convolution | LocalResponseNorm)
            if windows and isinstance(after[0].layer, FullyConnected):
                return (
                    f"the triton backend cannot run {network.name}: {before[0].layer.name} leads"
                    f" into {after[0].layer.name} without a pool or activation between"
                )
    # Triton has no kernel for average pools and takes ATen's.
    unable = MaxPool | AveragePool if backend == "aten" else AveragePool
    for part, *_ in network.parts:
        layer = part.layer
        if isinstance(layer, unable) and any(map(layer.end_padding, part.input_shape[1:])):
            return (
                f"the {backend} backend cannot run {network.name}: windows of {layer.name} hang"
                " over the edge; it can be planned and simulated, not trained"
            )
    return ""


def uses_winograd(kind: OpKind, part: Part) -> bool:
    """Whether an op of a convolution takes Winograd's method.

    It pays for 3 x 3 filters at stride 1 on maps that its tiles cover with little waste, and with
    so many channels that the transforms are small beside the products: 192 and more, or 128 for
    weight gradients, where direct kernels are slower (measured on conv3, conv4 and conv5).
    """
    layer = part.layer
    if not isinstance(layer, Convolution):
        return False
    if (layer.size, layer.stride, layer.padding) != (WINOGRAD_TAPS, 1, WINOGRAD_TAPS // 2):
        return False
    if layer.groups > 1:
        return False
    channels, *extents = part.input_shape
    enough = 128 if kind == OpKind.GRAD_WEIGHT else 192
    covered = [extent / (WINOGRAD_OUTPUTS * _tiles(extent)) for extent in extents]
    return min(channels, layer.filters) >= enough and min(covered) >= 0.8


def done_flop(op: Op, part: Part) -> int:
    """FLOP of the multiply-adds that the aten backend does for an op: Winograd's are fewer."""
    if not uses_winograd(op.kind, part):
        return op.count.flop
    extents = part.input_shape[1:]
    tiles = math.prod(_tiles(extent) for extent in extents)
    products = tiles * (WINOGRAD_OUTPUTS + WINOGRAD_TAPS - 1) ** 2
    return op.count.flop * products // (math.prod(extents) * WINOGRAD_TAPS**2)


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
    bottom, right = layer.end_padding(height), layer.end_padding(width)
    if (bottom, right) == (layer.padding, layer.padding):
        return 0
    padded = (height + layer.padding + bottom) * (width + layer.padding + right)
    return FLOAT_BYTES * channels * padded


def _convolution(kind: OpKind, part: Part) -> tuple[int, int]:
    inputs = FLOAT_BYTES * math.prod(part.input_shape)
    outputs = FLOAT_BYTES * math.prod(part.output_shape)
    padded = padded_image_bytes(part)
    if kind == OpKind.FORWARD:
        return outputs + padded, 0
    if kind == OpKind.GRAD_INPUT:
        return padded or inputs, 0
    return padded or inputs // 4, FLOAT_BYTES * part.parameters


def _rows(kind: OpKind, part: Part) -> int:
    """Bytes of scratch per image of a pool or norm: its padded or half-pooled rows."""
    channels, height, width = part.input_shape
    backward = kind == OpKind.GRAD_INPUT
    match part.layer:
        case MaxPool():
            rows = channels * height * part.output_shape[2]
            return FLOAT_BYTES * rows * (4 if backward else 1)
        case LocalResponseNorm(size=size):
            padded = 2 * (channels + size - 1) * height * width
        case SpatialResponseNorm(size=size):
            grown = (height + size - 1) * channels
            padded = grown * (width + size - 1) + grown * width
        case _:
            raise AssertionError(part.layer)
    return FLOAT_BYTES * (padded + channels * height * width)

"""How many windows fit along an axis: one rule for convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from alexsim.errors import NetworkError
from alexsim.network.layers.base import Pair, pair


class Windowed(Protocol):
    """A layer that slides windows over an image."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> Pair: ...
    @property
    def stride(self) -> Pair: ...
    @property
    def padding(self) -> Pair: ...
    @property
    def rounding(self) -> str: ...


def windows(layer: Windowed, extents: Sequence[int], spans: tuple[int, int]) -> tuple[int, ...]:
    """Windows along each axis of an image; ``spans`` are the pixels that a window reaches over.

    Rounding up adds a window to those that fit, if it begins on a pixel: ``pooling_output_shape``
    in ATen's ``Pool.h``, and ONNX's ``MaxPool``. (Without padding, Caffe keeps an empty window.)

    Raises:
        NetworkError: a window is larger than its input, or ``exact`` windows do not tile it.
    """
    counts = []
    for extent, span, stride, padding in zip(
        extents, spans, pair(layer.stride), pair(layer.padding), strict=True
    ):
        padded = extent + 2 * padding
        whole, left_over = divmod(padded - span, stride)
        if layer.rounding == "exact" and (padded < span or left_over):
            height, width = pair(layer.size)
            raise NetworkError(
                f"layer {layer.name!r}: {height}x{width} windows at stride {stride} do not tile"
                f" {padded} pixels exactly"
            )
        begins = (whole + 1) * stride - padding
        hangs_over = layer.rounding == "ceil" and left_over > 0 and begins < extent
        fits = whole + 1 + hangs_over
        if fits < 1:
            raise too_large(layer, extent, padding)
        counts.append(fits)
    return tuple(counts)


def end_paddings(
    layer: Windowed, extents: Sequence[int], spans: tuple[int, int]
) -> tuple[int, int]:
    """Pixels beyond the last row and column that windows read; >= ``padding``."""
    paddings, strides = pair(layer.padding), pair(layer.stride)
    counts = windows(layer, extents, spans)
    down, right = (
        max((count - 1) * stride + span - extent - padding, padding)
        for count, stride, span, extent, padding in zip(
            counts, strides, spans, extents, paddings, strict=True
        )
    )
    return down, right


def too_large(layer: Windowed, extent: int, padding: int) -> NetworkError:
    """The error of a window that does not fit."""
    height, width = pair(layer.size)
    padded = f" with padding {padding}" if padding else ""
    return NetworkError(
        f"layer {layer.name!r}: a {height}x{width} window is larger than its input of"
        f" {extent} pixels{padded}"
    )

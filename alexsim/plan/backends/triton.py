"""Triton's kernels: what they run, and the scratch of sums that they compute in parts."""

from __future__ import annotations

import math

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    pair,
)
from alexsim.network.part import Part
from alexsim.plan.backends.aten import Aten
from alexsim.plan.backends.base import Asked, Choice, Passes
from alexsim.plan.plan import COMPUTED, Op, OpKind
from alexsim.units import MIB

SPLIT_BYTES, MOST_SPLITS = 16 * MIB, 512
"""Most bytes of sums in parts, and parts of a weight gradient, in the kernels."""


class Triton:
    """Our kernel where there is one; ATen's function elsewhere."""

    def __init__(self) -> None:
        self._aten = Aten()

    def choose(self, asked: Asked) -> Choice:
        """Our kernel, or what ATen would do."""
        part = asked.part
        if part is None or not has_kernel(asked, part):
            return self._aten.choose(asked)
        scratch = _parts_bytes(asked, part)
        return Choice(backend="triton", chunk_images=asked.images, scratch_bytes=scratch)

    def fuses(self, first: Asked, second: Part, *, rows: bool, adds: bool) -> Passes:
        """Both passes, where the kernel is ours; it writes images channels last, and that of a norm
        adds to no gradient."""
        part = first.part
        kinds = (OpKind.FORWARD, OpKind.GRAD_WEIGHT)
        if part is None or not all(has_kernel(first._replace(kind=kind), part) for kind in kinds):
            return self._aten.fuses(first, second, rows=rows, adds=adds)
        added = first._replace(kind=OpKind.GRAD_INPUT, accumulate=True)
        if rows or (adds and not has_kernel(added, part)):
            return "none"
        return "forward and backward"

    def done_flop(self, op: Op, part: Part) -> int:
        """All that are counted: no kernel of ours is of another method."""
        del part
        return op.count.flop


def has_kernel(asked: Asked, part: Part) -> bool:
    """Whether there is a kernel of ours for an op of a part.

    Those of convolutions and norms read and write images channels last.
    """
    kind, accumulate = asked.kind, asked.accumulate
    if kind not in COMPUTED:
        return False
    layer = part.layer
    if kind == OpKind.UPDATE:
        # The kernel computes 2012's rule, of a weight and a bias.
        both = isinstance(layer, FullyConnected | Convolution) and layer.bias
        return asked.optimizer == "sgd-2012" and both
    if kind == OpKind.DRAW:
        # It draws rows of units, and counts images from the first of its replica.
        plain = isinstance(layer, Dropout) and not (layer.rescaled or layer.whole_images)
        return plain and len(part.output_shape) == 1 and asked.replicas == 1
    if kind == OpKind.LOSS:
        return True
    match layer:
        case Convolution():
            square = isinstance(layer.size, int) and isinstance(layer.stride, int)
            plain = square and isinstance(layer.padding, int) and pair(layer.dilation) == (1, 1)
            adds = accumulate and kind == OpKind.GRAD_WEIGHT
            return plain and layer.bias and not any(asked.rows) and not adds
        case FullyConnected():
            return layer.bias and not (accumulate and kind == OpKind.GRAD_WEIGHT)
        case MaxPool():
            plain = isinstance(layer.size, int) and isinstance(layer.stride, int)
            return plain and pair(layer.padding) == (0, 0) and not accumulate
        case SoftmaxCrossEntropy(weight=weight):
            # Its mean is that of the images of its replica.
            mean = weight == 1 and asked.replicas == 1
            return not accumulate and (kind == OpKind.FORWARD or mean)
        case LocalResponseNorm() | SpatialResponseNorm():
            return not accumulate and not any(asked.rows)
    return False


def _parts_bytes(asked: Asked, part: Part) -> int:
    """Bytes that a convolution's sums may take that are computed in parts; two at least."""
    if not isinstance(part.layer, Convolution):
        return 0
    weights = asked.kind == OpKind.GRAD_WEIGHT
    results = {
        OpKind.FORWARD: asked.images * math.prod(part.output_shape),
        OpKind.GRAD_INPUT: asked.images * math.prod(part.input_shape),
        OpKind.GRAD_WEIGHT: part.weight_count,
    }.get(asked.kind)
    if results is None or 2 * FLOAT_BYTES * results > SPLIT_BYTES:
        return 0
    return SPLIT_BYTES + (FLOAT_BYTES * MOST_SPLITS * part.layer.filters if weights else 0)

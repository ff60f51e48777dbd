"""Triton's kernels: what they cannot run, and the scratch of their weight gradients."""

from __future__ import annotations

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
from alexsim.network.network import Network, Part
from alexsim.network.update_rules import Optimizer
from alexsim.plan.backends.aten import Aten
from alexsim.plan.backends.base import Choice, Passes
from alexsim.plan.records import OpKind
from alexsim.units import MIB

SPLIT_BYTES, MOST_SPLITS = 16 * MIB, 512
"""Most bytes and parts of a weight gradient in the kernels."""


class Triton:
    """Our kernels where there is one; ATen's functions for the rest."""

    def __init__(self) -> None:
        self._aten = Aten()

    def refused(self, network: Network) -> str:
        """A convolution or norm that leads into a product: its output would have to lie in two
        ways."""
        for parts in network.parts:
            if not isinstance(parts[0].layer, FullyConnected):
                continue
            for read in parts[0].reads:
                before = network.part_of(*read).layer if read.layer != "input" else None
                if isinstance(before, Convolution | LocalResponseNorm):
                    return (
                        f"the triton backend cannot run {network.name}: {before.name} leads into"
                        f" {parts[0].layer.name} without a pool or activation between"
                    )
        return ""

    def choose(
        self,
        kind: OpKind,
        part: Part | None,
        batch_size: int,
        *,
        accumulate: bool,
        optimizer: Optimizer = "sgd-2012",
    ) -> Choice:
        """Our kernel, or what ATen would do."""
        if part is None or not has_kernel(kind, part, accumulate=accumulate, optimizer=optimizer):
            return self._aten.choose(kind, part, batch_size, accumulate=accumulate)
        scratch = _splits(part) if kind == OpKind.GRAD_WEIGHT else 0
        return Choice(backend="triton", chunk_images=batch_size, scratch_bytes=scratch)

    def fuses(self, first: Part, second: Part, *, flat: bool, adds: bool) -> Passes:
        """Both passes, where the kernel is ours; it writes images channels last, and that of a norm
        adds to no gradient."""
        if not has_kernel(OpKind.FORWARD, first, accumulate=False):
            return self._aten.fuses(first, second, flat=flat, adds=adds)
        if flat or (adds and not has_kernel(OpKind.GRAD_INPUT, first, accumulate=True)):
            return "none"
        return "forward and backward"


def has_kernel(
    kind: OpKind,
    part: Part,
    *,
    accumulate: bool,
    optimizer: Optimizer = "sgd-2012",
) -> bool:
    """Whether there is a kernel of ours for an op."""
    layer = part.layer
    if kind == OpKind.UPDATE:
        # The kernel computes 2012's rule, of a weight and a bias.
        return optimizer == "sgd-2012" and isinstance(layer, Convolution | FullyConnected)
    if kind == OpKind.DRAW:
        return isinstance(layer, Dropout) and not (layer.rescaled or layer.whole_images)
    if kind == OpKind.LOSS:
        return True
    match layer:
        case Convolution():
            square = isinstance(layer.size, int) and isinstance(layer.stride, int)
            plain = square and isinstance(layer.padding, int) and pair(layer.dilation) == (1, 1)
            return plain and layer.bias
        case FullyConnected():
            return True
        case MaxPool():
            plain = isinstance(layer.size, int) and isinstance(layer.stride, int)
            return plain and pair(layer.padding) == (0, 0) and not accumulate
        case SoftmaxCrossEntropy(weight=weight):
            return not accumulate and (kind == OpKind.FORWARD or weight == 1)
        case LocalResponseNorm() | SpatialResponseNorm():
            return not accumulate
    return False


def _splits(part: Part) -> int:
    """Bytes that the parts of a convolution's weight gradient may take."""
    if not isinstance(part.layer, Convolution) or 2 * FLOAT_BYTES * part.weight_count > SPLIT_BYTES:
        return 0
    return SPLIT_BYTES + FLOAT_BYTES * MOST_SPLITS * part.layer.filters

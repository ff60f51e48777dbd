"""Forward ops on ATen's functions, by kind of layer."""

from __future__ import annotations

import torch

from alexsim.execute.aten.batch_norm import batch_norm_forward, layer_norm_forward
from alexsim.execute.aten.bound import (
    NORMS,
    Bound,
    batch_norm_tensors,
    discard,
    per_pixel,
    slices,
)
from alexsim.execute.aten.chunks import rows
from alexsim.execute.aten.convolution import convolution_forward
from alexsim.execute.aten.elementwise import FORWARD
from alexsim.execute.aten.norm import norm_forward
from alexsim.execute.aten.pool import (
    adaptive_average_pool_forward,
    average_pool_forward,
    max_pool_forward,
)
from alexsim.execute.aten.winograd import winograd_forward
from alexsim.execute.context import Launch, StepContext
from alexsim.network.layers import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    Flatten,
    FullyConnected,
    LayerNorm,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)

Tensor = torch.Tensor


def forward_of_both(bound: Bound) -> Launch:
    """A product, and what follows it, in place: its values are still in the cache."""
    second, y = bound.plan.epilogue(bound.op), bound["y"]
    assert second is not None
    last = second.layer
    function = FORWARD[type(last)]

    def end(values: Tensor) -> None:
        function(last, values, values)

    layer, op = bound.part.layer, bound.op
    if isinstance(layer, Convolution) and op.algorithm == "direct":
        x, weight, bias, size = bound["x"], bound["weight"], bound.get("bias"), op.chunk_images
        return lambda _: convolution_forward(layer, x, weight, bias, y, size, end)
    run = forward(bound)

    def both(context: StepContext) -> None:
        run(context)
        end(y)

    return both


def _forward_of_several(bound: Bound) -> Launch:
    """A layer that joins outputs."""
    y = bound["y"]
    match bound.part.layer:
        case Add():
            first, second, *others = bound.numbered("x")

            def add(_: StepContext) -> None:
                torch.add(first, second, out=y)
                for other in others:
                    y.add_(other)

            return add
        case Multiply():
            first, second = bound.numbered("x")
            factors = per_pixel(second, first)
            return lambda _: discard(torch.mul(first, factors, out=y))
        case Concat():
            pairs = list(zip(slices(bound, y), bound.numbered("x"), strict=True))
            return lambda _: discard([out.copy_(x) for out, x in pairs])
    raise AssertionError(bound.part.layer)


def forward(bound: Bound) -> Launch:
    layer, size = bound.part.layer, bound.op.chunk_images
    if layer.several:
        return _forward_of_several(bound)
    if isinstance(layer, NORMS):
        return _forward_norm(bound)
    y = bound["y"]
    x = bound["x"]
    match layer:
        case Convolution():
            weight, bias = bound["weight"], bound.get("bias")
            if bound.op.algorithm == "winograd":
                return lambda _: winograd_forward(x, weight, bias, y, size)
            return lambda _: convolution_forward(layer, x, weight, bias, y, size)
        case FullyConnected():
            flat, transposed, shift = rows(x), bound["weight"].t(), bound.get("bias")
            if shift is None:
                return lambda _: discard(torch.mm(flat, transposed, out=y))
            return lambda _: discard(torch.addmm(shift, flat, transposed, out=y))
        case Flatten():
            return lambda _: discard(y.copy_(rows(x)))
        case MaxPool():
            return lambda _: max_pool_forward(layer, x, y, size)
        case AveragePool():
            return lambda _: average_pool_forward(layer, x, y)
        case AdaptiveAveragePool():
            return lambda _: adaptive_average_pool_forward(layer, x, y)
        case Dropout(rate=rate, rescaled=rescaled):
            mask = bound["mask"]

            def drop(context: StepContext) -> None:
                # At test every unit stays and counts for its share (paper, section 4.2).
                at_test = 1 if rescaled else 1 - rate
                torch.mul(x, mask if context.training else at_test, out=y)

            return drop
        case SoftmaxCrossEntropy():
            flat = rows(x)
            return lambda _: discard(torch.softmax(flat, 1, out=y))
    forward = FORWARD[type(layer)]
    return lambda _: discard(forward(layer, x, y))


def _forward_norm(bound: Bound) -> Launch:
    layer, size, x, y = bound.part.layer, bound.op.chunk_images, bound["x"], bound["y"]
    match layer:
        case LocalResponseNorm() | SpatialResponseNorm():
            denominators = bound["norm"]
            return lambda _: norm_forward(layer, x, y, denominators, size)
        case BatchNorm():
            norm, scale, shift = batch_norm_tensors(bound), bound["weight"], bound["bias"]
            running = (bound["running_mean"], bound["running_var"])
            return lambda context: batch_norm_forward(
                layer, norm, scale, shift, running, y, size, training=context.training
            )
        case LayerNorm():
            weight, shift, kept = bound["weight"], bound["bias"], (bound["mean"], bound["rstd"])
            return lambda _: layer_norm_forward(layer, x, weight, shift, y, kept, size)
    raise AssertionError(layer)

"""Gradients on ATen's functions, by kind of layer."""

from __future__ import annotations

from dataclasses import replace

import torch

from alexsim.execute.aten.batch_norm import (
    batch_norm_grad_input,
    batch_norm_sums,
    layer_norm_grad_input,
    layer_norm_sums,
)
from alexsim.execute.aten.bound import (
    NORMS,
    Bound,
    batch_norm_tensors,
    discard,
    per_pixel,
    slices,
)
from alexsim.execute.aten.chunks import rows
from alexsim.execute.aten.convolution import convolution_grad_input, convolution_grad_weight
from alexsim.execute.aten.elementwise import (
    BACKWARD,
    factor_grad_input,
    in_chunks,
    move_grad_input,
)
from alexsim.execute.aten.linear import linear_grad_weight_into_momentum
from alexsim.execute.aten.norm import norm_grad_input
from alexsim.execute.aten.pool import (
    adaptive_average_pool_grad_input,
    average_pool_grad_input,
    max_pool_grad_input,
)
from alexsim.execute.aten.winograd import winograd_grad_input, winograd_grad_weight
from alexsim.execute.context import Launch, StepContext
from alexsim.network.layers import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    FullyConnected,
    LayerNorm,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.layers.elementwise import Move
from alexsim.plan.backends.aten import adds_apart

Tensor = torch.Tensor


def grad_input(bound: Bound) -> Launch:
    plan, op, layer = bound.plan, bound.op, bound.part.layer
    assert not op.epilogue, f"{op.id}: ATen's gradients are of one layer"
    size, add = op.chunk_images, op.accumulate
    if layer.several:
        return _grad_of_input(bound)
    if isinstance(layer, NORMS):
        return _grad_norm(bound)
    dx = bound["dx"]
    if isinstance(layer, SoftmaxCrossEntropy):
        images = plan.batch_size if plan.spec.variable_batch else plan.images
        labels = bound["labels"][op.first_image : op.first_image + plan.batch_size]
        share = layer.weight / images
        return _grad_softmax(bound["y"], labels, rows(dx), share, add=add)
    dy = bound["dy"]
    match layer:
        case Convolution():
            weight = bound["weight"]
            if op.algorithm == "winograd":
                return lambda _: winograd_grad_input(weight, dy, dx, size, add=add)
            return lambda _: convolution_grad_input(layer, weight, dy, dx, size, add=add)
        case FullyConnected():
            flat, weight = rows(dx), bound["weight"]
            if add:
                return lambda _: discard(flat.add_(torch.mm(dy, weight)))
            return lambda _: discard(torch.mm(dy, weight, out=flat))
        case Move():
            return lambda _: move_grad_input(layer, dy, dx, add=add)
        case MaxPool():
            x, y = bound["x"], bound["y"]
            return lambda _: max_pool_grad_input(layer, x, y, dy, dx, size, add=add)
        case AveragePool():
            return lambda _: average_pool_grad_input(layer, dy, dx, add=add)
        case AdaptiveAveragePool():
            return lambda _: adaptive_average_pool_grad_input(layer, dy, dx, add=add)
        case Dropout():
            mask = bound["mask"]
            if add:
                return lambda _: discard(dx.addcmul_(dy, mask))
            return lambda _: discard(torch.mul(dy, mask, out=dx))
    (kept_role,) = ("y" if kept == "output" else "x" for kept in layer.backward_reads)
    read, backward = bound[kept_role], BACKWARD[type(layer)]
    return lambda _: in_chunks(
        lambda part, out: backward(layer, dy[part], read[part], out), dx, size, add=add
    )


def _grad_norm(bound: Bound) -> Launch:
    """The gradient of a norm's input."""
    layer, size, add = bound.part.layer, bound.op.chunk_images, bound.op.accumulate
    op, dx, dy = bound.op, bound["dx"], bound["dy"]
    match layer:
        case LocalResponseNorm() | SpatialResponseNorm():
            x, norm = bound["x"], bound["norm"]
            if not add:
                return lambda _: norm_grad_input(layer, x, norm, dy, dx, size)
            return lambda _: in_chunks(
                lambda part, out: norm_grad_input(layer, x[part], norm[part], dy[part], out, size),
                dx,
                size,
                add=True,
            )
        case BatchNorm():
            sums = (bound["dweight"], bound["dbias"]) if "dweight" in op.operands else None
            tensors, scale = batch_norm_tensors(bound), bound["weight"]
            return lambda _: batch_norm_grad_input(tensors, scale, dy, sums, dx, size, add=add)
        case LayerNorm():
            x, kept, weight = bound["x"], (bound["mean"], bound["rstd"]), bound["weight"]
            return lambda _: layer_norm_grad_input(x, kept, weight, dy, dx, size, add=add)
    raise AssertionError(layer)


def _grad_of_input(bound: Bound) -> Launch:
    """The gradient of one of a layer's several inputs."""
    size, add, dy = bound.op.chunk_images, bound.op.accumulate, bound["dy"]
    (index,) = (i for i in range(len(bound.part.inputs)) if f"dx{i}" in bound.op.operands)
    dx = bound[f"dx{index}"]
    match bound.part.layer:
        case Add():
            return lambda _: discard((dx.add_ if add else dx.copy_)(dy))
        case Concat():
            dy_slice = slices(bound, dy)[index]
            return lambda _: discard((dx.add_ if add else dx.copy_)(dy_slice))
        case Multiply():
            other = per_pixel(bound[f"x{1 - index}"], dy)
            return lambda _: factor_grad_input(dy, other, dx, size, add=add)
    raise AssertionError(bound.part.layer)


def _grad_softmax(
    probabilities: Tensor, labels: Tensor, dx: Tensor, share: float, *, add: bool
) -> Launch:
    index = labels.unsqueeze(1)
    minus_one = torch.full((len(dx), 1), -1.0, dtype=dx.dtype, device=dx.device)

    def run(_: StepContext) -> None:
        out = torch.empty_like(dx) if add else dx
        out.copy_(probabilities)
        out.scatter_add_(1, index, minus_one)
        # The gradient of the mean: every later gradient is a mean over the minibatch too.
        out.mul_(share)
        if add:
            dx.add_(out)

    return run


def _added(bound: Bound) -> Launch:
    """The gradients of shared parameters, added to those of other layers that have them too."""
    names = [name for name in ("dweight", "dbias") if name in bound.op.operands]

    def run(context: StepContext) -> None:
        apart = {name: torch.empty_like(bound[name]) for name in names}
        alone = replace(bound.op, accumulate=False)
        grad_weight(replace(bound, op=alone, instead=apart))(context)
        for name, summand in apart.items():
            bound[name].add_(summand)

    return run


def grad_weight(bound: Bound) -> Launch:
    op, layer, size = bound.op, bound.part.layer, bound.op.chunk_images
    assert not op.epilogue, f"{op.id}: ATen's gradients are of one layer"
    dy, x = bound["dy"], bound["x"]
    if op.accumulate and adds_apart(bound.part):
        return _added(bound)
    if isinstance(layer, BatchNorm):
        tensors, scale, shift = batch_norm_tensors(bound), bound["dweight"], bound["dbias"]
        return lambda _: batch_norm_sums(tensors, dy, scale, shift, size)
    if isinstance(layer, LayerNorm):
        kept, scale, shift = (bound["mean"], bound["rstd"]), bound["dweight"], bound["dbias"]
        return lambda _: layer_norm_sums(x, kept, dy, scale, shift, size)
    if isinstance(layer, Convolution):
        target, bias = bound["dweight"], bound.get("dbias")
        if op.algorithm == "winograd":
            return lambda _: winograd_grad_weight(layer, x, dy, target, bias, size)
        return lambda _: convolution_grad_weight(layer, x, dy, target, bias, size)
    flat, dbias = rows(x), bound.get("dbias")
    if not op.fused:
        dweight = bound["dweight"]

        def store(_: StepContext) -> None:
            if op.accumulate:
                dweight.addmm_(dy.t(), flat)
            else:
                torch.mm(dy.t(), flat, out=dweight)
            _sum_rows(dy, dbias, add=op.accumulate)

        return store
    weight, momentum = bound["weight"], bound["momentum"]

    def run(context: StepContext) -> None:
        h = context.hyperparameters
        rate = h.weight_rate_of(layer.name)
        if op.accumulate:
            # An earlier turn of this step has done the rest.
            momentum.addmm_(dy.t(), flat, alpha=-rate)
            _sum_rows(dy, dbias, add=True)
            return
        linear_grad_weight_into_momentum(
            flat, dy, weight, momentum, momentum=h.momentum, decay=h.weight_decay, rate=rate
        )
        _sum_rows(dy, dbias, add=False)

    return run


def _sum_rows(dy: Tensor, dbias: Tensor | None, *, add: bool) -> None:
    """The gradient of a bias, if there is one."""
    if dbias is None:
        return
    if add:
        dbias.add_(dy.sum(0))
    else:
        torch.sum(dy, 0, out=dbias)

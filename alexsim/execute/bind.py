"""From an op of the plan to a function over its device's tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from alexsim.execute.aten.convolution import (
    convolution_forward,
    convolution_grad_input,
    convolution_grad_weight,
)
from alexsim.execute.aten.linear import linear_grad_weight_into_momentum
from alexsim.execute.aten.norm import norm_forward, norm_grad_input
from alexsim.execute.aten.pool import (
    average_pool_forward,
    average_pool_grad_input,
    max_pool_forward,
    max_pool_grad_input,
)
from alexsim.execute.aten.winograd import (
    winograd_forward,
    winograd_grad_input,
    winograd_grad_weight,
)
from alexsim.execute.memory import Memory
from alexsim.execute.random import dropout_keep
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    Tanh,
)
from alexsim.network.network import Part
from alexsim.plan.placement import parameter
from alexsim.plan.records import Op, OpKind, Plan
from alexsim.plan.scratch import uses_winograd

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The update rule's constants for one step (facts of the 2012 recipe are the defaults).

    ``inc = momentum * inc - weight_decay * rate * w - rate * mean gradient``, then ``w += inc``;
    biases have a rate of their own and no decay.
    """

    weight_rate: float = 0.01
    bias_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0005
    layer_rates: tuple[tuple[str, float], ...] = ()
    """Weight rates of single layers, by name, instead of ``weight_rate``."""

    def weight_rate_of(self, layer: str) -> float:
        """The rate of a layer's weights."""
        return dict(self.layer_rates).get(layer, self.weight_rate)


@dataclass(slots=True, kw_only=True)
class StepContext:
    """What changes from step to step."""

    images: Tensor
    """``[N, C, H, W]``, any strides: the minibatch, or only those of this process's device."""
    labels: Tensor
    """``[N]``, int64."""
    step: int
    seed: int
    training: bool
    hyperparameters: Hyperparameters
    uploaded: bool = False
    """The devices have the images already."""
    losses: Tensor | None = None
    """``[N]``, after the loss op: negative log-likelihood of each image."""
    top1: Tensor | None = None
    """``[N]``: error of the best guess, 0 or 1; ties share the credit."""
    top5: Tensor | None = None


Run = Callable[[StepContext], None]


def bind(plan: Plan, op: Op, memory: Memory, replica: int = 0) -> Run:
    """The function that runs ``op`` on its device's buffers, in one of the plan's replicas."""
    if op.kind == OpKind.UPLOAD:
        return _upload(op, memory)
    part = plan.part(op)
    match op.kind:
        case OpKind.DRAW:
            return _draw(plan, op, part, memory, replica)
        case OpKind.FORWARD:
            return _forward(op, part, memory)
        case OpKind.LOSS:
            return _loss(plan, op, memory)
        case OpKind.GRAD_INPUT:
            return _grad_input(plan, op, part, memory)
        case OpKind.GRAD_WEIGHT:
            return _grad_weight(op, part, memory)
        case OpKind.UPDATE:
            return _update(plan, op, part, memory)
        case OpKind.ACCUMULATE:
            landed, total = (memory.buffer(name) for name in op.reads)
            return lambda _: _discard(total.add_(landed))
        case _:
            raise AssertionError(f"{op.id}: no function runs a {op.kind}")


def _discard(_: object) -> None:
    return None


def _upload(op: Op, memory: Memory) -> Run:
    images = memory.buffer(op.writes[0])
    labels = memory.buffer(op.writes[1]) if len(op.writes) > 1 else None

    first, count = op.first_image, len(images)

    def run(context: StepContext) -> None:
        whole = len(context.images) > count
        own = context.images[first : first + count] if whole else context.images
        images.copy_(own, non_blocking=True)
        if labels is not None:
            labels.copy_(context.labels, non_blocking=True)

    return run


def _draw(plan: Plan, op: Op, part: Part, memory: Memory, replica: int) -> Run:
    mask = memory.buffer(op.writes[0])
    assert isinstance(part.layer, Dropout)
    rate, name = part.layer.rate, part.layer.name
    parts = plan.network.parts_of(name)
    before = 0 if part.copied else sum(units_of(p) for p in parts if p.column < part.column)
    first = replica * plan.batch_size + op.first_image
    units, images = range(before, before + units_of(part)), range(first, first + plan.batch_size)

    def run(context: StepContext) -> None:
        keep = dropout_keep(
            seed=context.seed, layer=name, step=context.step, images=images, units=units, rate=rate
        )
        mask.copy_(torch.from_numpy(keep).view(mask.shape))

    return run


def units_of(part: Part) -> int:
    """Values of one image that a part puts out."""
    product = 1
    for extent in part.output_shape:
        product *= extent
    return product


def _forward(op: Op, part: Part, memory: Memory) -> Run:
    layer, size = part.layer, op.chunk_images
    x = memory.block_of(op.reads[: part.joined])
    y = memory.buffer(op.writes[0])
    match layer:
        case Convolution():
            weight, bias = (memory.buffer(name) for name in op.reads[-2:])
            if uses_winograd(op.kind, part):
                return lambda _: winograd_forward(x, weight, bias, y, size)
            return lambda _: convolution_forward(layer, x, weight, bias, y, size)
        case FullyConnected():
            weight, bias = (memory.buffer(name) for name in op.reads[-2:])
            flat, transposed = x.flatten(1), weight.t()
            return lambda _: _discard(torch.addmm(bias, flat, transposed, out=y))
        case MaxPool():
            return lambda _: max_pool_forward(layer, x, y, size)
        case AveragePool():
            return lambda _: average_pool_forward(layer, x, y)
        case LocalResponseNorm() | SpatialResponseNorm():
            denominators = memory.buffer(op.writes[1])
            return lambda _: norm_forward(layer, x, y, denominators, size)
        case ReLU():
            return lambda _: _discard(torch.clamp_min(x, 0, out=y))
        case Sigmoid():
            return lambda _: _discard(torch.sigmoid(x, out=y))
        case Tanh():
            return lambda _: _discard(torch.tanh(x, out=y))
        case Dropout(rate=rate):
            mask = memory.buffer(op.reads[-1])

            def drop(context: StepContext) -> None:
                # At test every unit stays and counts for its share (paper, section 4.2).
                torch.mul(x, mask if context.training else 1 - rate, out=y)

            return drop
        case SoftmaxCrossEntropy():
            flat = x.flatten(1)
            return lambda _: _discard(torch.softmax(flat, 1, out=y))
    raise AssertionError(layer)


def _loss(plan: Plan, op: Op, memory: Memory) -> Run:
    probabilities, labels = (memory.buffer(name) for name in op.reads)
    turn = slice(op.first_image, op.first_image + plan.batch_size)
    index = labels[turn].unsqueeze(1)
    tiny = torch.finfo(probabilities.dtype).tiny

    def run(context: StepContext) -> None:
        own = probabilities.gather(1, index)
        losses = own.clamp_min(tiny).log_().neg_().squeeze_(1)
        above = (probabilities > own).sum(1)
        level = (probabilities == own).sum(1).clamp_min_(1)
        # Among equal guesses, each is as likely to be named first.
        top1 = 1 - ((1 - above) / level).clamp_(0, 1)
        top5 = 1 - ((5 - above) / level).clamp_(0, 1)
        # Comparisons with NaN are all false: where a probability is none, no guess is right.
        unknown = ~probabilities.sum(1).isfinite()
        losses.masked_fill_(unknown, torch.nan)
        top1.masked_fill_(unknown, 1)
        top5.masked_fill_(unknown, 1)
        if context.losses is None or plan.turns == 1:
            context.losses, context.top1, context.top5 = losses, top1, top5
            return
        assert context.top1 is not None
        assert context.top5 is not None
        context.losses = torch.cat([context.losses, losses])
        context.top1 = torch.cat([context.top1, top1])
        context.top5 = torch.cat([context.top5, top5])

    return run


def _grad_input(plan: Plan, op: Op, part: Part, memory: Memory) -> Run:
    layer, size, add = part.layer, op.chunk_images, op.accumulate
    dx = memory.block_of(op.writes)
    first = memory.buffer(op.reads[0])
    second = memory.buffer(op.reads[1]) if len(op.reads) > 1 else first
    if isinstance(layer, SoftmaxCrossEntropy):
        images = plan.batch_size if plan.variable_batch else plan.images
        labels = second[op.first_image : op.first_image + plan.batch_size]
        return _grad_softmax(first, labels, dx.flatten(1), images)
    match layer:
        case Convolution():
            if uses_winograd(op.kind, part):
                return lambda _: winograd_grad_input(second, first, dx, size, add=add)
            return lambda _: convolution_grad_input(layer, second, first, dx, size, add=add)
        case FullyConnected():
            flat = dx.flatten(1)
            if add:
                return lambda _: _discard(flat.add_(torch.mm(first, second)))
            return lambda _: _discard(torch.mm(first, second, out=flat))
    assert not add, f"{op.id}: only weighted layers have several consumers"
    match layer:
        case MaxPool():
            x = memory.buffer(op.reads[2])
            return lambda _: max_pool_grad_input(layer, x, second, first, dx, size)
        case AveragePool():
            return lambda _: average_pool_grad_input(layer, first, dx)
        case LocalResponseNorm() | SpatialResponseNorm():
            denominators = memory.buffer(op.reads[2])
            return lambda _: norm_grad_input(layer, second, denominators, first, dx, size)
        case ReLU():
            backward = torch.ops.aten.threshold_backward.grad_input
            return lambda _: _discard(backward(first, second, 0, grad_input=dx))
        case Sigmoid():
            backward = torch.ops.aten.sigmoid_backward.grad_input
            return lambda _: _discard(backward(first, second, grad_input=dx))
        case Tanh():
            backward = torch.ops.aten.tanh_backward.grad_input
            return lambda _: _discard(backward(first, second, grad_input=dx))
        case Dropout():
            return lambda _: _discard(torch.mul(first, second, out=dx))
    raise AssertionError(layer)


def _grad_softmax(probabilities: Tensor, labels: Tensor, dx: Tensor, images: int) -> Run:
    index = labels.unsqueeze(1)
    minus_one = torch.full((len(dx), 1), -1.0, dtype=dx.dtype, device=dx.device)

    def run(_: StepContext) -> None:
        dx.copy_(probabilities)
        dx.scatter_add_(1, index, minus_one)
        # The gradient of the mean: every later gradient is a mean over the minibatch too.
        dx.mul_(1 / images)

    return run


def _grad_weight(op: Op, part: Part, memory: Memory) -> Run:
    layer, size = part.layer, op.chunk_images
    dy = memory.buffer(op.reads[0])
    x = memory.block_of(op.reads[1 : 1 + part.joined])
    target, dbias = (memory.buffer(name) for name in op.writes)
    if isinstance(layer, Convolution):
        if uses_winograd(op.kind, part):
            return lambda _: winograd_grad_weight(layer, x, dy, target, dbias, size)
        return lambda _: convolution_grad_weight(layer, x, dy, target, dbias, size)
    flat = x.flatten(1)
    if not op.fused:

        def store(_: StepContext) -> None:
            torch.mm(dy.t(), flat, out=target)
            torch.sum(dy, 0, out=dbias)

        return store
    weight = memory.buffer(op.reads[-2])

    def run(context: StepContext) -> None:
        h = context.hyperparameters
        rate = h.weight_rate_of(layer.name)
        if op.accumulate:
            # An earlier turn of this step has done the rest.
            target.addmm_(dy.t(), flat, alpha=-rate)
            dbias.add_(dy.sum(0))
            return
        linear_grad_weight_into_momentum(
            flat, dy, weight, target, momentum=h.momentum, decay=h.weight_decay, rate=rate
        )
        torch.sum(dy, 0, out=dbias)

    return run


def _update(plan: Plan, op: Op, part: Part, memory: Memory) -> Run:
    device = int(op.device.removeprefix("gpu"))

    def own(name: str) -> Tensor:
        return memory.buffer(parameter(device, part, name))

    weight, inc = own("weight"), own("weight.momentum")
    bias, bias_inc, bias_grad = own("bias"), own("bias.momentum"), own("bias.grad")
    grad = None if op.fused else own("weight.grad")
    # Of a variable batch, each turn's gradient is a mean; their sum is not.
    share = 1 / plan.turns if plan.variable_batch and part.copied else 1

    def run(context: StepContext) -> None:
        h = context.hyperparameters
        rate = h.weight_rate_of(part.layer.name)
        if grad is not None:
            inc.mul_(h.momentum).add_(weight, alpha=-h.weight_decay * rate)
            inc.add_(grad, alpha=-rate * share)
        weight.add_(inc)
        bias_inc.mul_(h.momentum).add_(bias_grad, alpha=-h.bias_rate * share)
        bias.add_(bias_inc)

    return run

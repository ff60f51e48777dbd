"""From an op of the plan to a function over its device's tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from alexsim.execute.aten.batch_norm import (
    BatchNormTensors,
    batch_norm_forward,
    batch_norm_grad_input,
    batch_norm_sums,
    layer_norm_forward,
    layer_norm_grad_input,
    layer_norm_sums,
)
from alexsim.execute.aten.convolution import (
    convolution_forward,
    convolution_grad_input,
    convolution_grad_weight,
    product_forward,
    product_grad_input,
)
from alexsim.execute.aten.elementwise import BACKWARD, FORWARD, factor_grad_input, in_chunks
from alexsim.execute.aten.linear import linear_grad_weight_into_momentum
from alexsim.execute.aten.norm import norm_forward, norm_grad_input
from alexsim.execute.aten.pool import (
    adaptive_average_pool_forward,
    adaptive_average_pool_grad_input,
    average_pool_forward,
    average_pool_grad_input,
    max_pool_forward,
    max_pool_grad_input,
)
from alexsim.execute.aten.update import Constants, adamw, adamw_corrections, sgd, sgd_2012
from alexsim.execute.aten.winograd import (
    winograd_forward,
    winograd_grad_input,
    winograd_grad_weight,
)
from alexsim.execute.memory import Memory
from alexsim.execute.random import dropout_keep
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
    Role,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Part
from alexsim.network.update_rules import BETA2, EPSILON, UPDATES, Optimizer
from alexsim.plan.records import Op, OpKind, Plan

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """The update rule's constants for one step (facts of the 2012 recipe are the defaults).

    What each rule makes of them is in ``alexsim.network.update_rules``.
    """

    weight_rate: float = 0.01
    bias_rate: float = 0.01
    """Of all that is no weight, with ``sgd-2012``; the other rules have one rate for everything."""
    momentum: float = 0.9
    """Of ``adamw``: beta1."""
    weight_decay: float = 0.0005
    layer_rates: tuple[tuple[str, float], ...] = ()
    """Weight rates of single layers, by name, instead of ``weight_rate``."""
    nesterov: bool = False
    """Of ``sgd``."""
    decay_all: bool = False
    """Whether biases, scales and shifts decay too, with ``sgd`` and ``adamw``."""
    beta2: float = BETA2
    """Of ``adamw``, as ``epsilon``."""
    epsilon: float = EPSILON

    def weight_rate_of(self, layer: str) -> float:
        """The rate of a layer's weights."""
        return dict(self.layer_rates).get(layer, self.weight_rate)

    def of(self, optimizer: Optimizer, layer: str, role: Role) -> tuple[float, float]:
        """Rate and decay of a layer's parameter: the one place that tells weights from others."""
        of_weight = self.weight_rate_of(layer), self.weight_decay
        if role == Role.WEIGHT:
            return of_weight
        if optimizer == "sgd-2012":
            return self.bias_rate, 0.0
        return of_weight if self.decay_all else (of_weight[0], 0.0)


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


_NORMS = (LocalResponseNorm, SpatialResponseNorm, BatchNorm, LayerNorm)


def bind(plan: Plan, op: Op, memory: Memory, replica: int = 0) -> Run:
    """The function that runs ``op`` on its device's buffers, in one of the plan's replicas."""
    if op.kind == OpKind.UPLOAD:
        return _upload(op, memory)
    bound = _Bound(plan=plan, op=op, part=plan.part(op), memory=memory)
    match op.kind:
        case OpKind.DRAW:
            return _draw(bound, replica)
        case OpKind.FORWARD:
            return _forward(bound) if not op.epilogue else _forward_of_both(bound)
        case OpKind.LOSS:
            return _loss(bound)
        case OpKind.GRAD_INPUT:
            return _grad_input(bound)
        case OpKind.GRAD_WEIGHT:
            return _grad_weight(bound)
        case OpKind.UPDATE:
            return _update(bound)
        case OpKind.CLEAR:
            grad = memory.operand(op, "dx")
            return lambda _: _discard(grad.zero_())
        case OpKind.ACCUMULATE:
            landed, total = memory.operand(op, "x"), memory.operand(op, "total")
            return lambda _: _discard(total.add_(landed))
        case _:
            raise AssertionError(f"{op.id}: no function runs a {op.kind}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """An op, and the tensors that it calls by role."""

    plan: Plan
    op: Op
    part: Part
    memory: Memory

    def __getitem__(self, role: str) -> Tensor:
        return self.memory.operand(self.op, role)

    def get(self, role: str) -> Tensor | None:
        """An operand that not every such op has."""
        return self[role] if role in self.op.operands else None

    def numbered(self, role: str) -> list[Tensor]:
        """``x0``, ``x1`` ... of a layer that reads several outputs."""
        return [
            self[name]
            for index in range(len(self.part.inputs))
            if (name := f"{role}{index}") in self.op.operands
        ]


def _discard(_: object) -> None:
    return None


def _upload(op: Op, memory: Memory) -> Run:
    images = memory.operand(op, "images")
    labels = memory.operand(op, "labels") if "labels" in op.operands else None

    first, count = op.first_image, len(images)

    def run(context: StepContext) -> None:
        whole = len(context.images) > count
        own = context.images[first : first + count] if whole else context.images
        images.copy_(own, non_blocking=True)
        if labels is not None:
            labels.copy_(context.labels, non_blocking=True)

    return run


def units_before(plan: Plan, part: Part) -> int:
    """Random values per image that the columns before a dropout's part draw."""
    if part.copied:
        return 0
    layer = part.layer
    assert isinstance(layer, Dropout)
    parts = plan.network.parts_of(layer.name)
    return sum(layer.draws(p.output_shape) for p in parts if p.column < part.column)


def _draw(bound: _Bound, replica: int) -> Run:
    plan, part, mask = bound.plan, bound.part, bound["mask"]
    layer = part.layer
    assert isinstance(layer, Dropout)
    before, count = units_before(plan, part), layer.draws(part.output_shape)
    first = replica * plan.batch_size + bound.op.first_image
    units, images = range(before, before + count), range(first, first + plan.batch_size)

    def run(context: StepContext) -> None:
        keep = dropout_keep(
            seed=context.seed,
            layer=layer.name,
            step=context.step,
            images=images,
            units=units,
            rate=layer.rate,
        )
        mask.copy_(torch.from_numpy(keep).view(mask.shape))
        if layer.rescaled:
            mask.mul_(1 / (1 - layer.rate))

    return run


def _forward_of_both(bound: _Bound) -> Run:
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
    run = _forward(bound)

    def both(context: StepContext) -> None:
        run(context)
        end(y)

    return both


def _forward_of_several(bound: _Bound) -> Run:
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
            return lambda _: _discard(torch.mul(first, second, out=y))
        case Concat():
            pairs = list(zip(_slices(bound, y), bound.numbered("x"), strict=True))
            return lambda _: _discard([out.copy_(x) for out, x in pairs])
    raise AssertionError(bound.part.layer)


def _forward(bound: _Bound) -> Run:
    layer, size = bound.part.layer, bound.op.chunk_images
    if layer.several:
        return _forward_of_several(bound)
    if isinstance(layer, _NORMS):
        return _forward_norm(bound)
    y = bound["y"]
    x = bound["x"]
    match layer:
        case Convolution():
            weight, bias = bound["weight"], bound.get("bias")
            match bound.op.algorithm:
                case "winograd":
                    return lambda _: winograd_forward(x, weight, bound["bias"], y, size)
                case "product":
                    return lambda _: product_forward(x, weight, bias, y)
            return lambda _: convolution_forward(layer, x, weight, bias, y, size)
        case FullyConnected():
            flat, transposed, shift = x.flatten(1), bound["weight"].t(), bound["bias"]
            return lambda _: _discard(torch.addmm(shift, flat, transposed, out=y))
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
            flat = x.flatten(1)
            return lambda _: _discard(torch.softmax(flat, 1, out=y))
    forward = FORWARD[type(layer)]
    return lambda _: _discard(forward(layer, x, y))


def _forward_norm(bound: _Bound) -> Run:
    layer, size, x, y = bound.part.layer, bound.op.chunk_images, bound["x"], bound["y"]
    match layer:
        case LocalResponseNorm() | SpatialResponseNorm():
            denominators = bound["norm"]
            return lambda _: norm_forward(layer, x, y, denominators, size)
        case BatchNorm():
            norm, scale, shift = _batch_norm(bound), bound["weight"], bound["bias"]
            running = (bound["running_mean"], bound["running_var"])
            return lambda context: batch_norm_forward(
                layer, norm, scale, shift, running, y, size, training=context.training
            )
        case LayerNorm():
            weight, shift, kept = bound["weight"], bound["bias"], (bound["mean"], bound["rstd"])
            return lambda _: layer_norm_forward(layer, x, weight, shift, y, kept, size)
    raise AssertionError(layer)


def _slices(bound: _Bound, whole: Tensor) -> list[Tensor]:
    """The channels of each input of a concatenation."""
    return list(whole.split([shape[0] for shape in bound.part.input_shapes], 1))


def _batch_norm(bound: _Bound) -> BatchNormTensors:
    return BatchNormTensors(bound["x"], bound["mean"], bound["rstd"])


def _loss(bound: _Bound) -> Run:
    plan, op = bound.plan, bound.op
    probabilities, labels = bound["y"], bound["labels"]
    turn = slice(op.first_image, op.first_image + plan.batch_size)
    index = labels[turn].unsqueeze(1)
    tiny = torch.finfo(probabilities.dtype).tiny
    answers = bound.part.layer is plan.network.layers[-1]

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

    # What is reported is the last head's: the others only help it to learn.
    return run if answers else _nothing


def _nothing(_: StepContext) -> None:
    return None


def _grad_input(bound: _Bound) -> Run:
    plan, op, layer = bound.plan, bound.op, bound.part.layer
    size, add = op.chunk_images, op.accumulate
    if layer.several:
        return _grad_of_one(bound)
    if isinstance(layer, _NORMS):
        return _grad_norm(bound)
    dx = bound["dx"]
    if isinstance(layer, SoftmaxCrossEntropy):
        images = plan.batch_size if plan.variable_batch else plan.images
        labels = bound["labels"][op.first_image : op.first_image + plan.batch_size]
        share = layer.weight / images
        return _grad_softmax(bound["y"], labels, dx.flatten(1), share, add=add)
    dy = bound["dy"]
    match layer:
        case Convolution():
            weight = bound["weight"]
            match op.algorithm:
                case "winograd":
                    return lambda _: winograd_grad_input(weight, dy, dx, size, add=add)
                case "product":
                    return lambda _: product_grad_input(weight, dy, dx, add=add)
            return lambda _: convolution_grad_input(layer, weight, dy, dx, size, add=add)
        case FullyConnected():
            flat, weight = dx.flatten(1), bound["weight"]
            if add:
                return lambda _: _discard(flat.add_(torch.mm(dy, weight)))
            return lambda _: _discard(torch.mm(dy, weight, out=flat))
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
                return lambda _: _discard(dx.addcmul_(dy, mask))
            return lambda _: _discard(torch.mul(dy, mask, out=dx))
    (kept_role,) = ("y" if kept == "output" else "x" for kept in layer.backward_reads)
    read, backward = bound[kept_role], BACKWARD[type(layer)]
    return lambda _: in_chunks(
        lambda part, out: backward(layer, dy[part], read[part], out), dx, size, add=add
    )


def _grad_norm(bound: _Bound) -> Run:
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
            of, scale = _batch_norm(bound), bound["weight"]
            return lambda _: batch_norm_grad_input(of, scale, dy, sums, dx, size, add=add)
        case LayerNorm():
            x, kept, weight = bound["x"], (bound["mean"], bound["rstd"]), bound["weight"]
            return lambda _: layer_norm_grad_input(x, kept, weight, dy, dx, size, add=add)
    raise AssertionError(layer)


def _grad_of_one(bound: _Bound) -> Run:
    """The gradient of one of a layer's several inputs."""
    size, add, dy = bound.op.chunk_images, bound.op.accumulate, bound["dy"]
    (index,) = (i for i in range(len(bound.part.inputs)) if f"dx{i}" in bound.op.operands)
    dx = bound[f"dx{index}"]
    match bound.part.layer:
        case Add():
            return lambda _: _discard((dx.add_ if add else dx.copy_)(dy))
        case Concat():
            own = _slices(bound, dy)[index]
            return lambda _: _discard((dx.add_ if add else dx.copy_)(own))
        case Multiply():
            other = bound[f"x{1 - index}"]
            return lambda _: factor_grad_input(dy, other, dx, size, add=add)
    raise AssertionError(bound.part.layer)


def _grad_softmax(
    probabilities: Tensor, labels: Tensor, dx: Tensor, share: float, *, add: bool
) -> Run:
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


def _grad_weight(bound: _Bound) -> Run:
    op, layer, size = bound.op, bound.part.layer, bound.op.chunk_images
    dy, x = bound["dy"], bound["x"]
    if isinstance(layer, BatchNorm):
        of, dweight, dbias = _batch_norm(bound), bound["dweight"], bound["dbias"]
        return lambda _: batch_norm_sums(of, dy, dweight, dbias, size)
    if isinstance(layer, LayerNorm):
        kept, dweight, dbias = (bound["mean"], bound["rstd"]), bound["dweight"], bound["dbias"]
        return lambda _: layer_norm_sums(x, kept, dy, dweight, dbias, size)
    if isinstance(layer, Convolution):
        target, bias = bound["dweight"], bound.get("dbias")
        if op.algorithm == "winograd":
            return lambda _: winograd_grad_weight(layer, x, dy, target, bound["dbias"], size)
        return lambda _: convolution_grad_weight(layer, x, dy, target, bias, size)
    flat, dbias = x.flatten(1), bound["dbias"]
    if not op.fused:
        dweight = bound["dweight"]

        def store(_: StepContext) -> None:
            if op.accumulate:
                dweight.addmm_(dy.t(), flat)
                dbias.add_(dy.sum(0))
                return
            torch.mm(dy.t(), flat, out=dweight)
            torch.sum(dy, 0, out=dbias)

        return store
    weight, momentum = bound["weight"], bound["momentum"]

    def run(context: StepContext) -> None:
        h = context.hyperparameters
        rate = h.weight_rate_of(layer.name)
        if op.accumulate:
            # An earlier turn of this step has done the rest.
            momentum.addmm_(dy.t(), flat, alpha=-rate)
            dbias.add_(dy.sum(0))
            return
        linear_grad_weight_into_momentum(
            flat, dy, weight, momentum, momentum=h.momentum, decay=h.weight_decay, rate=rate
        )
        torch.sum(dy, 0, out=dbias)

    return run


def _update(bound: _Bound) -> Run:
    plan, part = bound.plan, bound.part
    optimizer, layer = plan.optimizer, part.layer.name
    # Of a variable batch, each turn's gradient is a mean; their sum is not.
    share = 1 / plan.turns if plan.variable_batch and part.copied else 1
    values = [(p.role, bound[p.name], bound[f"{p.name}.momentum"]) for p in part.trained]
    grads = [bound.get(f"d{p.name}") for p in part.trained]
    squares = [bound.get(f"{p.name}.variance") for p in part.trained]
    updates = bound.get(UPDATES)

    def run(context: StepContext) -> None:
        h = context.hyperparameters
        corrections = None
        if updates is not None:
            corrections = adamw_corrections(updates, h.momentum, h.beta2)
        for (role, value, speed), grad, square in zip(values, grads, squares, strict=True):
            rate, decay = h.of(optimizer, layer, role)
            c = Constants(rate, decay, h.momentum, h.nesterov, h.beta2, h.epsilon, share)
            if optimizer == "sgd-2012":
                sgd_2012(value, speed, grad, c)
                continue
            assert grad is not None
            if corrections is None:
                sgd(value, speed, grad, c)
            else:
                assert square is not None
                adamw(value, speed, square, grad, corrections, c)

    return run

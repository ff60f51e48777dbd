"""From an op of the plan to a function over its device's tensors."""

from __future__ import annotations

import torch

from alexsim.execute.aten.bind_backward import grad_input, grad_weight
from alexsim.execute.aten.bind_forward import forward, forward_of_both
from alexsim.execute.aten.bound import Bound, discard
from alexsim.execute.aten.update import Constants, adamw, adamw_corrections, sgd, sgd_2012
from alexsim.execute.context import Launch, StepContext
from alexsim.execute.memory import Memory
from alexsim.execute.random import dropout_keep
from alexsim.execute.upload import Write, normalise, upload
from alexsim.network.layers import Dropout
from alexsim.network.part import Part
from alexsim.network.update_rules import UPDATES
from alexsim.plan.plan import Op, OpKind, Plan

Tensor = torch.Tensor


def bind(plan: Plan, op: Op, memory: Memory, replica: int = 0) -> Launch:
    """The function that runs ``op`` on its device's buffers, in one of the plan's replicas."""
    if op.kind == OpKind.UPLOAD:
        return bind_upload(op, memory)
    bound = Bound(plan=plan, op=op, part=plan.part(op), memory=memory)
    match op.kind:
        case OpKind.DRAW:
            return _draw(bound, replica)
        case OpKind.FORWARD:
            return forward(bound) if not op.epilogue else forward_of_both(bound)
        case OpKind.LOSS:
            return _loss(bound)
        case OpKind.GRAD_INPUT:
            return grad_input(bound)
        case OpKind.GRAD_WEIGHT:
            return grad_weight(bound)
        case OpKind.UPDATE:
            return _update(bound)
        case OpKind.CLEAR:
            grad = memory.operand(op, "dx")
            return lambda _: discard(grad.zero_())
        case OpKind.ACCUMULATE:
            landed, total = memory.operand(op, "x"), memory.operand(op, "total")
            return lambda _: discard(total.add_(landed))
        case _:
            raise AssertionError(f"{op.id}: no function runs a {op.kind}")


def bind_upload(op: Op, memory: Memory, write: Write = normalise) -> Launch:
    """The function that uploads a minibatch, whose bytes ``write`` normalises."""
    labels = memory.operand(op, "labels") if "labels" in op.operands else None
    return upload(memory.operand(op, "images"), labels, op.first_image, write)


def units_before(plan: Plan, part: Part) -> int:
    """Random values per image that the columns before a dropout's part draw."""
    if part.copied:
        return 0
    layer = part.layer
    assert isinstance(layer, Dropout)
    parts = plan.network.parts_of(layer.name)
    return sum(layer.draws(p.output_shape) for p in parts if p.column < part.column)


def _draw(bound: Bound, replica: int) -> Launch:
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


def _loss(bound: Bound) -> Launch:
    plan, op = bound.plan, bound.op
    probabilities, labels = bound["y"], bound["labels"]
    turn = slice(op.first_image, op.first_image + plan.batch_size)
    index = labels[turn].unsqueeze(1)
    tiny = torch.finfo(probabilities.dtype).tiny
    answers = bound.part.layer is plan.network.layers[-1]

    def run(context: StepContext) -> None:
        correct = probabilities.gather(1, index)
        losses = correct.clamp_min(tiny).log_().neg_().squeeze_(1)
        above = (probabilities > correct).sum(1)
        level = (probabilities == correct).sum(1).clamp_min_(1)
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

    # Only the last head's loss is reported: the others only help it to learn.
    return run if answers else _nothing


def _nothing(_: StepContext) -> None:
    return None


def _update(bound: Bound) -> Launch:
    plan, part = bound.plan, bound.part
    optimizer, layer = plan.spec.optimizer, part.layer.name
    # Of a variable batch, each turn's gradient is a mean; their sum is not.
    share = 1 / plan.turns if plan.spec.variable_batch and part.copied else 1
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
            rate, decay = h.rate_and_decay(optimizer, layer, role)
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

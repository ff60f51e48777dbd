"""From an op of the plan to a launch of Triton's kernels; what has none runs on ATen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from alexsim.execute.aten.chunks import rows
from alexsim.execute.bind import bind as bind_aten
from alexsim.execute.bind import units_before
from alexsim.execute.context import Hyperparameters, Launch, StepContext
from alexsim.execute.memory import Memory
from alexsim.execute.random import key_of
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Role,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    pair,
)
from alexsim.network.part import Part
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim_kernels import (
    convolution,
    convolution_weight,
    dropout,
    linear,
    loss,
    norm,
    norm_pool,
    pool,
    update,
)
from alexsim_kernels.common import Precision

if TYPE_CHECKING:
    from alexsim.execute.context import Choices

Tensor = torch.Tensor


class Constants:
    """What changes from step to step, where the kernels read it: on the device.

    A captured graph is replayed with other rates and step numbers without being captured again.
    """

    def __init__(self, place: torch.device) -> None:
        self._place = place
        self._weights: dict[str, Tensor] = {}
        self.bias = torch.zeros(3, device=place)
        """Momentum, decay, rate."""
        self.step = torch.zeros(1, dtype=torch.int64, device=place)
        self._set: Hyperparameters | None = None

    def weight(self, layer: str) -> Tensor:
        """Momentum, decay, rate of a layer's weights."""
        return self._weights.setdefault(layer, torch.zeros(3, device=self._place))

    def set(self, hyperparameters: Hyperparameters, step: int) -> None:
        """Put a step's numbers there; only what changed, and without waiting for the card."""
        h = hyperparameters
        if h != self._set:
            for layer, constants in self._weights.items():
                rate, decay = h.rate_and_decay("sgd-2012", layer, Role.WEIGHT)
                _fill(constants, h.momentum, decay, rate)
            rate, decay = h.rate_and_decay("sgd-2012", "", Role.BIAS)
            _fill(self.bias, h.momentum, decay, rate)
            self._set = h
        self.step.fill_(step)


def _fill(target: Tensor, *values: float) -> None:
    for index, value in enumerate(values):
        target[index].fill_(value)


class Binder:
    """Binds the ops of one device."""

    def __init__(self, plan: Plan, memory: Memory, constants: Constants, choices: Choices) -> None:
        self._plan, self._memory, self._constants = plan, memory, constants
        self._precision: Precision = choices.precision
        self._seed, self._replica = choices.seed, choices.replica

    def __call__(self, op: Op) -> Launch:
        """The function that runs ``op``."""
        if op.backend != "triton":
            return bind_aten(self._plan, op, self._memory, self._replica)
        if op.kind == OpKind.LOSS:
            return self._loss(op)
        bind = {
            OpKind.DRAW: self._draw,
            OpKind.FORWARD: self._forward,
            OpKind.GRAD_INPUT: self._grad_input,
            OpKind.GRAD_WEIGHT: self._grad_weight,
            OpKind.UPDATE: self._update,
        }[op.kind]
        run = bind(op, self._plan.part(op))
        return lambda _: run()

    def _operands(self, op: Op, *roles: str) -> list[Tensor]:
        return [self._memory.operand(op, role) for role in roles]

    def _draw(self, op: Op, part: Part) -> Callable[[], None]:
        mask = self._memory.operand(op, "mask")
        layer = part.layer
        assert isinstance(layer, Dropout)
        before = units_before(self._plan, part)
        key = key_of(self._seed, "dropout", layer.name)
        step = self._constants.step
        flat = rows(mask)
        return lambda: dropout.keep(flat, step, key, first_unit=before, rate=layer.rate)

    def _forward(self, op: Op, part: Part) -> Callable[[], None]:
        layer = part.layer
        x, y = self._operands(op, "x", "y")
        second = self._plan.epilogue(op)
        if second and isinstance(second.layer, MaxPool):
            return self._norm_pool(op, layer, second.layer)
        match layer:
            case Convolution():
                weight, bias = self._operands(op, "weight", "bias")
                options = self._window(layer) | {"relu": second is not None}
                return lambda: convolution.forward(x, weight, bias, y, **options)
            case FullyConnected():
                weight, bias = self._operands(op, "weight", "bias")
                flat, relu = rows(x), second is not None
                return lambda: linear.forward(
                    flat, weight, bias, y, relu=relu, precision=self._precision
                )
            case MaxPool(size=int(size), stride=int(stride)):
                return lambda: pool.forward(x, y, size=size, stride=stride)
            case LocalResponseNorm() | SpatialResponseNorm():
                d = self._memory.operand(op, "norm")
                across = isinstance(layer, LocalResponseNorm)
                run = norm.across_channels_forward if across else norm.over_pixels_forward
                size, k, alpha, beta = layer.size, layer.k, layer.alpha, layer.beta
                return lambda: run(x, y, d, size=size, k=k, alpha=alpha, beta=beta)
            case SoftmaxCrossEntropy():
                flat = rows(x)
                return lambda: loss.softmax(flat, y)
        raise AssertionError(layer)

    def _norm_pool(self, op: Op, layer: Layer, last: MaxPool) -> Callable[[], None]:
        """A response norm across channels and its max-pool, forward or backward."""
        assert isinstance(layer, LocalResponseNorm)
        x, bits = self._operands(op, "x", "winners")
        options: dict[str, Any] = {
            "size": layer.size,
            "k": layer.k,
            "alpha": layer.alpha,
            "beta": layer.beta,
            "window": pair(last.size)[0],
            "stride": pair(last.stride)[0],
        }
        if op.kind == OpKind.GRAD_INPUT:
            dy, dx = self._operands(op, "dy", "dx")
            return lambda: norm_pool.backward(x, bits, dy, dx, **options)
        y, ties = self._memory.operand(op, "y"), last.ties
        return lambda: norm_pool.forward(x, y, bits, ties=ties, **options)

    def _masked(self, op: Op) -> dict[str, Any]:
        """Where a ReLU is done too, its output says which gradients count."""
        return {"relu_output": self._memory.operand(op, "y")} if op.epilogue else {}

    def _window(self, layer: Convolution) -> dict[str, Any]:
        return {
            "stride": layer.stride,
            "padding": pair(layer.padding),
            "groups": layer.groups,
            "precision": self._precision,
        }

    def _loss(self, op: Op) -> Launch:
        probabilities, labels = self._operands(op, "y", "labels")
        losses, top1, top5 = (torch.empty(len(labels), device=self._memory.place) for _ in range(3))

        def run(context: StepContext) -> None:
            loss.cross_entropy(probabilities, labels, losses, top1, top5)
            context.losses, context.top1, context.top5 = losses, top1, top5

        # Only the last head's loss is reported: the others only help it to learn.
        return run if op.layer == self._plan.network.layers[-1].name else lambda _: None

    def _grad_input(self, op: Op, part: Part) -> Callable[[], None]:
        layer = part.layer
        dx = self._memory.operand(op, "dx")
        if isinstance(layer, SoftmaxCrossEntropy):
            flat, (y, labels) = rows(dx), self._operands(op, "y", "labels")
            return lambda: loss.backward(y, labels, flat)
        dy = self._memory.operand(op, "dy")
        second = self._plan.epilogue(op)
        if second and isinstance(second.layer, MaxPool):
            return self._norm_pool(op, layer, second.layer)
        match layer:
            case Convolution():
                weight = self._memory.operand(op, "weight")
                options = self._window(layer) | self._masked(op) | {"accumulate": op.accumulate}
                return lambda: convolution.grad_input(dy, weight, dx, **options)
            case FullyConnected():
                flat, weight = rows(dx), self._memory.operand(op, "weight")
                options = self._masked(op) | {"accumulate": op.accumulate}
                return lambda: linear.grad_input(
                    dy, weight, flat, precision=self._precision, **options
                )
            case MaxPool(size=int(size), stride=int(stride), ties=ties):
                x, y = self._operands(op, "x", "y")
                return lambda: pool.backward(x, y, dy, dx, size=size, stride=stride, ties=ties)
            case LocalResponseNorm() | SpatialResponseNorm():
                x, d = self._operands(op, "x", "norm")
                size, alpha, beta = layer.size, layer.alpha, layer.beta
                if isinstance(layer, SpatialResponseNorm):
                    return lambda: norm.over_pixels_backward(
                        x, d, dy, dx, size=size, alpha=alpha, beta=beta
                    )
                k = layer.k
                return lambda: norm.across_channels_backward(
                    x, d, dy, dx, size=size, k=k, alpha=alpha, beta=beta
                )
        raise AssertionError(layer)

    def _grad_weight(self, op: Op, part: Part) -> Callable[[], None]:
        layer = part.layer
        dy, x, dbias = self._operands(op, "dy", "x", "dbias")
        masked = self._masked(op)
        if isinstance(layer, Convolution):
            options, target = self._window(layer) | masked, self._memory.operand(op, "dweight")
            return lambda: convolution_weight.grad_weight(x, dy, target, dbias, **options)
        flat, target = rows(x), self._memory.operand(op, "momentum" if op.fused else "dweight")
        momentum_of = None
        if op.fused:
            weight = self._memory.operand(op, "weight")
            momentum_of = (weight, self._constants.weight(layer.name))
        return lambda: linear.grad_weight(
            flat, dy, target, dbias, momentum_of=momentum_of, precision=self._precision, **masked
        )

    def _update(self, op: Op, part: Part) -> Callable[[], None]:
        weight_constants = self._constants.weight(part.layer.name)
        bias_constants = self._constants.bias
        weight, speed, bias, bias_speed, dbias = self._operands(
            op, "weight", "weight.momentum", "bias", "bias.momentum", "dbias"
        )
        dweight = None if op.fused else self._memory.operand(op, "dweight")

        def run() -> None:
            update.sgd(weight, speed, dweight, weight_constants)
            update.sgd(bias, bias_speed, dbias, bias_constants)

        return run

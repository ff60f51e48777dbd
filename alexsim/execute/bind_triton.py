"""From an op of the plan to a launch of Triton's kernels; what has none runs on ATen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from alexsim.execute.bind import Hyperparameters, Run, StepContext, units_of
from alexsim.execute.bind import bind as bind_aten
from alexsim.execute.memory import Memory
from alexsim.execute.random import key_of
from alexsim.network.layers import (
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Part
from alexsim.plan.placement import parameter
from alexsim.plan.records import Op, OpKind, Plan
from alexsim_kernels import convolution, dropout, linear, loss, norm, pool, update
from alexsim_kernels.common import Precision

if TYPE_CHECKING:
    from alexsim.execute.runner import Choices

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
            for layer, own in self._weights.items():
                _fill(own, h.momentum, h.weight_decay, h.weight_rate_of(layer))
            _fill(self.bias, h.momentum, 0.0, h.bias_rate)
            self._set = h
        self.step.fill_(step)


def _fill(own: Tensor, *values: float) -> None:
    for index, value in enumerate(values):
        own[index].fill_(value)


class Binder:
    """Binds the ops of one device."""

    def __init__(self, plan: Plan, memory: Memory, constants: Constants, choices: Choices) -> None:
        self._plan, self._memory, self._constants = plan, memory, constants
        self._precision: Precision = choices.precision
        self._seed, self._replica = choices.seed, choices.replica

    def __call__(self, op: Op) -> Run:
        """The function that runs ``op``."""
        run = None
        if op.kind != OpKind.UPLOAD:
            part = self._plan.part(op)
            match op.kind:
                case OpKind.DRAW:
                    run = self._draw(op, part)
                case OpKind.FORWARD:
                    run = self._forward(op, part)
                case OpKind.LOSS:
                    return self._loss(op)
                case OpKind.GRAD_INPUT:
                    run = self._grad_input(op, part)
                case OpKind.GRAD_WEIGHT:
                    run = self._grad_weight(op, part)
                case OpKind.UPDATE:
                    run = self._update(op, part)
        if run is None:
            return bind_aten(self._plan, op, self._memory, self._replica)
        return lambda _: run()

    def _buffers(self, names: tuple[str, ...]) -> list[Tensor]:
        return [self._memory.buffer(name) for name in names]

    def _draw(self, op: Op, part: Part) -> Callable[[], None] | None:
        if self._replica:
            return None  # the kernel counts images from the first
        mask = self._memory.buffer(op.writes[0])
        layer = part.layer
        assert isinstance(layer, Dropout)
        parts = self._plan.network.parts_of(layer.name)
        before = sum(units_of(p) for p in parts if p.column < part.column)
        key = key_of(self._seed, "dropout", layer.name)
        step = self._constants.step
        flat = mask.flatten(1)
        return lambda: dropout.keep(flat, step, key, first_unit=before, rate=layer.rate)

    def _forward(self, op: Op, part: Part) -> Callable[[], None] | None:
        layer = part.layer
        x = self._memory.block_of(op.reads[: part.joined])
        y = self._memory.buffer(op.writes[0])
        match layer:
            case Convolution():
                weight, bias = self._buffers(op.reads[-2:])
                options = self._window(layer)
                return lambda: convolution.forward(x, weight, bias, y, **options)
            case FullyConnected():
                weight, bias = self._buffers(op.reads[-2:])
                flat = x.flatten(1)
                return lambda: linear.forward(flat, weight, bias, y, precision=self._precision)
            case MaxPool(size=size, stride=stride):
                return lambda: pool.forward(x, y, size=size, stride=stride)
            case LocalResponseNorm() | SpatialResponseNorm():
                d = self._memory.buffer(op.writes[1])
                across = isinstance(layer, LocalResponseNorm)
                run = norm.across_channels_forward if across else norm.over_pixels_forward
                size, k, alpha, beta = layer.size, layer.k, layer.alpha, layer.beta
                return lambda: run(x, y, d, size=size, k=k, alpha=alpha, beta=beta)
            case SoftmaxCrossEntropy():
                flat = x.flatten(1)
                return lambda: loss.softmax(flat, y)
        return None

    def _window(self, layer: Convolution) -> dict[str, Any]:
        return {
            "stride": layer.stride,
            "padding": (layer.padding, layer.padding),
            "groups": layer.groups,
            "precision": self._precision,
        }

    def _loss(self, op: Op) -> Run:
        probabilities, labels = self._buffers(op.reads)
        losses, top1, top5 = (torch.empty(len(labels), device=self._memory.place) for _ in range(3))

        def run(context: StepContext) -> None:
            loss.cross_entropy(probabilities, labels, losses, top1, top5)
            context.losses, context.top1, context.top5 = losses, top1, top5

        return run

    def _grad_input(self, op: Op, part: Part) -> Callable[[], None] | None:
        layer = part.layer
        dx = self._memory.block_of(op.writes)
        first, *others = self._buffers(op.reads)
        match layer:
            case SoftmaxCrossEntropy():
                if self._plan.replicas > 1:
                    return None  # the kernel's mean is that of its own images
                flat = dx.flatten(1)
                return lambda: loss.backward(first, others[0], flat)
            case Convolution():
                options = self._window(layer) | {"accumulate": op.accumulate}
                return lambda: convolution.grad_input(first, others[0], dx, **options)
            case FullyConnected():
                flat = dx.flatten(1)
                return lambda: linear.grad_input(
                    first, others[0], flat, accumulate=op.accumulate, precision=self._precision
                )
            case MaxPool(size=size, stride=stride, ties=ties):
                y, x = others[:2]
                return lambda: pool.backward(x, y, first, dx, size=size, stride=stride, ties=ties)
            case LocalResponseNorm(size=size, k=k, alpha=alpha, beta=beta):
                x, d = others[:2]
                return lambda: norm.across_channels_backward(
                    x, d, first, dx, size=size, k=k, alpha=alpha, beta=beta
                )
            case SpatialResponseNorm(size=size, alpha=alpha, beta=beta):
                x, d = others[:2]
                return lambda: norm.over_pixels_backward(
                    x, d, first, dx, size=size, alpha=alpha, beta=beta
                )
        return None

    def _grad_weight(self, op: Op, part: Part) -> Callable[[], None] | None:
        layer = part.layer
        dy = self._memory.buffer(op.reads[0])
        x = self._memory.block_of(op.reads[1 : 1 + part.joined])
        target, dbias = self._buffers(op.writes)
        if isinstance(layer, Convolution):
            options = self._window(layer)
            return lambda: convolution.grad_weight(x, dy, target, dbias, **options)
        if not op.fused:
            return None
        weight, flat = self._memory.buffer(op.reads[-2]), x.flatten(1)
        momentum_of = (weight, self._constants.weight(layer.name))
        return lambda: linear.grad_weight(
            flat, dy, target, dbias, momentum_of=momentum_of, precision=self._precision
        )

    def _update(self, op: Op, part: Part) -> Callable[[], None]:
        device = int(op.device.removeprefix("gpu"))

        def own(name: str) -> Tensor:
            return self._memory.buffer(parameter(device, part, name))

        weight, speed = own("weight"), own("weight.momentum")
        bias, bias_speed, bias_grad = own("bias"), own("bias.momentum"), own("bias.grad")
        grad = None if op.fused else own("weight.grad")
        of_weight, of_bias = self._constants.weight(part.layer.name), self._constants.bias

        def run() -> None:
            update.sgd(weight, speed, grad, of_weight)
            update.sgd(bias, bias_speed, bias_grad, of_bias)

        return run

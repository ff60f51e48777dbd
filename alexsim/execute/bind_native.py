"""From an op of the plan to a call of our kernels for CPUs; what has none runs on ATen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch

from alexsim.errors import PlanError
from alexsim.execute.aten.bound import Bound
from alexsim.execute.aten.chunks import rows
from alexsim.execute.bind import bind as bind_aten
from alexsim.execute.bind import bind_upload
from alexsim.execute.context import Launch, StepContext
from alexsim.execute.memory import Memory
from alexsim.execute.upload import Operands
from alexsim.network.layers import (
    AdaptiveAveragePool,
    AveragePool,
    BatchNorm,
    Convolution,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    SpatialResponseNorm,
    pair,
)
from alexsim.plan.backends.native import asked_of, kernel_bytes, needed_bytes, windows_of
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim_kernels.cpu import batch_norm, convolution, linear, norm, pool, relu, upload
from alexsim_kernels.cpu.algorithm import algorithm_of
from alexsim_kernels.cpu.build import library
from alexsim_kernels.cpu.tensors import new_scratch, scalar_of

Tensor = torch.Tensor


def shared_scratch(plan: Plan, memories: Iterable[Memory]) -> Tensor:
    """Scratch of the devices of one process: they take turns op by op, and keep nothing in it."""
    needed = (
        needed_bytes(plan, op, memory.dtype.itemsize)
        for memory in memories
        for op in memory.device.ops
        if op.backend == "native"
    )
    return new_scratch(max(needed, default=0))


class Binder:
    """Binds the ops of one device.

    Args:
        plan: that they are of.
        memory: of the device.
        replica: of the plan.
        scratch: of ``shared_scratch``.

    Raises:
        PlanError: torch has more threads than the plan has scratch for.
        BuildError: the kernels cannot be built here.
    """

    def __init__(self, plan: Plan, memory: Memory, replica: int, scratch: Tensor) -> None:
        self._plan, self._memory, self._replica = plan, memory, replica
        self._scratch = scratch
        threads = torch.get_num_threads()
        if threads > plan.spec.threads:
            raise PlanError(
                f"the plan has scratch for {plan.spec.threads} threads of backend native, torch has"
                f" {threads}"
            )
        library(scalar_of(memory.dtype))
        item = memory.dtype.itemsize
        ops = [op for op in memory.device.ops if op.backend == "native"]
        self._kernel_bytes = {op.id: kernel_bytes(asked_of(plan, op), item) for op in ops}
        for op in ops:
            copied = sum(_bytes(memory.operand(op, role)) for role in self._copied(op))
            assert self._kernel_bytes[op.id] + copied <= needed_bytes(plan, op, item), op.id

    def __call__(self, op: Op) -> Launch:
        """The function that runs ``op``."""
        if op.kind == OpKind.UPLOAD and _channels_last(self._memory.operand(op, "images")):
            return bind_upload(op, self._memory, _normalise)
        if op.backend != "native":
            return bind_aten(self._plan, op, self._memory, self._replica)
        bound = Bound(plan=self._plan, op=op, part=self._plan.part(op), memory=self._memory)
        if isinstance(bound.part.layer, FullyConnected):
            return self._fully_connected(bound)
        copies = self._copies(op)
        bound = replace(bound, instead=copies)
        if isinstance(bound.part.layer, Convolution):
            run = self._convolution(bound)
        elif isinstance(bound.part.layer, BatchNorm):
            run = self._batch_norm(bound)
        elif op.kind == OpKind.FORWARD:
            run = self._forward(bound)
        else:
            run = self._grad_input(bound)
        target = "y" if op.kind == OpKind.FORWARD else "dx"
        pairs = {role: (copy, self._memory.operand(op, role)) for role, copy in copies.items()}
        read = [pair for role, pair in pairs.items() if role != target or op.accumulate]

        def launch(context: StepContext) -> None:
            for copy, original in read:
                copy.copy_(original)
            run(context)
            if target in pairs:
                copy, original = pairs[target]
                original.copy_(copy)

        return launch

    def _copied(self, op: Op) -> list[str]:
        """Roles of images that lie channels first, which no kernel reads or writes."""
        if isinstance(self._plan.part(op).layer, FullyConnected):
            return []
        return [
            role
            for role in ("x", "y", "dx", "dy")
            if role in op.operands and not _channels_last(self._memory.operand(op, role))
        ]

    def _copies(self, op: Op) -> dict[str, Tensor]:
        """Room for copies of these behind the kernel's scratch, channels last."""
        start, copies = self._kernel_bytes[op.id], {}
        for role in self._copied(op):
            like = self._memory.operand(op, role)
            room = self._scratch[start : start + _bytes(like)].view(like.dtype)
            images, channels, height, width = like.shape
            copies[role] = room.view(images, height, width, channels).permute(0, 3, 1, 2)
            start += _bytes(like)
        return copies

    def _batch_norm(self, bound: Bound) -> Launch:
        layer, op, scratch = bound.part.layer, bound.op, self._scratch
        assert isinstance(layer, BatchNorm)
        x, weight = bound["x"], bound.get("weight")
        statistics = batch_norm.Statistics(bound["mean"], bound["rstd"])
        if op.kind == OpKind.GRAD_WEIGHT:
            dy, dweight, dbias = bound["dy"], bound["dweight"], bound["dbias"]
            return lambda _: batch_norm.sums(x, dy, statistics, dweight, dbias, scratch=scratch)
        assert weight is not None
        if op.kind == OpKind.GRAD_INPUT:
            dy, dx, add = bound["dy"], bound["dx"], op.accumulate
            sums = (bound["dweight"], bound["dbias"]) if "dweight" in op.operands else None
            return lambda _: batch_norm.grad_input(
                x, dy, weight, statistics, sums, dx, add=add, scratch=scratch
            )
        bias, y = bound["bias"], bound["y"]
        running = batch_norm.Running(bound["running_mean"], bound["running_var"], layer.momentum)
        return lambda context: batch_norm.forward(
            x, weight, bias, y, statistics, running, epsilon=layer.epsilon,
            training=context.training, scratch=scratch,
        )  # fmt: skip

    def _convolution(self, bound: Bound) -> Launch:
        layer, op = bound.part.layer, bound.op
        assert isinstance(layer, Convolution)
        options: dict[str, Any] = {
            "stride": pair(layer.stride),
            "padding": pair(layer.padding),
            "dilation": pair(layer.dilation),
            "groups": layer.groups,
            "algorithm": algorithm_of(op.algorithm),
            "scratch": self._scratch,
        }
        if op.kind == OpKind.FORWARD:
            x, weight, bias, y = bound["x"], bound["weight"], bound.get("bias"), bound["y"]
            options["relu"] = bool(op.epilogue)
            return lambda _: convolution.forward(x, weight, bias, y, **options)
        dy, add = bound["dy"], op.accumulate
        if op.kind == OpKind.GRAD_INPUT:
            weight, dx = bound["weight"], bound["dx"]
            return lambda _: convolution.grad_input(dy, weight, dx, add=add, **options)
        x, dweight, dbias = bound["x"], bound["dweight"], bound.get("dbias")
        return lambda _: convolution.grad_weight(x, dy, dweight, dbias, add=add, **options)

    def _fully_connected(self, bound: Bound) -> Launch:
        op = bound.op
        how: dict[str, Any] = {"precision": op.algorithm or "fp32", "scratch": self._scratch}
        if op.kind == OpKind.GRAD_INPUT:
            dy, weight, dx, add = bound["dy"], bound["weight"], rows(bound["dx"]), op.accumulate
            return lambda _: linear.grad_input(dy, weight, dx, add=add, **how)
        x = rows(bound["x"])
        if op.kind == OpKind.FORWARD:
            weight, bias, y = bound["weight"], bound.get("bias"), bound["y"]
            how["relu"] = bool(op.epilogue)
            return lambda _: linear.forward(x, weight, bias, y, **how)
        dy, dbias = bound["dy"], bound.get("dbias")
        if not op.fused:
            dweight = bound["dweight"]
            return lambda _: linear.grad_weight(x, dy, dweight, dbias, **how)
        weight, momentum, name = bound["weight"], bound["momentum"], bound.part.layer.name

        def run(context: StepContext) -> None:
            h = context.hyperparameters
            update = linear.Update(h.momentum, h.weight_decay, h.weight_rate_of(name))
            linear.update_weight(x, dy, weight, momentum, dbias, update, **how)

        return run

    def _forward(self, bound: Bound) -> Launch:
        layer, x, y = bound.part.layer, bound["x"], bound["y"]
        match layer:
            case LocalResponseNorm() | SpatialResponseNorm():
                d, how = bound["norm"], _norm(layer, self._scratch)
                return lambda _: norm.forward(x, y, d, **how)
            case ReLU():
                return lambda _: relu.forward(x, y)
            case MaxPool():
                windows = windows_of(bound.part)
                return lambda _: pool.max_forward(x, y, windows)
            case AveragePool() | AdaptiveAveragePool():
                windows = windows_of(bound.part)
                return lambda _: pool.average_forward(x, y, windows)
        raise AssertionError(layer)

    def _grad_input(self, bound: Bound) -> Launch:
        layer, dy, dx = bound.part.layer, bound["dy"], bound["dx"]
        scratch, add = self._scratch, bound.op.accumulate
        match layer:
            case LocalResponseNorm() | SpatialResponseNorm():
                x, d, how = bound["x"], bound["norm"], _norm(layer, scratch)
                return lambda _: norm.backward(x, d, dy, dx, **how)
            case ReLU():
                y = bound["y"]
                return lambda _: relu.backward(y, dy, dx)
            case MaxPool(ties=ties):
                x, y, windows = bound["x"], bound["y"], windows_of(bound.part)
                return lambda _: pool.max_backward(
                    x, y, dy, dx, windows, ties=ties, add=add, scratch=scratch
                )
            case AveragePool() | AdaptiveAveragePool():
                windows = windows_of(bound.part)
                return lambda _: pool.average_backward(dy, dx, windows, add=add, scratch=scratch)
        raise AssertionError(layer)


def _norm(layer: LocalResponseNorm | SpatialResponseNorm, scratch: Tensor) -> dict[str, Any]:
    return {
        "constants": norm.Constants(layer.size, layer.k, layer.alpha, layer.beta),
        "window": "across" if isinstance(layer, LocalResponseNorm) else "over",
        "scratch": scratch,
    }


def _normalise(pixels: Tensor, images: Tensor, made: Operands) -> None:
    """As ``alexsim.execute.upload.normalise``, to the bit."""
    upload.upload(pixels, images, *made)


def _channels_last(x: Tensor) -> bool:
    return x.shape[1] == 1 or x.stride(1) == 1


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()

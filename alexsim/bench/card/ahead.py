"""What steps will launch, on tensors without memory: compiled ahead, and predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch

from alexsim.editions.load import load_network
from alexsim.execute.choices import Precision
from alexsim.execute.context import STILL, StepContext
from alexsim.execute.executor import Executor
from alexsim.network.network import Network
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim.plan.planner import plan

PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32x3", "tf32", "fp32")
SIZES = (128, 1024)
FUSED = {"step": True, "step, not fused": False}
"""Whether a kernel does two layers where there is one that can, by the names of rows."""
_BETWEEN = (
    OpKind.UPLOAD, OpKind.POST, OpKind.WAIT, OpKind.BARRIER, OpKind.ALL_REDUCE, OpKind.ALL_GATHER,
    OpKind.REDUCE_SCATTER,
)  # fmt: skip
"""Kinds of ops that launch no kernel."""


def step_plan(size: int, *, fused: bool, network: Network | None = None) -> Plan:
    """Of the paper's network for one GPU, or another, as the bench of a card trains it."""
    return plan(
        network or load_network("alexnet-1gpu"), batch_size=size, policy="reuse", backend="triton",
        fusion="kernels" if fused else "none",
    )  # fmt: skip


def step_launches(
    planned: Plan, precision: Precision = "fp32"
) -> Iterator[tuple[Op, Callable[[], object]]]:
    """Ops of a plan that launch kernels, each with what launches it on ``meta`` tensors."""
    executor = Executor(planned, precision=precision, place=torch.device("meta"))
    context = StepContext(
        images=torch.empty(planned.batch_size, *planned.network.input_shape, device="meta"),
        labels=torch.empty(planned.batch_size, dtype=torch.int64, device="meta"), step=0, seed=0,
        training=True, hyperparameters=STILL, uploaded=True,
    )  # fmt: skip
    for runner in executor.runners:
        for op in runner.device.ops:
            if op.kind not in _BETWEEN:
                yield op, partial(runner.launch_of(op), context)


def launches() -> Iterator[Callable[[], object]]:
    """What the parts ``steps`` and ``two-gpus`` launch, in their order."""
    for fused in FUSED.values():
        for size, precision in product(SIZES, PRECISIONS):
            for _, launch in step_launches(step_plan(size, fused=fused), precision):
                yield launch
        if fused:
            made = plan(load_network("alexnet-2012"), backend="triton", transport="host")
            for _, launch in step_launches(made):
                yield launch

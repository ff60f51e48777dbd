"""An op of the plan with its tensors by role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from alexsim.execute.aten.batch_norm import BatchNormTensors
from alexsim.execute.memory import Memory
from alexsim.network.layers import (
    BatchNorm,
    LayerNorm,
    LocalResponseNorm,
    SpatialResponseNorm,
)
from alexsim.network.part import Part
from alexsim.plan.plan import Op, Plan

Tensor = torch.Tensor

NORMS = (LocalResponseNorm, SpatialResponseNorm, BatchNorm, LayerNorm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """An op, and its tensors by role."""

    plan: Plan
    op: Op
    part: Part
    memory: Memory
    instead: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that stand for those of the plan."""

    def __getitem__(self, role: str) -> Tensor:
        if role in self.instead:
            return self.instead[role]
        return self.memory.operand(self.op, role)

    def get(self, role: str) -> Tensor | None:
        """An operand, or None if the op does not have it."""
        return self[role] if role in self.op.operands else None

    def numbered(self, role: str) -> list[Tensor]:
        """``x0``, ``x1`` ... of a layer that reads several outputs."""
        return [
            self[name]
            for index in range(len(self.part.inputs))
            if (name := f"{role}{index}") in self.op.operands
        ]


def discard(_: object) -> None:
    return None


def per_pixel(factors: Tensor, like: Tensor) -> Tensor:
    """Factors of channels, ``[N, C]`` or ``[N, C, 1, 1]``, or of all values, to multiply with."""
    return factors.view(*factors.shape, *[1] * (like.ndim - factors.ndim))


def slices(bound: Bound, whole: Tensor) -> list[Tensor]:
    """The channels of each input of a concatenation."""
    return list(whole.split([shape[0] for shape in bound.part.input_shapes], 1))


def batch_norm_tensors(bound: Bound) -> BatchNormTensors:
    return BatchNormTensors(bound["x"], bound["mean"], bound["rstd"])

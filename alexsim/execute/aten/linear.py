"""Fully connected weight gradients, straight into the momentum."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def linear_grad_weight_into_momentum(
    x: Tensor,
    dy: Tensor,
    weight: Tensor,
    inc: Tensor,
    *,
    momentum: float,
    decay: float,
    rate: float,
) -> None:
    """``inc = momentum inc - decay rate w - rate dy^T x``: the gradient is never stored."""
    inc.mul_(momentum).add_(weight, alpha=-decay * rate)
    inc.addmm_(dy.t(), x, alpha=-rate)

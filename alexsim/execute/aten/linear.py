"""Fully connected weight gradients, straight into the momentum."""

from __future__ import annotations

import torch

Tensor = torch.Tensor

_ROWS = 128
"""Rows of a fully connected weight updated at a time, so that its momentum is still cached."""


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
    for start in range(0, weight.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        inc[rows].mul_(momentum).add_(weight[rows], alpha=-decay * rate)
        inc[rows].addmm_(dy[:, rows].t(), x, alpha=-rate)

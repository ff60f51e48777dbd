"""The update rule of 2012 in one pass over weights and momentum.

``v <- momentum v - rate (decay w + g)``, ``w <- w + v`` (paper, section 5). The three constants lie
on the device, so that a captured graph can be replayed with others.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import Tensor, block_of


@triton.jit
def _sgd(
    weights, momenta, gradients, constants, count, HAS_GRADIENT: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    weight = tl.load(weights + index, mask=inside, other=0.0)
    velocity = tl.load(momenta + index, mask=inside, other=0.0)
    if HAS_GRADIENT:
        momentum, decay, rate = tl.load(constants), tl.load(constants + 1), tl.load(constants + 2)
        gradient = tl.load(gradients + index, mask=inside, other=0.0)
        velocity = momentum * velocity - rate * (decay * weight + gradient)
        tl.store(momenta + index, velocity, mask=inside)
    tl.store(weights + index, weight + velocity, mask=inside)


def sgd(weight: Tensor, momentum: Tensor, gradient: Tensor | None, constants: Tensor) -> None:
    """Update weights and momentum in place.

    Args:
        weight: any shape, dense.
        momentum: the same shape, lying alike.
        gradient: likewise; None if it is in the momentum already.
        constants: ``[3]``, float32, on the device: momentum, decay, rate.

    Raises:
        ValueError: the tensors do not lie alike.
    """
    others = [momentum] if gradient is None else [momentum, gradient]
    if any(t.shape != weight.shape or t.stride() != weight.stride() for t in others):
        raise ValueError("weight, momentum and gradient must have one shape and lie alike")
    if not torch_dense(weight):
        raise ValueError(f"the weights have gaps in memory: strides {list(weight.stride())}")
    block = block_of(weight.numel())
    _sgd[(triton.cdiv(weight.numel(), block),)](
        weight, momentum, momentum if gradient is None else gradient, constants, weight.numel(),
        HAS_GRADIENT=gradient is not None, BLOCK=block,
    )  # fmt: skip


def torch_dense(x: Tensor) -> bool:
    """Whether a tensor's elements fill one run of memory, in whatever order."""
    span = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return span == x.numel()

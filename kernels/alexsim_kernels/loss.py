"""Softmax, cross-entropy and the errors of the best and the five best guesses; one row a program.

``p = softmax(x)``, ``loss = -log p[label]``, ``dx = (p - onehot(label)) / N``: the gradient of the
mean. Among equal probabilities each is as likely to be named first, so ties share the credit: with
``above`` larger and ``equal`` equal probabilities (the label's among them), the error of the best
``b`` guesses is ``1 - clamp((b - above) / equal, 0, 1)``. Where a probability is NaN or infinite,
the loss is NaN and both errors are 1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from alexsim_kernels.common import Tensor, power_of_two


@triton.jit
def _softmax(x, p, classes, x_row, p_row, BLOCK: tl.constexpr):
    image = tl.program_id(0)
    class_ = tl.arange(0, BLOCK)
    value = tl.load(x + image * x_row + class_, mask=class_ < classes, other=float("-inf"))
    value = value.to(tl.float32)
    shifted = tl.exp(value - tl.max(value, axis=0))
    tl.store(p + image * p_row + class_, shifted / tl.sum(shifted, axis=0), mask=class_ < classes)


@triton.jit
def _cross_entropy(p, labels, losses, top1, top5, classes, p_row, BLOCK: tl.constexpr):
    image = tl.program_id(0)
    class_ = tl.arange(0, BLOCK)
    inside = class_ < classes
    value = tl.load(p + image * p_row + class_, mask=inside, other=-1.0).to(tl.float32)
    labelled = tl.load(p + image * p_row + tl.load(labels + image)).to(tl.float32)
    smallest: tl.constexpr = 1.1754943508222875e-38
    loss = -tl.log(tl.maximum(labelled, smallest))
    above = tl.sum((inside & (value > labelled)).to(tl.float32), axis=0)
    equal = tl.maximum(tl.sum((inside & (value == labelled)).to(tl.float32), axis=0), 1.0)
    # Comparisons with NaN are all false: where a probability is none, no guess is right.
    finite = tl.sum((inside & ~(tl.abs(value) < float("inf"))).to(tl.int32), axis=0) == 0
    credit1 = tl.minimum(tl.maximum((1 - above) / equal, 0.0), 1.0)
    credit5 = tl.minimum(tl.maximum((5 - above) / equal, 0.0), 1.0)
    tl.store(losses + image, tl.where(finite, loss, float("nan")))
    tl.store(top1 + image, tl.where(finite, 1 - credit1, 1.0))
    tl.store(top5 + image, tl.where(finite, 1 - credit5, 1.0))


@triton.jit
def _backward(p, labels, dx, classes, p_row, dx_row, SHARE, BLOCK: tl.constexpr):
    image = tl.program_id(0)
    class_ = tl.arange(0, BLOCK)
    value = tl.load(p + image * p_row + class_, mask=class_ < classes, other=0.0).to(tl.float32)
    value -= (class_ == tl.load(labels + image)).to(tl.float32)
    tl.store(dx + image * dx_row + class_, value * SHARE, mask=class_ < classes)


def softmax(x: Tensor, p: Tensor) -> None:
    """Write the softmax of the rows of ``x`` (``[N, classes]``) into ``p``."""
    _rows(x, p)
    _softmax[(len(x),)](x, p, x.shape[1], x.stride(0), p.stride(0), BLOCK=_block(x))


def cross_entropy(p: Tensor, labels: Tensor, losses: Tensor, top1: Tensor, top5: Tensor) -> None:
    """Losses and errors of each image, ``[N]`` each, from probabilities and labels (int64)."""
    _rows(p)
    _cross_entropy[(len(p),)](
        p, labels, losses, top1, top5, p.shape[1], p.stride(0), BLOCK=_block(p)
    )


def backward(p: Tensor, labels: Tensor, dx: Tensor) -> None:
    """Write the gradient of the mean loss with respect to what softmax was taken of."""
    _rows(p, dx)
    _backward[(len(p),)](
        p, labels, dx, p.shape[1], p.stride(0), dx.stride(0), 1 / len(p), BLOCK=_block(p)
    )


def _block(x: Tensor) -> int:
    return power_of_two(16, x.shape[1], 1 << 20)


def _rows(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.ndim != 2 or tensor.shape != tensors[0].shape or tensor.stride(1) != 1:
            raise ValueError(
                f"rows of classes are wanted, contiguous and alike; got"
                f" {[list(t.shape) for t in tensors]}"
            )

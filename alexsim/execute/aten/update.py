"""Update rules, in place and without scratch: see ``alexsim.network.update_rules``.

``share`` is what a gradient must be multiplied with to be a mean over the minibatch. Decay is taken
off as a small number of its own: a factor just below 1 would be rounded, and decay with it.
"""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def sgd_2012(
    value: Tensor,
    inc: Tensor,
    grad: Tensor | None,
    *,
    rate: float,
    decay: float,
    momentum: float,
    share: float,
) -> None:
    """The rule of 2012; without a gradient, that and all before it are in ``inc`` already."""
    if grad is not None:
        inc.mul_(momentum)
        if decay:
            inc.add_(value, alpha=-decay * rate)
        inc.add_(grad, alpha=-rate * share)
    value.add_(inc)


def sgd(
    value: Tensor,
    speed: Tensor,
    grad: Tensor,
    *,
    rate: float,
    decay: float,
    momentum: float,
    nesterov: bool,
    share: float,
) -> None:
    """``torch.optim.SGD``'s rule, dampening 0."""
    speed.mul_(momentum).add_(grad, alpha=share)
    if decay:
        speed.add_(value, alpha=decay)
    if not nesterov:
        value.add_(speed, alpha=-rate)
        return
    if decay:
        value.add_(value, alpha=-rate * decay)
    value.add_(grad, alpha=-rate * share).add_(speed, alpha=-rate * momentum)


def adamw_corrections(updates: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """Count one more update; what the means of gradients and of their squares lack after so many.

    Single numbers where the count is: on a card, nothing waits to read it.
    """
    done = updates.add_(1)[0].double()
    return 1 - torch.pow(beta1, done), 1 - torch.pow(beta2, done)


def adamw(
    value: Tensor,
    mean: Tensor,
    square: Tensor,
    grad: Tensor,
    *,
    rate: float,
    decay: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    corrections: tuple[Tensor, Tensor],
    share: float,
) -> None:
    """``torch.optim.AdamW``'s rule; uses the gradient up."""
    if share != 1:
        grad.mul_(share)
    if decay:
        value.add_(value, alpha=-rate * decay)
    mean.lerp_(grad, 1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    of_mean, of_square = corrections
    torch.sqrt(square, out=grad)
    grad.div_(of_square.sqrt()).add_(epsilon).mul_(of_mean)
    value.addcdiv_(mean, grad, value=-rate)

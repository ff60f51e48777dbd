"""Update rules, in place and without scratch: see ``alexsim.network.update_rules``.

Decay is taken off as a separate small number: a factor just below 1 would be rounded, and decay
with it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

Tensor = torch.Tensor


class Constants(NamedTuple):
    """An update rule's constants for one parameter in one step."""

    rate: float
    decay: float
    momentum: float
    """Of ``adamw``: beta1."""
    nesterov: bool
    beta2: float
    epsilon: float
    share: float
    """What a gradient must be multiplied with to be a mean over the minibatch."""


def sgd_2012(value: Tensor, inc: Tensor, grad: Tensor | None, c: Constants) -> None:
    """The rule of 2012; without a gradient, that and all before it are in ``inc`` already."""
    if grad is not None:
        inc.mul_(c.momentum)
        if c.decay:
            inc.add_(value, alpha=-c.decay * c.rate)
        inc.add_(grad, alpha=-c.rate * c.share)
    value.add_(inc)


def sgd(value: Tensor, speed: Tensor, grad: Tensor, c: Constants) -> None:
    """``torch.optim.SGD``'s rule, dampening 0."""
    speed.mul_(c.momentum).add_(grad, alpha=c.share)
    if c.decay:
        speed.add_(value, alpha=c.decay)
    if not c.nesterov:
        value.add_(speed, alpha=-c.rate)
        return
    if c.decay:
        value.add_(value, alpha=-c.rate * c.decay)
    value.add_(grad, alpha=-c.rate * c.share).add_(speed, alpha=-c.rate * c.momentum)


def adamw_corrections(updates: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """Count one more update; the corrections of both means after so many.

    Single numbers where the count is: on a card, nothing waits to read it.
    """
    done = updates.add_(1)[0].double()
    return 1 - torch.pow(beta1, done), 1 - torch.pow(beta2, done)


def adamw(
    value: Tensor,
    mean: Tensor,
    square: Tensor,
    grad: Tensor,
    corrections: tuple[Tensor, Tensor],
    c: Constants,
) -> None:
    """``torch.optim.AdamW``'s rule; uses the gradient up."""
    if c.share != 1:
        grad.mul_(c.share)
    if c.decay:
        value.add_(value, alpha=-c.rate * c.decay)
    mean.lerp_(grad, 1 - c.momentum)
    square.mul_(c.beta2).addcmul_(grad, grad, value=1 - c.beta2)
    mean_correction, square_correction = corrections
    torch.sqrt(square, out=grad)
    grad.div_(square_correction.sqrt()).add_(c.epsilon).mul_(mean_correction)
    value.addcdiv_(mean, grad, value=-c.rate)

"""Update rules: what each keeps beside a parameter, reads, writes and computes.

The one table of it. Buffers, FLOPs, bytes, checkpoints and documents follow from here. ``w`` is a
value of a parameter, ``g`` its gradient, a mean over the minibatch:

``sgd-2012`` (Krizhevsky et al. 2012, section 5)
    ``v = momentum v - decay rate w - rate g``, ``w += v``. Weights only decay; biases, scales and
    shifts have another rate. ``v`` is what is added, so that fully connected layers' weight
    gradients can go straight into it.
``sgd`` (``torch.optim.SGD``)
    ``d = g + decay w``, ``v = momentum v + d``, ``w -= rate v``; or, as Nesterov does,
    ``w -= rate (d + momentum v)``. One rate for everything.
``adamw`` (``torch.optim.AdamW``; Loshchilov & Hutter 2019)
    ``w -= rate decay w``, ``m = beta1 m + (1 - beta1) g``, ``v = beta2 v + (1 - beta2) g^2``,
    ``w -= rate m' / (v'^0.5 + epsilon)``, where ``m' = m / (1 - beta1^t)``,
    ``v' = v / (1 - beta2^t)`` and ``t`` is how many updates the layer has had.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["sgd-2012", "sgd", "adamw"]
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd-2012", "sgd", "adamw")

BETA2, EPSILON = 0.999, 1e-8
"""Defaults of ``adamw``: PyTorch's, as in Kingma & Ba 2014."""
UPDATES = "updates"
"""Of a layer: how many updates it has had, where its rule corrects for that. One number, in
float32, which counts to 16,777,216 exactly; by then nothing is left to correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRule:
    """What an update takes per value. Each of them is read once, and what changes written once."""

    state: tuple[str, ...]
    """Buffers as large as the parameter that last from step to step: ``NAME.momentum`` ..."""
    weight_flop: int
    """FLOP per weight: one for each addition, multiplication, division and root."""
    other_flop: int
    """And per bias, scale or shift. What only some constants ask for is not in it: Nesterov's 2."""
    fused_flop: int = 0
    """Of ``weight_flop``, those that a fully connected layer's weight gradient does on its way
    into the momentum; 0 if it is always stored."""
    counts_updates: bool = False
    """Whether each layer has a count of its updates."""
    uses_up_gradient: bool = False
    """Whether it computes in the gradient's memory, so that it needs no scratch."""

    @property
    def read_values(self) -> int:
        """Per value of a parameter: itself, its gradient and its state."""
        return 2 + len(self.state)

    @property
    def written_values(self) -> int:
        """Itself and its state."""
        return 1 + len(self.state)


RULES: dict[Optimizer, UpdateRule] = {
    # momentum v, decay rate w (2), rate g; two subtractions, and the sum.
    "sgd-2012": UpdateRule(state=("momentum",), weight_flop=7, other_flop=4, fused_flop=6),
    # decay w + g (2), momentum v + d (2), w - rate v (2): everything may decay, as in PyTorch.
    "sgd": UpdateRule(state=("momentum",), weight_flop=6, other_flop=6),
    # Decay (2), m (3), v (4), root, two corrections and epsilon (4), quotient and sum (3).
    "adamw": UpdateRule(
        state=("momentum", "variance"),
        weight_flop=16,
        other_flop=16,
        counts_updates=True,
        uses_up_gradient=True,
    ),
}

_STATE = tuple({f".{name}": None for rule in RULES.values() for name in (*rule.state, UPDATES)})


def is_state(name: str) -> bool:
    """Whether a saved tensor is an update rule's: no part of the network, and zero at first."""
    return name.endswith(_STATE)

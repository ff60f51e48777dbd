"""Weights by the names of checkpoints (``conv1.a.weight``), and a PyTorch module's state."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from alexsim.errors import InterchangeError
from alexsim.network.network import Network
from alexsim.network.part import letter

State = Mapping[str, torch.Tensor]


def first_weights(network: Network) -> dict[str, torch.Tensor]:
    """The module's parameters and running statistics as checkpoints have them, in float32."""
    state = network.module.state_dict()
    return {saved(name): state[key].detach().cpu().float() for name, key in network.keys.items()}


def module_state(network: Network, state: State, before: State) -> dict[str, torch.Tensor]:
    """A ``state_dict`` with what has been learnt in it, each tensor in the type that it had.

    What is no layer's stays: buffers of the module's own, and batch norms' counts of minibatches.

    Args:
        network: made of the module.
        state: parameters and running statistics, as checkpoints have them.
        before: the module's ``state_dict``, or that of one built alike.

    Raises:
        InterchangeError: a tensor is missing, or of another shape.
    """
    after = dict(before)
    for name, key in network.keys.items():
        learnt, there = state[saved(name)], before.get(key)
        if there is None or there.shape != learnt.shape:
            raise InterchangeError(
                f"{name} is {tuple(learnt.shape)}, the module's {key} is"
                f" {'missing' if there is None else tuple(there.shape)}"
            )
        # The module may have one tensor under several names.
        place = there.untyped_storage().data_ptr()
        same = (k for k, v in before.items() if v.untyped_storage().data_ptr() == place)
        after |= dict.fromkeys([*same, key], learnt.to(there.dtype))
    return after


def saved(name: str) -> str:
    """``conv1.weight`` as checkpoints call it: its column stands between."""
    layer, _, parameter = name.rpartition(".")
    return f"{layer}.{letter(0)}.{parameter}"

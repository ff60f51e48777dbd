"""Weights to begin with: another run's, all of them or all but the last projection."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from alexsim.editions.load import load_network
from alexsim.errors import RunError
from alexsim.network.network import Network
from alexsim.network.update_rules import is_state
from alexsim.train.settings import TrainSettings
from alexsim.train.weights import Weights, state_shapes


def refuse_other_layers(initial: Weights, network: Network, *, new_head: bool) -> None:
    """Every layer of ``network`` must be there in the same shape; the last layer if it is kept.

    Raises:
        RunError: a layer is not.
    """
    theirs = state_shapes(load_network(initial.network))
    last = network.weighted_layers[-1]
    for name, shape in state_shapes(network).items():
        if new_head and name.startswith(f"{last}."):
            continue
        if theirs.get(name) != shape:
            hint = "; --new-head trains one anew" if name.startswith(f"{last}.") else ""
            raise RunError(
                f"--init-from: {name} of {network.name} is {shape}, of {initial.network}"
                f" {theirs.get(name) or 'missing'}{hint}"
            )


def refuse_not_finite(initial: Weights, network: Network, *, new_head: bool) -> None:
    """The weights that are kept must be finite.

    Raises:
        RunError: a weight is NaN or infinite.
    """
    fresh = f"{network.weighted_layers[-1]}." if new_head else None
    for name, tensor in initial.state.items():
        if not (fresh and name.startswith(fresh)) and not bool(torch.isfinite(tensor).all()):
            raise RunError(f"--init-from: {name} holds NaN or an infinity: nothing learns from it")


def initialised(
    drawn: Mapping[str, torch.Tensor], initial: Weights, settings: TrainSettings
) -> dict[str, torch.Tensor]:
    """The state to begin with: ``initial``'s weights, drawn weights in a new head, no momentum."""
    network = load_network(settings.network)
    refuse_other_layers(initial, network, new_head=settings.new_head)
    fresh = f"{network.weighted_layers[-1]}." if settings.new_head else None
    return {
        name: tensor
        if is_state(name) or (fresh and name.startswith(fresh))
        else initial.state[name]
        for name, tensor in drawn.items()
    }

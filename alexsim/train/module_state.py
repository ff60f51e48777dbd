"""A PyTorch module's weights into training, and back into the module to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alexsim.editions.load import load_network
from alexsim.errors import InterchangeError, RunError
from alexsim.interchange.module_state import first_weights, module_state
from alexsim.network.network import Network
from alexsim.train.weights import load_weights

if TYPE_CHECKING:
    from torch import nn


def begun_from_module(
    drawn: Mapping[str, torch.Tensor], network: Network
) -> dict[str, torch.Tensor]:
    """The state to begin with: the module's, but what another head or an update rule has."""
    theirs = first_weights(network)
    return {
        name: theirs[name] if name in theirs and theirs[name].shape == tensor.shape else tensor
        for name, tensor in drawn.items()
    }


def load_into(module: nn.Module, path: str | Path) -> None:
    """Give a module the weights and running statistics that a run of it has learnt, to the bit.

    What is no layer's stays: buffers of the module's own, and batch norms' counts of minibatches.

    Args:
        module: the module that ``--net FILE.py:NAME`` named, or one built alike.
        path: a run directory, or a ``.safetensors`` file of ``alexsim model export``.

    Raises:
        RunError: there are no weights, they are not a PyTorch module's, or not this module's.
    """
    weights = load_weights(Path(path))
    network = load_network(weights.network)
    if not network.keys:
        raise RunError(f"{path}: {weights.network} was no PyTorch module")
    try:
        state = module_state(network, weights.state, module.state_dict())
    except InterchangeError as error:
        raise RunError(f"{path}: {error}") from error
    module.load_state_dict(state)

"""Faithful performance simulation and profiling of how deep networks were, and are, trained.

``alexsim.from_torch`` makes a network of a PyTorch module; ``alexsim.load_into`` gives the module
what a run has learnt. ``alexsim.AlexNet`` is the network alone, as a ``torch.nn.Module``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexsim.interchange.from_torch import from_torch
    from alexsim.interchange.module import AlexNet
    from alexsim.train.module_state import load_into

__all__ = ["AlexNet", "from_torch", "load_into"]

_PLACES = {
    "AlexNet": "alexsim.interchange.module",
    "from_torch": "alexsim.interchange.from_torch",
    "load_into": "alexsim.train.module_state",
}


def __getattr__(name: str) -> object:
    # On demand: most commands must start without torch.
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

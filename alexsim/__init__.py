"""Faithful performance simulation and profiling of how deep networks were, and are, trained.

``alexsim.AlexNet`` is the network alone, as a ``torch.nn.Module``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexsim.interchange.module import AlexNet

__all__ = ["AlexNet"]


def __getattr__(name: str) -> object:
    # On demand: most commands must start without torch.
    if name == "AlexNet":
        from alexsim.interchange.module import AlexNet

        return AlexNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What a FLOP counter returns: a figure, and its breakdown of that figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from alexsim.network.network import Network

Share = Literal["", "grad_input", "grad_weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a counter's breakdown."""

    value: int
    layer: str = ""
    """Empty: all layers together."""
    op: str = ""
    """Empty: the whole layer."""
    share: Share = ""
    """Which gradient, where the reading tells them apart."""
    again: bool = False
    """Counted beside another entry of the same layer, in another place of the counter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One counter's figures of one image."""

    unit: str
    """As the counter names it."""
    forward: int
    forward_items: tuple[Item, ...]
    training: int | None = None
    training_items: tuple[Item, ...] = ()
    backward_factor: int | None = None
    """Forward passes that the counter takes a backward pass for; None where it counts it."""
    reported: tuple[str, ...] = ()
    """Operators that the counter itself reports as uncounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter by name, and how to run it; ``module`` is what must be importable."""

    name: str
    module: str
    package: str
    read: Callable[[Network], Reading]

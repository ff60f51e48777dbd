"""What a FLOP counter says: a figure, and its own breakdown of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from alexsim.network.network import Network

Share = Literal["", "grad_input", "grad_weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a counter's own breakdown."""

    value: int
    layer: str = ""
    """Empty: all layers together."""
    op: str = ""
    """Empty: the whole layer."""
    share: Share = ""
    """Which gradient, where a counter was made to tell them apart."""
    again: bool = False
    """Counted beside another entry of the same layer, by another of the counter's means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one counter says of one image."""

    unit: str
    """As the counter names it."""
    forward: int
    forward_items: tuple[Item, ...]
    training: int | None = None
    training_items: tuple[Item, ...] = ()
    backward_factor: int | None = None
    """Set where the counter takes the backward pass as so many forward passes."""
    reported: tuple[str, ...] = ()
    """Operators that the counter itself reports as uncounted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter by name, and how to run it; ``module`` is what must be importable."""

    name: str
    module: str
    package: str
    read: Callable[[Network], Reading]

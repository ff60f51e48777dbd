"""What ``alexsim train`` does with an edition unless it is told otherwise. No torch in here.

The numbers are in ``alexsim_profiles/training/editions.toml``, each with its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from alexsim.machine.sheet import find
from alexsim.typed import read

_OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """How an edition is trained."""

    recipe: str
    """Its first stage is followed."""
    steps: int
    weights: str
    """Deviations of its first weights, in words; the network has them layer by layer."""
    source: str
    also: tuple[str, ...] = ()
    """Other editions that are trained so, of its family."""


def training_defaults(network: str) -> Defaults:
    """Of an edition and its variants; of others, what most editions have."""
    known, base = _editions(), network.partition("+")[0]
    return known.get(trains_as(base) or base, known[_OTHER])


def trains_as(network: str) -> str:
    """The edition of its family that an edition is trained like; empty if it has defaults of its
    own, or those of most."""
    return next((name for name, table in _editions().items() if network in table.also), "")


@cache
def _editions() -> dict[str, Defaults]:
    tables, where = find("training", "editions", what="table")
    return {name: read(Defaults, table, f"{where}: {name}") for name, table in tables.items()}

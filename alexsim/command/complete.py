"""Values that a shell completes: ``--net re<TAB>``; those of a few words complete by their type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from alexsim.network.network import Network
from alexsim.errors import AlexsimError


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def networks(incomplete: str) -> list[str]:
    """Editions; behind a +, their variants."""
    from alexsim.editions.load import edition_names
    from alexsim.editions.variants import VARIANTS

    before, plus, last = incomplete.rpartition("+")
    if plus:
        return _starting(incomplete, (f"{before}+{name}" for name in VARIANTS))
    return _starting(last, edition_names())


def _names(*sources: str) -> Callable[[str], list[str]]:
    """Completes what these functions of alexsim list, as ``module:function``."""

    def complete(incomplete: str) -> list[str]:
        listed = (name for source in sources for name in resolve_name(f"alexsim.{source}")())
        return _starting(incomplete, dict.fromkeys(listed))

    return complete


_MACHINES = ("machine.machine:machine_names", "machine.device:device_names")
_LINKS = "machine.link:link_names"
machines = _names(*_MACHINES)
links = _names(_LINKS)
sheets = _names(*_MACHINES, _LINKS)
recipes = _names("recipe.file:recipe_names")
libraries = _names("costs.libraries:library_names")


def weighted_layers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Layers of the network with weights; of several, as in ``fc7,fc8``, the last is completed."""
    before, comma, last = incomplete.rpartition(",")
    network = _network(ctx)
    names = network.weighted_layers if network else ()
    return [f"{before}{comma}{name}" for name in _starting(last, names)]


def layers(ctx: typer.Context, incomplete: str) -> list[str]:
    """Layers of the network."""
    network = _network(ctx)
    return _starting(incomplete, (layer.name for layer in network.layers) if network else ())


def _network(context: typer.Context) -> Network | None:
    """The network that the line names so far."""
    from alexsim.editions.load import load_network

    try:
        return load_network(str(context.params.get("net") or "alexnet-2012"))
    except AlexsimError:
        return None


def changes(incomplete: str) -> list[str]:
    """What a what-if changes, up to the equals sign."""
    from alexsim.explore.what_if import CHOICES, WORDS

    return _starting(incomplete, (*WORDS, *(f"{name}=" for name in CHOICES)))


def axes(incomplete: str) -> list[str]:
    """What a sweep varies, up to the equals sign."""
    from alexsim.explore.sweep import AXES

    return _starting(incomplete, (f"{name}=" for name in AXES))

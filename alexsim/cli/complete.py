"""Values that a shell completes: ``--net re<TAB>``; those of a few words complete by their type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from alexsim.network.network import Network


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def networks(incomplete: str) -> list[str]:
    """Editions; behind a +, their variants."""
    from alexsim.network.editions import edition_names
    from alexsim.network.variants import VARIANTS

    before, plus, last = incomplete.rpartition("+")
    if plus:
        return _starting(incomplete, (f"{before}+{name}" for name in VARIANTS))
    return _starting(last, edition_names())


def machines(incomplete: str) -> list[str]:
    """Machines and devices."""
    from alexsim.machine.device import device_names
    from alexsim.machine.machine import machine_names

    return _starting(incomplete, dict.fromkeys((*machine_names(), *device_names())))


def links(incomplete: str) -> list[str]:
    """Links."""
    from alexsim.machine.machine import link_names

    return _starting(incomplete, link_names())


def sheets(incomplete: str) -> list[str]:
    """Everything that ``hardware show`` knows."""
    return [*machines(incomplete), *links(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Recipes that come with alexsim."""
    from alexsim.recipe.recipe import recipe_names

    return _starting(incomplete, recipe_names())


def libraries(incomplete: str) -> list[str]:
    """Libraries whose kernels' speed is modelled."""
    from alexsim.simulate.costs.libraries import library_names

    return _starting(incomplete, library_names())


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
    from alexsim.errors import AlexsimError
    from alexsim.network.editions import load_network

    try:
        return load_network(str(context.params.get("net") or "alexnet-2012"))
    except AlexsimError:
        return None


def axes(incomplete: str) -> list[str]:
    """What a sweep varies, up to the equals sign."""
    from alexsim.simulate.sweep import AXES

    return _starting(incomplete, (f"{name}=" for name in AXES))

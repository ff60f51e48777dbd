"""What of a network cannot be computed here, said completely."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from alexsim.errors import NetworkError
from alexsim.network.layers import Operator
from alexsim.network.network import Network

WORKING = "flops, memory, simulate, sweep, report and network show"
"""Commands that count and predict; they need no kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """A kind of operator without a kernel, and where it is called."""

    target: str
    layers: tuple[str, ...]
    mac: int
    """Multiply-adds of one image's forward pass in them all."""
    formula: bool
    """Whether its arithmetic is counted; else its bytes alone."""
    views: bool
    """Whether it does nothing but name values otherwise."""


def unsupported(network: Network) -> tuple[Unsupported, ...]:
    """Every operator that has no kernel, those with the most multiply-adds first."""
    return _kinds(network, network.not_run)


def lacking(network: Network) -> tuple[Unsupported, ...]:
    """The same without calls that only name values otherwise, unless there are no others."""
    working = [layer for layer in network.not_run if not layer.views]
    return _kinds(network, working or network.not_run)


def _kinds(network: Network, operators: Iterable[Operator]) -> tuple[Unsupported, ...]:
    by_target: dict[str, list[Operator]] = {}
    for layer in operators:
        by_target.setdefault(layer.target, []).append(layer)
    kinds = (
        Unsupported(
            target=target,
            layers=tuple(layer.name for layer in layers),
            mac=sum(part.multiply_adds for la in layers for part in network.parts_of(la.name)),
            formula=all(layer.formula for layer in layers),
            views=all(layer.views for layer in layers),
        )
        for target, layers in by_target.items()
    )
    return tuple(sorted(kinds, key=lambda kind: (-kind.mac, -len(kind.layers), kind.target)))


def unsupported_mac_share(network: Network) -> float:
    """Share of a forward pass's multiply-adds that are in operators without a kernel."""
    total = sum(part.multiply_adds for parts in network.parts for part in parts)
    return sum(kind.mac for kind in unsupported(network)) / total if total else 0.0


def refuse_not_run(network: Network) -> None:
    """Refuse to compute a network of which something is only counted.

    Raises:
        NetworkError: every operator, how often it is called and where first, and what works.
    """
    kinds = lacking(network)
    if not kinds:
        return
    calls = sum(len(kind.layers) for kind in kinds)
    raise NetworkError(
        f"{network.name} cannot run here: {calls} calls of {len(kinds)} operators have no kernel:"
        f" {', '.join(_words(kinds))}; {WORKING} work"
    )


def reads_photographs(network: Network) -> bool:
    """Whether it reads square images, in grey or in three colours."""
    channels, *sides = network.input_shape
    return channels in (1, 3) and len(sides) == 2 and sides[0] == sides[1]


def refuse_not_photographs(network: Network) -> None:
    """Refuse a network that cannot read the crops of image files.

    Raises:
        NetworkError: they are square, in grey or in three colours.
    """
    if not reads_photographs(network):
        shape = "x".join(map(str, network.input_shape))
        raise NetworkError(
            f"{network.name} reads {shape}: training feeds square images of 1 or 3 channels,"
            " cropped from files"
        )


def _words(kinds: Iterable[Unsupported]) -> Iterable[str]:
    for kind in kinds:
        yield f"{kind.target} x {len(kind.layers)} (in {kind.layers[0]})"

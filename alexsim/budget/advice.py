"""What makes a step in eager PyTorch smaller, with what it saves and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import takewhile

from alexsim.network import counts
from alexsim.network.branches import blocks
from alexsim.network.layers import Pool
from alexsim.network.network import Network
from alexsim.plan.autograd import Tape
from alexsim.plan.eager import reserved_bytes
from alexsim.plan.plan import Plan
from alexsim.plan.steps import StepList
from alexsim.units import format_bytes

_NAMED = 4
"""Blocks that are named in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Help:
    """A way to fit; ``saved_bytes`` of the fullest device."""

    option: str
    """As a command takes it; empty where it is a change of the training script."""
    saved_bytes: int
    recomputed: tuple[str, ...] = ()
    """Blocks that ``torch.utils.checkpoint`` would run again in the backward pass."""
    extra_flop: int = 0
    """Of a step: the recomputed forward passes."""

    @property
    def words(self) -> str:
        """In a few words."""
        saved = f"{format_bytes(self.saved_bytes)} less"
        if not self.recomputed:
            return f"{self.option} ({saved})"
        first, more = self.recomputed[:_NAMED], len(self.recomputed) - _NAMED
        names = ", ".join(first) + (f" and {more} more" if more > 0 else "")
        return f"recompute {names} ({saved}, {self.extra_flop / 1e9:,.1f} GFLOP more a step)"


def recomputation(plan: Plan, room: int) -> Help | None:
    """The fewest blocks whose recomputation makes a step fit, those that save most first.

    None if all together do not.
    """
    steps = StepList(spec=plan.spec)
    steps.build()
    tape = Tape(steps=steps)
    before = reserved_bytes(tape)
    by_size = sorted(named_blocks(plan.network).items(), key=lambda item: -tape.saved_of(item[1]))

    def needed(count: int) -> int:
        chosen = tuple(layers for _, layers in by_size[:count])
        return reserved_bytes(Tape(steps=steps, recomputed=chosen))

    low, high = 0, len(by_size)
    if needed(high) > room:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if needed(middle) <= room else (middle, high)
    chosen = by_size[:high]
    layers = frozenset(name for _, block in chosen for name in block)
    again = (part for parts in plan.network.parts for part in parts if part.layer.name in layers)
    return Help(
        option="",
        saved_bytes=before - needed(high),
        recomputed=tuple(name for name, _ in chosen),
        extra_flop=sum(2 * plan.batch_size * counts.macs(part) for part in again),
    )


def named_blocks(network: Network) -> dict[str, frozenset[str]]:
    """Layers in a row that share the beginning of their names; or, where none do, up to a pool.

    The layers before the cost, whose outputs last anyway, are in none.
    """
    names = [layer.name for layer in network.layers]
    prefixes = dict.fromkeys(block.prefix for block in blocks(network) if block.prefix)
    named = {}
    for prefix in prefixes:
        first = next(i for i, name in enumerate(names) if name.startswith(prefix))
        row = takewhile(partial(_begins, prefix), names[first:])
        named[prefix.rstrip("_.")] = frozenset(row)
    if named:
        return named
    row_of: list[str] = []
    for layer in network.layers:
        row_of.append(layer.name)
        if isinstance(layer, Pool):
            named[f"{row_of[0]}-{row_of[-1]}"] = frozenset(row_of)
            row_of = []
    return named


def _begins(prefix: str, name: str) -> bool:
    return name.startswith(prefix)

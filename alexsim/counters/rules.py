"""Rules by which an entry of a counter's breakdown may differ from our figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alexsim.counters.operators import Operator
from alexsim.counters.readings import Item
from alexsim.plan.tables import LayerFlops

Kind = Literal["forward", "input gradient", "weight gradient"]
KINDS: tuple[Kind, ...] = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True, slots=True)
class Weighted:
    """What an entry about weighted layers ought to say."""

    layers: tuple[LayerFlops, ...]
    kinds: tuple[Kind, ...]
    groups: int

    @property
    def flop(self) -> int:
        return sum(flop_of(layer, kind) for layer in self.layers for kind in self.kinds)

    @property
    def outputs(self) -> int:
        return sum(math.prod(layer.shape) for layer in self.layers)


def flop_of(layer: LayerFlops, kind: Kind) -> int:
    """The plan's FLOP of one pass of a layer."""
    match kind:
        case "forward":
            return layer.flop
        case "input gradient":
            return layer.grad_input_flop
        case _:
            return layer.grad_weight_flop


def counts_macs(items: list[tuple[Item, Weighted]]) -> bool:
    """Whether most entries say that a multiply-add is one: half of two groups is one group."""
    votes = 0
    for item, what in items:
        if what.groups > 1 or not item.value:
            continue
        found = first_match(item.value, what, mac_first=False) or []
        votes += 1 if any(text == _MAC for text, _ in found) else -1
    return votes > 0


_MAC = "a multiply-add counts as one FLOP"


def first_match(value: int, what: Weighted, *, mac_first: bool) -> list[tuple[str, int]] | None:
    """The rule with the fewest terms that meets ``value``, as its terms."""
    units = (2, 1) if mac_first else (1, 2)
    for unit in units:
        fitting = [found for total, found in _rules(what, unit) if total == value]
        if fitting:
            return min(fitting, key=len)
    return None


def _rules(what: Weighted, unit: int) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Totals that an entry may have for known reasons; ``unit`` FLOP are counted as one."""
    forward = what.kinds == ("forward",)
    outputs = what.outputs
    first = sum(la.flop for la in what.layers if not la.grad_input_flop) if not forward else 0
    bases = [("", what.flop)]
    if what.groups > 1:
        bases.append((f"{what.kinds[-1]} of grouped layers, times groups", what.flop * what.groups))
    if first:
        bases.append(("input gradient of the first layer", what.flop + first))
    biases: list[tuple[str, int]] = [("", 0)]
    if forward:
        biases += [("bias additions", outputs), ("one addition less per output", -outputs)]
    elif "weight gradient" in what.kinds:
        biases.append(("bias gradients", outputs))
    for (base, flop), (bias, extra) in itertools.product(bases, biases):
        found = [(base, flop - what.flop)] if base else []
        if unit == 2:
            found.append((_MAC, -flop // 2))
        if bias:
            found.append((bias, extra))
        yield flop // unit + extra, found


_Choice = tuple[tuple[int, str, int], ...]


def choices_of(value: int, ops: dict[int, Operator]) -> list[_Choice]:
    """Every smallest set of operators whose counted values add up to ``value``."""
    options = {index: _counts_of(op) for index, op in ops.items()}
    # A layer's whole backward pass has too many operators to try every set of them.
    for size in range(1, (len(ops) if len(ops) <= 10 else 2) + 1):
        found = [
            tuple((index, how, flop) for index, (how, flop) in zip(chosen, ways, strict=True))
            for chosen in itertools.combinations(ops, size)
            for ways in itertools.product(*(options[index] for index in chosen))
            if sum(flop for _, flop in ways) == value
        ]
        if found:
            return found
    return []


def _counts_of(op: Operator) -> list[tuple[str, int]]:
    ways = {op.outputs: "one per value"}
    ways.setdefault(op.inputs, "one per value read")
    if op.window:
        ways.setdefault(op.window * op.outputs, "one per window position")
        ways.setdefault((op.window - 1) * op.outputs, "one per comparison")
    return [(how, flop) for flop, how in ways.items() if flop]

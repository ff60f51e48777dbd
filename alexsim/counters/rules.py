"""Rules by which an entry of a counter's breakdown may differ from our figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alexsim.counters.operators import Operator
from alexsim.counters.readings import Item
from alexsim.ledger.tables import LayerFlops

Kind = Literal["forward", "input gradient", "weight gradient"]
KINDS: tuple[Kind, ...] = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True, slots=True)
class Weighted:
    """The layers and passes that an entry about weighted layers counts."""

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
    """Whether most entries count a multiply-add as one FLOP.

    Grouped layers do not vote: half of two groups' FLOP is one group's.
    """
    votes = 0
    for item, weighted in items:
        if weighted.groups > 1 or not item.value:
            continue
        terms = first_match(item.value, weighted, mac_first=False) or []
        votes += 1 if any(text == _MAC for text, _ in terms) else -1
    return votes > 0


_MAC = "a multiply-add counts as one FLOP"


def first_match(value: int, weighted: Weighted, *, mac_first: bool) -> list[tuple[str, int]] | None:
    """Terms of the rule that meets ``value`` with the fewest terms; None if no rule does."""
    units = (2, 1) if mac_first else (1, 2)
    for unit in units:
        fitting = [terms for total, terms in _rules(weighted, unit) if total == value]
        if fitting:
            return min(fitting, key=len)
    return None


def _rules(weighted: Weighted, unit: int) -> Iterator[tuple[int, list[tuple[str, int]]]]:
    """Totals that an entry may have, and their terms; the counter counts ``unit`` FLOP as one."""
    forward = weighted.kinds == ("forward",)
    outputs = weighted.outputs
    first = sum(la.flop for la in weighted.layers if not la.grad_input_flop) if not forward else 0
    bases = [("", weighted.flop)]
    if weighted.groups > 1:
        text = f"{weighted.kinds[-1]} of grouped layers, times groups"
        bases.append((text, weighted.flop * weighted.groups))
    if first:
        bases.append(("input gradient of the first layer", weighted.flop + first))
    biases: list[tuple[str, int]] = [("", 0)]
    if forward:
        biases += [("bias additions", outputs), ("one addition less per output", -outputs)]
    elif "weight gradient" in weighted.kinds:
        biases.append(("bias gradients", outputs))
    for (base, flop), (bias, extra) in itertools.product(bases, biases):
        terms = [(base, flop - weighted.flop)] if base else []
        if unit == 2:
            terms.append((_MAC, -flop // 2))
        if bias:
            terms.append((bias, extra))
        yield flop // unit + extra, terms


_Choice = tuple[tuple[int, str, int], ...]


def choices_of(value: int, ops: dict[int, Operator]) -> list[_Choice]:
    """Every smallest set of operators whose counted values add up to ``value``."""
    options = {index: _counts_of(op) for index, op in ops.items()}
    # A layer's whole backward pass has too many operators to try every set of them.
    for size in range(1, (len(ops) if len(ops) <= 10 else 2) + 1):
        choices = [
            tuple((index, how, flop) for index, (how, flop) in zip(chosen, meanings, strict=True))
            for chosen in itertools.combinations(ops, size)
            for meanings in itertools.product(*(options[index] for index in chosen))
            if sum(flop for _, flop in meanings) == value
        ]
        if choices:
            return choices
    return []


def _counts_of(op: Operator) -> list[tuple[str, int]]:
    meanings = {op.outputs: "one per value"}
    meanings.setdefault(op.inputs, "one per value read")
    if op.window:
        meanings.setdefault(op.window * op.outputs, "one per window position")
        meanings.setdefault((op.window - 1) * op.outputs, "one per comparison")
    return [(meaning, flop) for flop, meaning in meanings.items() if flop]

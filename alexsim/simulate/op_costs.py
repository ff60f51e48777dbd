"""What a plan's ops cost: their kernels, the host's work to issue them, and where that shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alexsim.costs.correction import paced, paced_by_host
from alexsim.costs.cost import Cost
from alexsim.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Costs:
    """What the ops that compute cost, by their ids."""

    pieces: Mapping[str, list[Cost]]
    kernels: Mapping[str, list[Cost]]
    """Without the host's."""
    kernels_s: Mapping[str, float]
    paced: Sequence[Mapping[str, int]]
    """Of each device the ops that may wait for the host to issue them, and their places."""
    first: Sequence[Sequence[Cost]]
    """Pieces of the first device's ops, in order."""

    def pace(self) -> list[tuple[Cost, float]]:
        """Pieces of the first device's ops that set its pace, and their seconds."""
        times = paced(self.first, _seconds(self.first))
        return [
            (cost, seconds)
            for costs, taken in zip(self.first, times, strict=True)
            for cost, seconds in zip(costs, taken, strict=True)
            if seconds
        ]


def costs_of_ops(plan: Plan, pieces: Mapping[str, list[Cost]]) -> Costs:
    """The costs of a plan's ops, by the pieces of each."""
    kernels = {op: [c for c in every if not c.of_host] for op, every in pieces.items()}
    waits = []
    first: list[list[Cost]] = []
    for device in plan.devices:
        timed = [op.id for op in device.ops if op.id in pieces]
        ops = [pieces[op] for op in timed]
        last = paced_by_host(ops, _seconds(ops))
        waits.append({op: place for place, op in enumerate(timed[: last + 1])})
        first = first or ops
    kernels_s = {op: sum([cost.seconds for cost in every]) for op, every in kernels.items()}
    return Costs(pieces, kernels, kernels_s, waits, first)


def _seconds(ops: Sequence[Sequence[Cost]]) -> list[list[float]]:
    return [[cost.seconds for cost in costs] for costs in ops]

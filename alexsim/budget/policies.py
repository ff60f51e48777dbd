"""Memory policies by which a step would fit, where by its own it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from alexsim.errors import AlexsimError
from alexsim.machine.device import Device
from alexsim.plan.choices import Policy
from alexsim.plan.plan import Plan
from alexsim.plan.planner import representative
from alexsim.plan.spec import PlanSpec
from alexsim.units import format_bytes

_OTHERS: tuple[Policy, ...] = ("in-place", "reuse", "pytorch")
"""No step holds less by ``as-released``."""


def policies_that_fit(
    spec: PlanSpec,
    cards: Sequence[Device],
    *,
    budget: Callable[[float], int] = int,
    made: Callable[[PlanSpec], Plan] = representative,
) -> dict[Policy, int]:
    """Other policies by which a step fits, each with the bytes of its fullest device.

    Args:
        spec: of the step; a policy that does not go with its other choices is left out.
        cards: those of all GPUs, in order: the replicas' too.
        budget: bytes that may be used, of a card with so many usable bytes.
        made: what plans it.
    """
    fitting: dict[Policy, int] = {}
    for policy in _OTHERS:
        if policy == spec.policy:
            continue
        try:
            devices = made(replace(spec, policy=policy)).devices
        except AlexsimError:
            continue
        needs = [
            devices[index % len(devices)].total_bytes + int(card.context_bytes.value)
            for index, card in enumerate(cards)
        ]
        has = [budget(card.memory_bytes.value) for card in cards]
        if all(need <= room for need, room in zip(needs, has, strict=True)):
            fitting[policy] = max(needs)
    return fitting


def policy_words(fitting: Mapping[Policy, int]) -> list[str]:
    """Each as a command takes it, with its bytes."""
    return [f"--policy {policy} ({format_bytes(need)})" for policy, need in fitting.items()]

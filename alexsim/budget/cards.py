"""Does a plan fit the cards of a machine, each kind of them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from alexsim.budget.fit import Fit, fit
from alexsim.budget.policies import policies_that_fit
from alexsim.machine.device import Device
from alexsim.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFit:
    """The verdict on the devices that are on one kind of card."""

    card: Device
    indices: tuple[int, ...]
    """Of the GPUs, those of replicas too."""
    verdict: Fit

    @property
    def gpus(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(f"gpu{index}" for index in self.indices)

    def named(self) -> CardFit:
        """The same whose shortages say which cards they are on."""
        name = f"{', '.join(self.gpus)} on {self.card.name}"
        shortages = tuple(replace(each, device=name) for each in self.verdict.shortages)
        return replace(self, verdict=replace(self.verdict, shortages=shortages))

    def places(self, plan: Plan) -> frozenset[int]:
        """Those of the plan's devices that stand for them."""
        return frozenset(index % len(plan.devices) for index in self.indices)


def fit_cards(
    plan: Plan, cards: Sequence[Device], budget: Callable[[float], int]
) -> tuple[CardFit, ...]:
    """A verdict for each kind of card, that with the least room first; where one does not fit, the
    suggestions have all policies by which the whole step would.

    Args:
        plan: of devices that do alike, one is enough.
        cards: those of all GPUs, in order: the replicas' too.
        budget: bytes that may be used, of a card with so many usable bytes.
    """
    kinds: dict[str, list[int]] = {}
    for index, card in enumerate(cards):
        kinds.setdefault(card.name, []).append(index)
    verdicts = []
    for indices in kinds.values():
        card = cards[indices[0]]
        verdict = fit(
            plan,
            budget(card.memory_bytes.value),
            context_bytes=int(card.context_bytes.value),
            on=frozenset(i % len(plan.devices) for i in indices) if len(kinds) > 1 else frozenset(),
        )
        fitted = CardFit(card=card, indices=tuple(indices), verdict=verdict)
        verdicts.append(fitted if len(kinds) == 1 else fitted.named())
    verdicts.sort(key=lambda each: each.verdict.free_bytes)
    if not verdicts[0].verdict.fits:
        policies = policies_that_fit(plan.spec, cards, budget=budget)
        verdicts = [replace(each, verdict=each.verdict.or_by(policies)) for each in verdicts]
    return tuple(verdicts)

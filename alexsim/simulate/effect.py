"""Choices without effect: a choice that changes no figure was asked for by mistake."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from alexsim.errors import AlexsimError
from alexsim.simulate.simulation import Simulation


def without_effect(result: Simulation, others: Mapping[str, Callable[[], Simulation]]) -> str:
    """The first choice without which every figure is the same; empty if there is none.

    Args:
        result: the step with all choices.
        others: the step without each choice, or with the other of two; a step that cannot be
            simulated differs.
    """
    for choice, other in others.items():
        try:
            if other() == result:
                return choice
        except AlexsimError:
            continue
    return ""

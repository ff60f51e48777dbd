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


def refuse_idle(result: Simulation, others: Mapping[str, Callable[[], Simulation]]) -> None:
    """Refuse an option that changes nothing: it was meant to.

    Raises:
        AlexsimError: without one of ``others`` every figure is the same.
    """
    if idle := without_effect(result, others):
        why = next((why for option, why in _WHY_IDLE.items() if idle.startswith(option)), "")
        raise AlexsimError(f"{idle} changes no figure here{why}; leave it out")


_WHY_IDLE = {
    "--network": ": all GPUs are in one machine",
    "--transport": ": no GPU exchanges anything with another of its machine",
    "--precision pytorch": ": PyTorch's own is float32 on this card, by this library",
    "--set": ": nothing in this step depends on it",
}

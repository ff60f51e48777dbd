"""A whole recipe on a machine's virtual clock: what each of its stages takes. No torch in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from alexsim.errors import AlexsimError
from alexsim.simulate.records import Simulation
from alexsim.simulate.simulator import Configuration
from alexsim.train.recipe import Recipe, Stage

_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """One stage: how many epochs it lasts, and a step of it on the machine."""

    stage: Stage
    epochs: int
    simulation: Simulation
    days: float


def stage_times(
    recipe: Recipe,
    configuration: Configuration,
    simulate: Callable[[Configuration], Simulation],
    *,
    images: int,
    epochs: int,
) -> tuple[StageTimes, ...]:
    """Every stage that ``epochs`` passes over ``images`` reach; tests on the way take no time.

    Raises:
        AlexsimError: a stage freezes a layer that the network does not have.
    """
    layers = configuration.network.weighted_layers
    known: dict[tuple[str, ...], Simulation] = {}
    found = []
    for stage, count in recipe.spans(epochs):
        if strange := sorted(set(stage.frozen) - set(layers)):
            raise AlexsimError(
                f"the recipe freezes {', '.join(strange)}; layers with weights: {', '.join(layers)}"
            )
        if stage.frozen not in known:
            known[stage.frozen] = simulate(replace(configuration, frozen=stage.frozen))
        simulation = known[stage.frozen]
        found.append(
            StageTimes(
                stage=stage,
                epochs=count,
                simulation=simulation,
                days=count * images / simulation.batch_size * simulation.step_s / _DAY_S,
            )
        )
    return tuple(found)

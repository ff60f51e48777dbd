"""A whole recipe on a machine's virtual clock: what each of its stages takes. No torch in here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from alexsim.plan.spec import PlanSpec
from alexsim.recipe.recipe import Recipe, Stage
from alexsim.simulate.simulation import Interval, Simulation

_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A whole training run: days of some epochs, at one step's pace or stage by stage."""

    images: int
    epochs: int
    days: float
    days_interval: Interval
    recipe: str = ""
    """The recipe's name; empty where every step takes the same time."""
    stages: tuple[StageTimes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """One stage: how many epochs it lasts, and a step of it on the machine."""

    stage: Stage
    epochs: int
    simulation: Simulation
    days: float


def stage_times(
    recipe: Recipe,
    configuration: PlanSpec,
    simulate: Callable[[PlanSpec], Simulation],
    *,
    images: int,
    epochs: int,
) -> tuple[StageTimes, ...]:
    """Every stage that ``epochs`` passes over ``images`` reach; tests on the way take no time.

    Raises:
        NetworkError: a stage freezes a layer that the network does not have.
    """
    recipe.refuse_strange_layers(configuration.network.weighted_layers)
    layers = frozenset(configuration.network.weighted_layers)
    known: dict[tuple[str, ...], Simulation] = {}
    times = []
    for stage, count in recipe.spans(epochs):
        if stage.frozen not in known:
            learns = (configuration.trainable or layers) - set(stage.frozen)
            known[stage.frozen] = simulate(replace(configuration, trainable=learns))
        simulation = known[stage.frozen]
        times.append(
            StageTimes(
                stage=stage,
                epochs=count,
                simulation=simulation,
                days=count * images / simulation.batch_size * simulation.step_s / _DAY_S,
            )
        )
    return tuple(times)


def training_of(
    simulation: Simulation,
    *,
    images: int,
    epochs: int,
    recipe: str = "",
    stages: tuple[StageTimes, ...] = (),
) -> Training:
    """The run that a step, or the stages of a recipe, make; its bounds are as wide as theirs."""
    days, bounds = (
        simulation.training_days(images, epochs),
        simulation.training_days_interval(images, epochs),
    )
    if stages:
        days = sum(times.days for times in stages)
        each = [times.simulation.training_days_interval(images, times.epochs) for times in stages]
        bounds = Interval(low=sum(span.low for span in each), high=sum(span.high for span in each))
    return Training(
        images=images,
        epochs=epochs,
        days=days,
        days_interval=bounds,
        recipe=recipe,
        stages=stages,
    )

"""``alexsim recommend --json``."""

from __future__ import annotations

from typing import Annotated

from alexsim.documents.base import Document, From, Part
from alexsim.explore.pareto import Point
from alexsim.explore.recommend import Answered, Goal, Recommendation, command_of
from alexsim.network.network import Network


class Configuration(Part):
    """A configuration, and how it stands to the goal."""

    machine: Annotated[str, From(lambda point: point.settings["machine"])]
    gpus: int
    """Of all replicas."""
    batch_size: Annotated[int, From(lambda point: int(point.settings["batch"]))]
    partition: str
    precision: Annotated[str, From(lambda point: point.settings["precision"])]
    step_s: float
    images_per_s: float
    training_days: float
    training_days_interval: tuple[float, float]
    """It should hold nine such trainings in ten."""
    meets_goal: bool
    """As predicted."""
    surely_meets_goal: bool
    """At the upper bound of its step too."""
    memory_bytes: int
    """Of the fullest device."""
    device_memory_bytes: int
    """What is usable of a device's."""
    price_usd: float | None
    """Of all devices when they came out; null where a sheet states none."""
    energy_kwh: float
    """Of the training, at the data sheets' power."""
    command: Annotated[str, From(command_of)]
    """What shows it whole."""


class RecommendDocument(Document):
    """``alexsim recommend --json``."""

    network: str
    images: Annotated[int, From("goal.images")]
    """In an epoch."""
    epochs: Annotated[int, From("goal.epochs")]
    days: Annotated[float | None, From("goal.days")]
    """As asked for; so are the next two. null: not asked for."""
    images_per_s: Annotated[float | None, From("goal.images_per_s")]
    budget_usd: Annotated[float | None, From("goal.budget_usd")]
    least_images_per_s: Annotated[float, From("goal.least_images_per_s")]
    """What days or rate come to; 0 where neither was asked for."""
    answers: dict[Answered, Configuration]
    """Of those that meet the goal; empty where none does."""
    nearest: Configuration
    """The fastest; or, where the budget allows none, the fastest of the cheapest."""
    configurations: int
    """All combinations."""
    simulated: int
    left_out: dict[str, int]
    """How many were not simulated, by reason."""
    unpriced: int
    """Machines of which no sheet states a price: they are never the cheapest."""


def recommend_document(result: Recommendation, network: Network) -> RecommendDocument:
    """``alexsim recommend --json``."""
    return RecommendDocument.of(
        result,
        network=network.name,
        answers={
            name: _configuration(point, result.goal) for name, point in result.answers.items()
        },
        nearest=_configuration(result.nearest, result.goal),
    )


def _configuration(point: Point, goal: Goal) -> Configuration:
    return Configuration.of(
        point,
        training_days_interval=point.days_interval,
        meets_goal=goal.met(point),
        surely_meets_goal=goal.surely_met(point),
    )

"""What a run directory says beside its profile: its settings, steps, and held-out scores."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from pydantic import AliasChoices, ConfigDict, Field

from alexsim.documents.base import Part
from alexsim.documents.step import Finite
from alexsim.network.update_rules import Optimizer
from alexsim.plan.choices import Partition, Policy, Schedule


class Said(Finite):
    """A part that keeps whatever else was set: the page tells it as it stands."""

    model_config = ConfigDict(extra="allow")


class RunStage(Finite):
    """Some epochs with the same numbers."""

    from_epoch: int
    weight_rate: float
    bias_rate: float
    colour_noise: bool = False
    layer_rates: dict[str, float] = Field({})
    frozen: tuple[str, ...] = ()


class RunRecipe(Said):
    """What a run trained by."""

    title: str
    optimizer: Optimizer = "sgd-2012"
    stages: tuple[RunStage, ...]


class RunSettings(Said):
    """What a run was asked for; runs of earlier versions had nothing but columns."""

    network: str
    batch_size: int
    gpus: int
    partition: Partition = "columns"
    replicas: int = 1
    variable_batch: bool = False
    policy: Policy
    schedule: Schedule
    budget_bytes: Annotated[int, Ge(1)]
    steps: int
    recipe: RunRecipe | None = None


class RunConfig(Part):
    """``config.json``."""

    settings: RunSettings
    data_fingerprint: str = ""
    versions: dict[str, str]


class StepMetrics(Finite):
    """A training step's line of ``metrics.jsonl``; its loss is a number: by NaN a run ends."""

    step: int
    loss: float
    top1: float
    top5: float
    step_s: float
    data_wait_s: float


class Scores(Part):
    """What a test on held-out images says; NaN where the network puts that out."""

    loss: float
    top1: float
    top5: float


class HeldOutMetrics(Part):
    """A line that tells of images the run never trained on: on the way, or at its end."""

    step: int
    scores: Annotated[Scores, Field(validation_alias=AliasChoices("held_out", "validation"))]
    layers: dict[str, tuple[float, float]] = Field({})
    """Mean magnitude of each layer's weights, and of what the last update added to them."""

"""``alexsim train --json``, ``recipe list --json`` and ``recipe show --json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from alexsim.documents.base import Document, From, NetworkDocument, Number, Part
from alexsim.documents.simulation import StepParts
from alexsim.recipe.file import recipe_table
from alexsim.recipe.recipe import Recipe
from alexsim.simulate.simulation import ILSVRC_EPOCHS, ILSVRC_IMAGES, Simulation
from alexsim.train.settings import TrainResult


class ValidationRow(Part):
    """A test on held-out images while training went on."""

    step: int
    epoch: Annotated[int, From("validation.epoch")]
    images: Annotated[int, From("validation.images")]
    loss: Annotated[Number, From("validation.loss")]
    top1: Annotated[float, From("validation.top1")]
    top5: Annotated[float, From("validation.top5")]
    nan_images: Annotated[int, From("validation.nan_images")]


class BudgetedDevice(Part):
    """A virtual GPU's memory."""

    name: Annotated[str, From(lambda row: row[0][0])]
    budget_bytes: Annotated[int, From(lambda row: row[0][1])]
    peak_bytes: Annotated[int, From(lambda row: row[0][2])]
    process_bytes: Annotated[int | None, From(lambda row: row[1].get(row[0][0]))]
    """What the driver counts, where each has a process."""


class SimulatedRun(StepParts):
    """The run's step on another machine."""

    machine: str
    library: str
    step_s: float
    images_per_s: float
    training_days: Annotated[
        float, From(lambda step: step.training_days(ILSVRC_IMAGES, ILSVRC_EPOCHS))
    ]
    """Of a full run as the paper did it, whatever data this one had."""


def _held_out(name: str) -> From:
    return From(lambda run: getattr(run.held_out, name) if run.held_out else None)


class TrainDocument(NetworkDocument):
    """``alexsim train --json``; errors are fractions, null where nothing was tested."""

    network: Annotated[str, From("settings.network")]
    batch_size: Annotated[int, From("settings.batch_size")]
    steps: int
    losses: tuple[float, ...]
    """Mean of each step."""
    held_out_loss: Annotated[Number | None, _held_out("loss")]
    top1: Annotated[float | None, _held_out("top1")]
    top5: Annotated[float | None, _held_out("top5")]
    nan_images: Annotated[int | None, _held_out("nan_images")]
    """Held-out images for which the network puts out NaN."""
    validations: tuple[ValidationRow, ...]
    images_per_s: float
    """Median, waiting for data included."""
    compute_images_per_s: float
    data_share: float
    """Share of the time that steps waited for data."""
    threads: Annotated[int, From("settings.threads")]
    devices: Annotated[
        tuple[BudgetedDevice, ...],
        From(lambda run: [(device, run.process_bytes) for device in run.devices]),
    ]
    exchanged_bytes_per_step: int
    reduced_bytes_per_step: int
    simulated: SimulatedRun
    cards: tuple[str, ...]
    joules_per_image: float | None
    broken_files: Annotated[tuple[str, ...], From("broken")]
    interrupted: bool
    run_dir: str


def train_document(result: TrainResult, machine: str, simulated: Simulation) -> TrainDocument:
    """``alexsim train --json``; ``machine`` as it was asked for."""
    return TrainDocument.of(result, simulated=SimulatedRun.of(simulated, machine=machine))


class RecipeStage(Part):
    """Some epochs with the same numbers."""

    from_epoch: int
    weight_rate: float
    bias_rate: float
    colour_noise: bool
    layer_rates: dict[str, float]
    frozen: tuple[str, ...]


class RecipeValidation(Part):
    """When held-out images are tested, and how many of them; 0 for all."""

    every_images: int = 0
    every_epochs: int = 0
    images: int = 0


class RecipePlateau(Part):
    """Rates fall after ``patience`` tests without a new best."""

    divide_by: float
    times: int
    patience: int


class RecipeRow(Part):
    """A recipe, with the constants of its own update rule."""

    name: str
    title: str
    epochs: int
    momentum: float
    weight_decay: float
    augmentation: str
    normalisation: str
    validation: RecipeValidation | None = None
    stages: tuple[RecipeStage, ...]
    plateau: RecipePlateau | None = None
    optimizer: str
    nesterov: bool | None = None
    decay_all: bool | None = None
    beta2: float | None = None
    epsilon: float | None = None


class RecipesDocument(Document):
    """``alexsim recipe list --json``, and of one recipe ``recipe show --json``."""

    recipes: tuple[RecipeRow, ...]


def recipes_document(recipes: Mapping[str, Recipe]) -> RecipesDocument:
    """``alexsim recipe list --json``."""
    rows = [{"name": name} | recipe_table(recipe) for name, recipe in recipes.items()]
    return RecipesDocument.of(recipes=rows)

"""A recipe with what a command line changes of it."""

from __future__ import annotations

from dataclasses import replace

from alexsim.data.augmentation import Augmentation, Normalisation
from alexsim.errors import ProfileError
from alexsim.network.update_rules import Optimizer
from alexsim.recipe.recipe import Recipe


def adjusted(
    recipe: Recipe,
    *,
    optimizer: Optimizer | None,
    learning_rate: float | None,
    bias_rate: float | None,
    augmentation: Augmentation | None,
    normalisation: Normalisation | None,
    colour_noise: bool | None,
) -> Recipe:
    """The recipe with what is not None; a rate is that of its first stage, and scales all of them.

    Raises:
        ProfileError: the update rule has no rate of biases; or the first stage's rate is 0.
    """
    if optimizer:
        recipe = recipe.updated_by(optimizer)
    if bias_rate is not None and recipe.optimizer != "sgd-2012":
        raise ProfileError(
            f"--bias-rate is for --optimizer sgd-2012; {recipe.optimizer} has one rate for"
            " everything, --learning-rate"
        )
    first = recipe.stages[0]
    weights = _factor("--learning-rate", learning_rate, first.weight_rate)
    biases = _factor("--bias-rate", bias_rate, first.bias_rate)
    # One rate for both is what --learning-rate alone means; 2012's biases keep their factor.
    weights = 1.0 if weights is None else weights
    recipe = recipe.scaled(weights, weights if biases is None else biases)
    if augmentation is not None:
        recipe = replace(recipe, augmentation=augmentation)
    if normalisation is not None:
        recipe = replace(recipe, normalisation=normalisation)
    if colour_noise is not None:
        stages = tuple(replace(stage, colour_noise=colour_noise) for stage in recipe.stages)
        recipe = replace(recipe, stages=stages)
    return recipe


def _factor(option: str, value: float | None, of: float) -> float | None:
    """What makes ``of`` the rate that was given."""
    if value is None:
        return None
    if not of:
        raise ProfileError(f"{option}: the recipe's first rate is 0, and cannot be scaled")
    return value / of

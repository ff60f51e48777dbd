"""Recipes' files: TOML, in ``alexsim_profiles/recipes`` or of one's own. No torch in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexsim.errors import ProfileError, known_as
from alexsim.machine.sheet import find, names
from alexsim.recipe.defaults import training_defaults
from alexsim.recipe.recipe import CONSTANTS, Recipe
from alexsim.typed import read


def recipe_name(network: str) -> str:
    """The recipe that an edition and its variants are trained with."""
    return training_defaults(network).recipe


def recipe_names() -> tuple[str, ...]:
    """Recipes that ship with alexsim."""
    return names("recipes")


def as_written(name: str) -> str:
    """A recipe's name as lists have it; what is not known stays."""
    return known_as(name, recipe_names()) or name


def load_recipe(name: str) -> Recipe:
    """A shipped recipe, or the TOML file at that path.

    Raises:
        ProfileError: there is none, or a key is missing, unknown or out of range.
    """
    return recipe_from(*find("recipes", name, what="recipe"))


def recipe_text(name: str) -> str:
    """A recipe's file as it stands.

    Raises:
        ProfileError: there is none, or it is not in order.
    """
    load_recipe(name)
    if name.endswith(".toml"):
        return Path(name).read_text(encoding="utf-8")
    file = files("alexsim_profiles") / "recipes" / f"{as_written(name)}.toml"
    return file.read_text(encoding="utf-8")


def recipe_from(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from a file's table; ``where`` is for messages.

    Raises:
        ProfileError: a key is missing, unknown or out of range.
    """
    return read(Recipe, completed(table, where), where)


def completed(table: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The table with what PyTorch's rules need not be told: biases decay, and have the weights'
    rate.

    Raises:
        ProfileError: it has a constant of another rule, or two intervals of one validation.
    """
    optimizer = table.get("optimizer", "sgd-2012")
    if not isinstance(optimizer, str):
        return table
    known: Mapping[str, tuple[str, ...]] = CONSTANTS  # type: ignore[assignment]
    for other, constants in known.items():
        for name in constants:
            if name in table and name not in known.get(optimizer, constants):
                rule = f"optimizer {other}, not of {optimizer}"
                raise ProfileError(f"{where}: {name} is a constant of {rule}")
    validation = table.get("validation")
    if isinstance(validation, Mapping) and {"every_images", "every_epochs"} <= validation.keys():
        raise ProfileError(f"{where}: validation: give every_images or every_epochs")
    if optimizer == "sgd-2012":
        return table
    stages = table.get("stages")
    if isinstance(stages, list):
        stages = [
            {"bias_rate": stage["weight_rate"], **stage}
            if isinstance(stage, Mapping) and "weight_rate" in stage
            else stage
            for stage in stages
        ]
    return {"decay_all": True, **table} | ({"stages": stages} if "stages" in table else {})


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """What ``recipe_from`` reads."""
    table = asdict(recipe)
    for name in {name for constants in CONSTANTS.values() for name in constants}:
        if name not in CONSTANTS[recipe.optimizer]:
            del table[name]
    if recipe.validation:
        every = {"every_images", "every_epochs"}
        table["validation"] = {k: v for k, v in table["validation"].items() if v or k not in every}
    return {key: value for key, value in table.items() if value is not None}

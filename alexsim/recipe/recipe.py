"""Recipes: the numbers of a training run that are not in the network. No torch in here.

A recipe is a TOML file, in ``alexsim_profiles/recipes`` or of one's own: rates by stages of epochs,
layers that are frozen, what is drawn per image, and how often the held-out images are tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexsim.data.augmentation import (
    AUGMENTATIONS,
    NORMALISATIONS,
    Augmentation,
    Normalisation,
    Preparation,
)
from alexsim.errors import NetworkError, ProfileError, known_as, unknown
from alexsim.machine.sheet import find, names
from alexsim.network.update_rules import BETA2, EPSILON, OPTIMIZERS, Optimizer
from alexsim.recipe.defaults import training_defaults

_CONSTANTS: dict[Optimizer, tuple[str, ...]] = {
    "sgd-2012": (),
    "sgd": ("decay_all", "nesterov"),
    "adamw": ("beta2", "decay_all", "epsilon"),
}
"""What a rule may be given beside momentum, which every one has, and weight decay."""
_ALL_CONSTANTS = tuple(dict.fromkeys(name for own in _CONSTANTS.values() for name in own))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some epochs with the same numbers, from ``from_epoch`` (the first is 1) on."""

    from_epoch: int
    weight_rate: float
    bias_rate: float
    """Only ``sgd-2012`` has one; it is the weights' with the other rules."""
    colour_noise: bool
    layer_rates: tuple[tuple[str, float], ...] = ()
    """Rates of single layers, by name: of their weights, or with one rate for everything, of all
    their parameters."""
    frozen: tuple[str, ...] = ()
    """Layers whose weights stay: the plan drops their gradients, and what only led to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """When held-out images are tested while training goes on, and how many; 0 for all of them.

    After so many images, or after so many epochs: one of the two is 0.
    """

    every_images: int = 0
    every_epochs: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """Rates fall when validation stops improving: after ``patience`` tests without a new best."""

    divide_by: float
    times: int
    patience: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    ``augmentation``: ``2012`` draws one crop and mirror per 32 consecutive images and colour noise
    of 0.1 deviations before dividing by 1.1, as the released code does; ``paper`` draws everything
    per image, noise 0.1 times the principal components (section 4.1).
    ``normalisation``: ``mean-image`` subtracts the training set's mean image from pixels 0...255;
    ``channels`` scales to 0...1 and applies ImageNet's channel means and deviations.
    """

    title: str
    epochs: int
    momentum: float
    """``adamw``'s beta1."""
    weight_decay: float
    augmentation: Augmentation
    normalisation: Normalisation
    validation: Validation | None
    stages: tuple[Stage, ...]
    plateau: Plateau | None = None
    optimizer: Optimizer = "sgd-2012"
    """By which rule weights are updated: see ``alexsim.network.update_rules``."""
    nesterov: bool = False
    """Of ``sgd``."""
    decay_all: bool = False
    """Whether biases, scales and shifts decay as weights do: true in a file that does not say, with
    ``sgd`` and ``adamw``, as PyTorch has it; never with ``sgd-2012``."""
    beta2: float = BETA2
    """Of ``adamw``, as ``epsilon``."""
    epsilon: float = EPSILON

    def stage(self, epoch: int) -> Stage:
        """The stage of an epoch; the first epoch is 1."""
        return next(one for one in reversed(self.stages) if one.from_epoch <= epoch)

    @property
    def preparation(self) -> Preparation:
        """What it does to images, epoch by epoch."""
        return Preparation(
            augmentation=self.augmentation,
            normalisation=self.normalisation,
            colour_noise=tuple((one.from_epoch, one.colour_noise) for one in self.stages),
        )

    def spans(self, epochs: int) -> tuple[tuple[Stage, int], ...]:
        """Every stage that ``epochs`` reach, and how many epochs it lasts."""
        ends = [*(one.from_epoch for one in self.stages[1:]), epochs + 1]
        found = (
            (stage, min(end, epochs + 1) - stage.from_epoch)
            for stage, end in zip(self.stages, ends, strict=True)
        )
        return tuple((stage, count) for stage, count in found if count > 0)

    def refuse_strange_layers(self, layers: Sequence[str]) -> None:
        """Every layer that it freezes or gives a rate must be one of ``layers``, with weights.

        Raises:
            NetworkError: one is not.
        """
        for stage in self.stages:
            named = {*stage.frozen, *(layer for layer, _ in stage.layer_rates)}
            for strange in sorted(named - set(layers)):
                raise NetworkError(
                    f"the recipe, from epoch {stage.from_epoch}:"
                    f" {unknown('layer with weights', strange, layers)}"
                )

    def freezing(self, layers: tuple[str, ...]) -> Recipe:
        """The same with these layers frozen in every stage as well."""
        stages = tuple(
            replace(stage, frozen=tuple(dict.fromkeys((*layers, *stage.frozen))))
            for stage in self.stages
        )
        return replace(self, stages=stages)

    def updated_by(self, optimizer: Optimizer) -> Recipe:
        """The same with another update rule, whose own constants are those that PyTorch gives it.

        Rates stay: what a rule makes of a rate is for whoever chooses it to know.
        """
        if optimizer == self.optimizer:
            return self
        stages = self.stages
        if optimizer != "sgd-2012":
            stages = tuple(replace(stage, bias_rate=stage.weight_rate) for stage in stages)
        return replace(
            self,
            optimizer=optimizer,
            stages=stages,
            nesterov=False,
            decay_all=optimizer != "sgd-2012",
            beta2=BETA2,
            epsilon=EPSILON,
        )

    @property
    def only_first_stage(self) -> Recipe:
        """The same with constant numbers, and no tests on the way."""
        return replace(self, stages=self.stages[:1], validation=None, plateau=None)

    def scaled(self, weights: float, biases: float) -> Recipe:
        """The same with every rate times a factor."""
        return replace(
            self,
            stages=tuple(
                replace(
                    stage,
                    weight_rate=stage.weight_rate * weights,
                    bias_rate=stage.bias_rate * biases,
                    layer_rates=tuple((la, rate * weights) for la, rate in stage.layer_rates),
                )
                for stage in self.stages
            ),
        )


def reductions(errors: Sequence[float], plateau: Plateau) -> int:
    """How often the rates have fallen after these validation errors, oldest first."""
    best, waited, fallen = float("inf"), 0, 0
    for error in errors:
        best, waited = (error, 0) if error < best else (best, waited + 1)
        if waited >= plateau.patience and fallen < plateau.times:
            fallen, waited = fallen + 1, 0
    return fallen


def recipe_name(network: str) -> str:
    """The recipe that an edition and its variants are trained with."""
    return training_defaults(network).recipe


def recipe_names() -> tuple[str, ...]:
    """Recipes that ship with alexsim."""
    return names("recipes")


def load_recipe(name: str) -> Recipe:
    """A shipped recipe, or the TOML file at that path.

    Raises:
        ProfileError: there is none, or a key is missing, unknown or out of range.
    """
    table, where = find("recipes", name, what="recipe")
    return recipe_from(table, where)


def recipe_text(name: str) -> str:
    """A recipe's file as it stands.

    Raises:
        ProfileError: there is none, or it is not in order.
    """
    load_recipe(name)
    if name.endswith(".toml"):
        return Path(name).read_text(encoding="utf-8")
    file = files("alexsim_profiles") / "recipes" / f"{known_as(name, recipe_names())}.toml"
    return file.read_text(encoding="utf-8")


def recipe_from(table: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from a table with exactly its keys; ``where`` is for messages."""
    _keys(
        table,
        needed=("title", "epochs", "momentum", "weight_decay", "augmentation", "normalisation"),
        allowed=(
            "validation", "stages", "plateau", "optimizer",
            *_ALL_CONSTANTS,
        ),
        where=where,
    )  # fmt: skip
    optimizer = _optimizer(table, where)
    stages = table.get("stages")
    if not isinstance(stages, Sequence) or not stages:
        raise ProfileError(f"{where}: it needs at least one [[stages]]")
    made = tuple(
        _stage(one, f"{where}: stage {n}", optimizer) for n, one in enumerate(stages, start=1)
    )
    starts = [one.from_epoch for one in made]
    if starts[0] != 1 or sorted(set(starts)) != starts:
        raise ProfileError(f"{where}: stages must begin at epoch 1 and go on in order: {starts}")
    return Recipe(
        title=str(table["title"]),
        epochs=_whole(table, "epochs", where, least=1),
        momentum=_number(table, "momentum", where, below=1.0),
        weight_decay=_number(table, "weight_decay", where),
        augmentation=_word(table, "augmentation", AUGMENTATIONS, where),
        normalisation=_word(table, "normalisation", NORMALISATIONS, where),
        validation=_validation(table.get("validation"), f"{where}: validation"),
        stages=made,
        plateau=_plateau(table.get("plateau"), f"{where}: plateau"),
        optimizer=optimizer,
        **_constants(table, optimizer, where),
    )


def _optimizer(table: Mapping[str, Any], where: str) -> Optimizer:
    """The rule that is named, or that of 2012; and no constant of another."""
    optimizer: Optimizer = "sgd-2012"
    if "optimizer" in table:
        optimizer = _word(table, "optimizer", OPTIMIZERS, where)
    for other, constants in _CONSTANTS.items():
        for name in constants:
            if name in table and name not in _CONSTANTS[optimizer]:
                raise ProfileError(
                    f"{where}: {name} is a constant of optimizer {other}, not of {optimizer}"
                )
    return optimizer


def _constants(table: Mapping[str, Any], optimizer: Optimizer, where: str) -> dict[str, Any]:
    """The rule's own constants, those that are not given as PyTorch has them."""
    found: dict[str, Any] = {}
    for name in _CONSTANTS[optimizer]:
        if name in ("nesterov", "decay_all"):
            found[name] = _truth(table, name, where, default=name == "decay_all")
        elif name in table:
            found[name] = _number(table, name, where, below=1.0)
    if found.get("nesterov") and not table["momentum"]:
        raise ProfileError(f"{where}: nesterov looks ahead along the momentum, which is 0")
    if found.get("epsilon") == 0:
        raise ProfileError(f"{where}: epsilon must be above 0: it keeps quotients finite")
    return found


def recipe_table(recipe: Recipe) -> dict[str, Any]:
    """What ``recipe_from`` reads."""
    table = asdict(recipe)
    for stage in table["stages"]:
        stage["layer_rates"] = dict(stage["layer_rates"])
        stage["frozen"] = list(stage["frozen"])
    table["stages"] = list(table["stages"])
    for name in _ALL_CONSTANTS:
        if name not in _CONSTANTS[recipe.optimizer]:
            del table[name]
    if recipe.validation:
        table["validation"] = {key: value for key, value in table["validation"].items() if value}
        table["validation"].setdefault("images", 0)
    return {key: value for key, value in table.items() if value is not None}


def _stage(table: object, where: str, optimizer: Optimizer) -> Stage:
    given = _table(table, where)
    one_rate = optimizer != "sgd-2012"
    if one_rate and "weight_rate" in given:
        given = {"bias_rate": given["weight_rate"]} | dict(given)
    _keys(
        given,
        needed=("from_epoch", "weight_rate", "bias_rate", "colour_noise"),
        allowed=("layer_rates", "frozen"),
        where=where,
    )
    if one_rate and given["bias_rate"] != given["weight_rate"]:
        raise ProfileError(
            f"{where}: optimizer {optimizer} has one rate for everything: leave bias_rate out"
        )
    rates = _table(given.get("layer_rates", {}), f"{where}: layer_rates")
    frozen = given.get("frozen", [])
    if not isinstance(frozen, list) or not all(isinstance(name, str) for name in frozen):
        raise ProfileError(f"{where}: frozen must be a list of layers, got {frozen!r}")
    return Stage(
        from_epoch=_whole(given, "from_epoch", where, least=1),
        weight_rate=_number(given, "weight_rate", where),
        bias_rate=_number(given, "bias_rate", where),
        colour_noise=_truth(given, "colour_noise", where),
        layer_rates=tuple((name, _number(rates, name, where)) for name in rates),
        frozen=tuple(frozen),
    )


def _validation(table: object, where: str) -> Validation | None:
    if table is None:
        return None
    given = _table(table, where)
    _keys(given, needed=("images",), allowed=("every_images", "every_epochs"), where=where)
    every = [key for key in ("every_images", "every_epochs") if key in given]
    if len(every) != 1:
        raise ProfileError(f"{where}: give every_images or every_epochs")
    return Validation(
        images=_whole(given, "images", where, least=0),
        **{every[0]: _whole(given, every[0], where, least=1)},
    )


def _plateau(table: object, where: str) -> Plateau | None:
    if table is None:
        return None
    given = _table(table, where)
    _keys(given, needed=("divide_by", "times", "patience"), allowed=(), where=where)
    divide_by = _number(given, "divide_by", where)
    if divide_by <= 1:
        raise ProfileError(f"{where}: divide_by must be above 1, got {divide_by:g}")
    return Plateau(
        divide_by=divide_by,
        times=_whole(given, "times", where, least=1),
        patience=_whole(given, "patience", where, least=1),
    )


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ProfileError(f"{where} must be a table, got {value!r}")
    return value


def _keys(
    table: Mapping[str, Any], *, needed: tuple[str, ...], allowed: tuple[str, ...], where: str
) -> None:
    missing = sorted(set(needed) - table.keys())
    extra = sorted(table.keys() - set(needed) - set(allowed))
    if missing or extra:
        raise ProfileError(f"{where}: missing keys {missing}, unknown keys {extra}")


def _number(table: Mapping[str, Any], key: str, where: str, below: float = float("inf")) -> float:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < below:
        limit = f" and < {below:g}" if below != float("inf") else ""
        raise ProfileError(f"{where}: {key} must be a number >= 0{limit}, got {value!r}")
    return float(value)


def _truth(table: Mapping[str, Any], key: str, where: str, default: bool | None = None) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise ProfileError(f"{where}: {key} must be true or false")
    return value


def _whole(table: Mapping[str, Any], key: str, where: str, *, least: int) -> int:
    value = table[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ProfileError(f"{where}: {key} must be a whole number >= {least}, got {value!r}")
    return value


def _word(table: Mapping[str, Any], key: str, allowed: tuple[Any, ...], where: str) -> Any:
    if table[key] not in allowed:
        raise ProfileError(f"{where}: {key} must be one of {', '.join(allowed)}")
    return table[key]

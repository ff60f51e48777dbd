"""Recipes: the numbers of a training run that are not in the network. No torch in here.

Rates by stages of epochs, layers that are frozen, what is drawn per image, and how often held-out
images are tested. ``alexsim.recipe.file`` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen

from alexsim.data.augmentation import Augmentation, Normalisation, Preparation
from alexsim.errors import NetworkError, ProfileError, unknown
from alexsim.network.update_rules import BETA2, EPSILON, Optimizer

Rate = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
"""Below 1."""
Positive = Annotated[int, Ge(1)]

CONSTANTS: dict[Optimizer, tuple[str, ...]] = {
    "sgd-2012": (),
    "sgd": ("decay_all", "nesterov"),
    "adamw": ("beta2", "decay_all", "epsilon"),
}
"""What a rule may be given beside momentum, which every one has, and weight decay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some epochs with the same numbers, from ``from_epoch`` (the first is 1) on."""

    from_epoch: Positive
    weight_rate: Rate
    bias_rate: Rate
    """Only ``sgd-2012`` has one; it is the weights' with the other rules."""
    colour_noise: bool
    layer_rates: Mapping[str, Rate] = field(default_factory=dict)
    """Rates of single layers, by name: of their weights, or with one rate for everything, of all
    their parameters."""
    frozen: tuple[str, ...] = ()
    """Layers whose weights stay: the plan drops their gradients, and what only led to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """When held-out images are tested while training goes on, and how many; 0 for all of them.

    After so many images, or after so many epochs: one of the two is 0.
    """

    every_images: Annotated[int, Ge(0)] = 0
    every_epochs: Annotated[int, Ge(0)] = 0
    images: Annotated[int, Ge(0)]

    def __post_init__(self) -> None:
        if bool(self.every_images) == bool(self.every_epochs):
            raise ProfileError("give every_images or every_epochs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """Rates fall when validation stops improving: after ``patience`` tests without a new best."""

    divide_by: Annotated[float, Gt(1)]
    times: Positive
    patience: Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    ``augmentation``: ``2012`` draws one crop and mirror per 32 consecutive images and colour noise
    of 0.1 deviations before dividing by 1.1, as the released code does; ``paper`` draws everything
    per image, noise 0.1 times the principal components (section 4.1); ``crops`` is the same
    without mirrors.
    ``normalisation``: ``mean-image`` subtracts the training set's mean image from pixels 0...255;
    ``channels`` scales to 0...1 and applies ImageNet's channel means and deviations.
    """

    title: str
    epochs: Annotated[Positive, Le(2**53)]
    momentum: Share
    """``adamw``'s beta1."""
    weight_decay: Rate
    augmentation: Augmentation
    normalisation: Normalisation
    validation: Validation | None = None
    stages: Annotated[tuple[Stage, ...], MinLen(1)]
    plateau: Plateau | None = None
    optimizer: Optimizer = "sgd-2012"
    """By which rule weights are updated: see ``alexsim.network.update_rules``."""
    nesterov: bool = False
    """Of ``sgd``."""
    decay_all: bool = False
    """Whether biases, scales and shifts decay as weights do: true in a file that does not say, with
    ``sgd`` and ``adamw``, as PyTorch has it; never with ``sgd-2012``."""
    beta2: Share = BETA2
    """Of ``adamw``, as ``epsilon``."""
    epsilon: Annotated[float, Gt(0), Lt(1)] = EPSILON

    def __post_init__(self) -> None:
        starts = [stage.from_epoch for stage in self.stages]
        if starts[0] != 1 or sorted(set(starts)) != starts:
            raise ProfileError(f"stages must begin at epoch 1 and go on in order: {starts}")
        for n, stage in enumerate(self.stages):
            if self.optimizer != "sgd-2012" and stage.bias_rate != stage.weight_rate:
                raise ProfileError(
                    f"stages[{n}]: optimizer {self.optimizer} has one rate for everything: leave"
                    " bias_rate out"
                )
        if self.nesterov and not self.momentum:
            raise ProfileError("nesterov looks ahead along the momentum, which is 0")

    def stage(self, epoch: int) -> Stage:
        """The stage of an epoch; the first epoch is 1."""
        return next(stage for stage in reversed(self.stages) if stage.from_epoch <= epoch)

    @property
    def preparation(self) -> Preparation:
        """What it does to images, epoch by epoch."""
        return Preparation(
            augmentation=self.augmentation,
            normalisation=self.normalisation,
            colour_noise=tuple((stage.from_epoch, stage.colour_noise) for stage in self.stages),
        )

    def spans(self, epochs: int) -> tuple[tuple[Stage, int], ...]:
        """Every stage that ``epochs`` reach, and how many epochs it lasts."""
        ends = [*(stage.from_epoch for stage in self.stages[1:]), epochs + 1]
        counts = (
            (stage, min(end, epochs + 1) - stage.from_epoch)
            for stage, end in zip(self.stages, ends, strict=True)
        )
        return tuple((stage, count) for stage, count in counts if count > 0)

    def refuse_strange_layers(self, layers: Sequence[str]) -> None:
        """Every layer that it freezes or gives a rate must be one of ``layers``, with weights.

        Raises:
            NetworkError: one is not.
        """
        for stage in self.stages:
            named = {*stage.frozen, *stage.layer_rates}
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
                    layer_rates={la: rate * weights for la, rate in stage.layer_rates.items()},
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

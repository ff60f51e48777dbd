"""Recipes: the numbers of a training run that are not in the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Augmentation = Literal["2012", "paper"]
Normalisation = Literal["mean-image", "channels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    ``augmentation``: ``2012`` draws one crop and mirror per 32 consecutive images and colour noise
    of 0.1 deviations before dividing by 1.1, as the released code does; ``paper`` draws everything
    per image, noise 0.1 times the principal components (section 4.1).
    ``normalisation``: ``mean-image`` subtracts the training set's mean image from pixels 0...255;
    ``channels`` scales to 0...1 and applies ImageNet's channel means and deviations.
    """

    weight_rate: float
    bias_rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0005
    augmentation: Augmentation
    normalisation: Normalisation
    colour_noise: bool


_AS_RUN = Recipe(
    weight_rate=0.01,
    bias_rate=0.02,
    augmentation="2012",
    normalisation="mean-image",
    colour_noise=True,
)
_PAPER = Recipe(
    weight_rate=0.01,
    bias_rate=0.01,
    augmentation="paper",
    normalisation="mean-image",
    colour_noise=True,
)
_MODERN = Recipe(
    weight_rate=0.01,
    bias_rate=0.01,
    augmentation="paper",
    normalisation="channels",
    colour_noise=False,
)

_RECIPES = {
    "alexnet-2012": _AS_RUN,
    "alexnet-1gpu": _AS_RUN,
    "alexnet-6conv": _AS_RUN,
    "alexnet-paper": _PAPER,
}


def recipe_of(network: str) -> Recipe:
    """The recipe that an edition was trained with; normalised images and one rate for others."""
    return _RECIPES.get(network, _MODERN)

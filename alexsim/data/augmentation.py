"""What may be drawn per image, and how pixels are normalised. Neither numpy nor torch in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Augmentation = Literal["2012", "paper", "crops"]
"""``2012``: a crop and a mirror per 32 consecutive images, as the released code draws them;
``paper``: everything per image; ``crops``: the same without mirrors, for images that mean something
else in a mirror, as digits do."""
Normalisation = Literal["mean-image", "channels"]
"""``mean-image`` subtracts the training set's mean image; ``channels`` applies means and deviations
per channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """What is done to an image between its file and the network."""

    augmentation: Augmentation = "2012"
    normalisation: Normalisation = "mean-image"
    colour_noise: tuple[tuple[int, bool], ...] = ((1, True),)
    """Whether colours are noisy, from which epoch on; the first epoch is 1."""

    def noisy(self, epoch: int) -> bool:
        """Whether the training images of an epoch have noise along the principal colours."""
        return next(noisy for start, noisy in reversed(self.colour_noise) if start <= epoch)

"""What stands between a minibatch's bytes and what a network reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from alexsim.data.statistics import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Normalising:
    """How bytes become floating: ``(byte + noise - mean) / deviation * factor``, in this order.

    Every step is rounded to the type of what the network reads, so a step that changes nothing may
    be left out. The paper's section 4.1 has mirrored images and noise; the rest is in the recipe.
    """

    mean: Floats
    """``[H, W, C]``, subtracted from every image, mirrored or not."""
    deviation: Floats | None
    """``[C]``, or None: not divided."""
    noise: Floats
    """``[N, C]``, of each image."""
    factor: Floats
    """``[N]``, of each image."""
    mirrored: NDArray[np.bool_]
    """``[N]``: whether an image's bytes are to be mirrored first, left to right."""

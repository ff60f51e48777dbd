"""Boosted trees that multiply a mechanism: what measured kernels have taught, as plain arrays.

All trees of a forest are oblivious: every node of a level asks the same question, so that a tree of
depth d is d comparisons and a table of 2^d values, and a forest is a few operations of numpy.
``alexsim.fidelity.kernel_fit`` fits and writes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

from alexsim.errors import ProfileError
from alexsim.simulate.costs.cost import Kind, Learned
from alexsim.simulate.costs.features import NAMES

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees of equal depth d; each comparison ``features[feature] > threshold`` is a bit, the first
    the highest, of the index into the tree's 2^d values, whose sum is the logarithm of a factor."""

    bias: float
    feature: np.ndarray
    """Index of the feature that each level asks of: trees x d."""
    threshold: np.ndarray
    """trees x d"""
    value: np.ndarray
    """trees x 2^d"""
    _known: dict[tuple[float, ...], float] = field(default_factory=dict, repr=False)

    def log_factor(self, features: tuple[float, ...]) -> float:
        """Logarithm of what the mechanism's time is multiplied by."""
        known = self._known.get(features)
        if known is None:
            import numpy as np

            known = float(self.log_factors(np.array([features]))[0])
            if len(self._known) > _MOST:
                self._known.clear()
            self._known[features] = known
        return known

    def log_factors(self, features: np.ndarray) -> np.ndarray:
        """The same for rows of features."""
        import numpy as np

        trees, depth = self.feature.shape
        place = (1 << np.arange(depth))[::-1]
        start = np.arange(trees) << depth
        values = self.value.reshape(-1)
        sums = np.empty(len(features))
        # Some rows at a time: a row's comparisons are trees x d numbers.
        for first in range(0, len(features), _AT_A_TIME):
            asked = features[first : first + _AT_A_TIME][:, self.feature]
            index = (asked > self.threshold) @ place + start
            sums[first : first + _AT_A_TIME] = values[index].sum(axis=1)
        return sums + self.bias


_MOST, _AT_A_TIME = 100_000, 500

Forests = Mapping[Kind, Forest]


@cache
def load_forests() -> Forests:
    """The forests that are shipped.

    Raises:
        ProfileError: the file is not of this version's features.
    """
    import numpy as np

    source = files("alexsim_profiles") / "measurements" / "forests.npz"
    with source.open("rb") as stream, np.load(cast(Any, stream), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    forests: dict[Kind, Forest] = {}
    for kind, names in NAMES.items():
        if arrays[f"{kind}.names"].tolist() != list(names):
            raise ProfileError(f"{source}: its features of a {kind} are not this version's")
        forests[kind] = Forest(
            bias=float(arrays[f"{kind}.bias"]),
            feature=arrays[f"{kind}.feature"].astype(np.intp),
            threshold=arrays[f"{kind}.threshold"].astype(np.float64),
            value=arrays[f"{kind}.value"].astype(np.float64),
        )
    return forests


def forests_bytes(forests: Forests) -> bytes:
    """As the file that ``load_forests`` reads."""
    import io

    import numpy as np

    arrays: dict[str, Any] = {}
    for kind, forest in forests.items():
        arrays |= {
            f"{kind}.names": np.array(NAMES[kind]),
            f"{kind}.bias": np.float64(forest.bias),
            f"{kind}.feature": forest.feature.astype(np.uint8),
            f"{kind}.threshold": forest.threshold.astype(np.float32),
            f"{kind}.value": forest.value.astype(np.float16),
        }
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def log_factor(forests: Forests, learned: Learned | None) -> float:
    """Logarithm of a piece's factor; 0 where nothing was learned."""
    if learned is None or learned.kind not in forests:
        return 0.0
    value = forests[learned.kind].log_factor(learned.features)
    assert math.isfinite(value)
    return value

"""Boosted trees that multiply a mechanism: what measured kernels have taught, as plain arrays.

All trees of a forest are oblivious: every node of a level asks the same question, so that a tree of
depth d is d comparisons and a table of 2^d values, and a forest is a few operations of numpy.
``alexsim.fidelity.kernel_fit`` grows them, ``alexsim.fidelity.fit_files`` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alexsim.costs.cost import REALMS, Kind, Learned, Realm
from alexsim.costs.features import NAMES
from alexsim.errors import ProfileError

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
    low: np.ndarray
    high: np.ndarray
    """The least and the largest value of each feature in what was measured."""
    _known: dict[tuple[float, ...], float] = field(default_factory=dict, repr=False)
    _inside: dict[tuple[float, ...], bool] = field(default_factory=dict, repr=False)

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

    def inside(self, features: tuple[float, ...]) -> bool:
        """Whether every feature lies within what was measured."""
        known = self._inside.get(features)
        if known is None:
            pairs = zip(features, self.low.tolist(), self.high.tolist(), strict=True)
            # The bounds are kept in single precision.
            slack = 1e-4
            known = all(
                low - slack * abs(low) <= value <= high + slack * abs(high)
                for value, low, high in pairs
            )
            if len(self._inside) > _MOST:
                self._inside.clear()
            self._inside[features] = known
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

Forests = Mapping[tuple[Kind, Realm], Forest]


def forests_from(arrays: Mapping[str, np.ndarray], source: str) -> Forests:
    """Forests from the arrays of a file.

    Raises:
        ProfileError: they are not of this version's features.
    """
    import numpy as np

    for kind, names in NAMES.items():
        if arrays[f"{kind}.names"].tolist() != list(names):
            raise ProfileError(f"{source}: its features of a {kind} are not this version's")
    return {
        (kind, realm): Forest(
            bias=float(arrays[f"{kind}.{realm}.bias"]),
            feature=arrays[f"{kind}.{realm}.feature"].astype(np.intp),
            threshold=arrays[f"{kind}.{realm}.threshold"].astype(np.float64),
            value=arrays[f"{kind}.{realm}.value"].astype(np.float64),
            low=arrays[f"{kind}.{realm}.low"].astype(np.float64),
            high=arrays[f"{kind}.{realm}.high"].astype(np.float64),
        )
        for kind in NAMES
        for realm in REALMS
        if f"{kind}.{realm}.bias" in arrays
    }


def log_factor(forests: Forests, learned: Learned | None) -> float:
    """Logarithm of a piece's factor; 0 where nothing was learned."""
    if learned is None:
        return 0.0
    forest = forests.get((learned.kind, learned.realm))
    return forest.log_factor(learned.features) if forest else 0.0


def inside(forests: Forests, learned: Learned | None) -> bool | None:
    """Whether a piece's shape lies within what was measured; None where nothing was."""
    if learned is None:
        return None
    forest = forests.get((learned.kind, learned.realm))
    return forest.inside(learned.features) if forest else None

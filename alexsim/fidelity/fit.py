"""Fitting corrections to published figures: Bayesian least squares on logarithms.

A figure is the sum of corrected pieces, so its logarithm is not linear in the coefficients; a few
Gauss-Newton steps find the most probable coefficients, and the curvature there is the inverse of
their covariance (Laplace's approximation). Outlying figures count less (Huber's weights). The least
time of a piece at the device's peaks is left out here: it has a kink, and no figure needs it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from alexsim.costs.correction import Correction, Waits, prior_width
from alexsim.costs.cost import OF_HOST, Cost
from alexsim.costs.trees import log_factor
from alexsim.simulate.simulation import NINE_IN_TEN

_STEPS = 12
_OUTLIER = 2.0
"""Residuals beyond this many deviations are weighted down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One figure: its pieces of cost, and what was measured."""

    id: str
    ops: Sequence[Sequence[Cost]]
    """Pieces of each op."""
    waits: Waits = "step"
    """When its host waited for the device."""
    measured_s: float
    noise: float
    """Relative scatter expected of such a figure, from its trust mark and rounding."""


def fit(
    observations: Sequence[Observation], base: Correction, *, given: bool = False
) -> Correction:
    """The most probable coefficients, given the figures and the priors.

    Args:
        observations: the figures.
        base: its trees multiply the mechanism.
        given: take the coefficients of ``base`` and their covariance as what is known before.
    """
    taught = {t for o in observations for costs in o.ops for cost in costs for t in cost.traits}
    known = base.traits if given else ()
    traits = [*known, *sorted(taught - set(known))]
    width = np.array([prior_width(trait) for trait in traits])
    precision = np.diag(1 / width**2)
    prior = np.zeros(len(traits))
    if given and base.covariance is not None:
        count = len(known)
        precision[:count, :count] = np.linalg.inv(base.covariance + 1e-9 * np.eye(count))
        prior[:count] = [base.coefficients[trait] for trait in known]
    model = _Model(observations, traits, base)
    beta = prior.copy()
    target = np.log([o.measured_s for o in observations])
    sigma = np.array([o.noise for o in observations])
    for _ in range(_STEPS):
        design, predicted = model.linearised(beta)
        residual = target - predicted
        weight = np.minimum(1.0, _OUTLIER * sigma / np.maximum(np.abs(residual), 1e-12)) / sigma**2
        normal = design.T @ (weight[:, None] * design) + precision
        right = design.T @ (weight * (residual + design @ beta)) + precision @ prior
        beta = np.linalg.solve(normal, right)
    return replace(
        base,
        coefficients=dict(zip(traits, beta.tolist(), strict=True)),
        traits=tuple(traits),
        covariance=np.linalg.inv(normal),
    )


def nine_in_ten(misses: Sequence[float] | np.ndarray) -> float:
    """Standard deviation of a normal distribution that holds nine of ten where these are.

    Tails are heavier than a normal distribution's, so the range of nine in ten counts.
    """
    return float(np.quantile(np.abs(misses), 0.9)) / NINE_IN_TEN


class _Model:
    """Every observation's pieces, summed for any coefficients."""

    def __init__(
        self, observations: Sequence[Observation], traits: Sequence[str], base: Correction
    ) -> None:
        columns: dict[tuple[str, ...], int] = {}
        seconds, column, op, row = [], [], [], []
        ops = 0
        for place, observation in enumerate(observations):
            for costs in observation.ops:
                for cost in costs:
                    learned = math.exp(log_factor(base.forests, cost.learned))
                    seconds.append(cost.seconds * learned)
                    column.append(columns.setdefault(cost.traits, len(columns)))
                    op.append(ops)
                    row.append(place)
                ops += 1
        self._seconds = np.array(seconds)
        self._column, self._op, self._row = np.array(column), np.array(op), np.array(row)
        self._ops, self._rows = ops, len(observations)
        counts = np.array([len(observation.ops) for observation in observations])
        self._first = np.concatenate(([0], counts.cumsum()[:-1]))
        self._row_of_op = np.repeat(np.arange(self._rows), counts)
        self._waits = np.array([observation.waits for observation in observations])
        index = {trait: i for i, trait in enumerate(traits)}
        self._traits = np.zeros((len(columns), len(traits)))
        of_host = np.zeros(len(columns), bool)
        for kind, place in columns.items():
            self._traits[place, [index[trait] for trait in kind]] = 1
            of_host[place] = bool(kind) and kind[0] in OF_HOST
        self._of_host = of_host[self._column]

    def linearised(self, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Share of each trait in each figure, and the logarithm of each predicted figure.

        Of pieces those count that set the pace, as ``alexsim.costs.correction.paced`` says.
        """
        corrected = self._seconds * np.exp(self._traits @ beta)[self._column]
        host = np.bincount(self._op, corrected * self._of_host, self._ops)
        device = np.bincount(self._op, corrected * ~self._of_host, self._ops)
        late = host.cumsum() - (device.cumsum() - device)
        latest = np.maximum.reduceat(late, self._first)
        last = np.full(self._rows, self._ops)
        place = np.flatnonzero(late == latest[self._row_of_op])
        np.minimum.at(last, self._row_of_op[place], place)
        slow = np.add.reduceat(host, self._first) > np.add.reduceat(device, self._first)
        last[self._waits == "never"] = np.where(slow, self._ops, -1)[self._waits == "never"]
        last = last[self._row]
        hidden = np.where(self._of_host, self._op > last, self._op < last)
        corrected[hidden & (self._waits != "op")[self._row]] = 0.0
        columns = len(self._traits)
        cell = self._row * columns + self._column
        sums = np.bincount(cell, corrected, self._rows * columns).reshape(self._rows, columns)
        total = sums.sum(axis=1)
        return sums / total[:, None] @ self._traits, np.log(total)

"""Fitting corrections to published figures: Bayesian least squares on logarithms.

A figure is the sum of corrected pieces, so its logarithm is not linear in the coefficients; a few
Gauss-Newton steps find the most probable ones, and the curvature there their covariance (Laplace's
approximation). Outlying figures count less (Huber's weights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alexsim.simulate.correction import Correction, prior_width
from alexsim.simulate.records import NINE_IN_TEN

_STEPS = 12
_OUTLIER = 2.0
"""Residuals beyond this many deviations are weighted down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One figure: its pieces of cost by traits, in seconds, and what was measured."""

    id: str
    pieces: Mapping[tuple[str, ...], float]
    measured_s: float
    noise: float
    """Relative scatter expected of such a figure, from its trust mark and rounding."""


def fit(observations: Sequence[Observation], *, fitted_to: str) -> Correction:
    """The most probable coefficients, given the figures and the priors."""
    traits = sorted({t for o in observations for piece in o.pieces for t in piece})
    index = {trait: i for i, trait in enumerate(traits)}
    width = np.array([prior_width(trait) for trait in traits])
    beta = np.zeros(len(traits))
    members = [
        (
            np.array(list(o.pieces.values())),
            [np.array([index[t] for t in piece], dtype=int) for piece in o.pieces],
        )
        for o in observations
    ]
    target = np.log([o.measured_s for o in observations])
    sigma = np.array([o.noise for o in observations])
    precision = np.diag(1 / width**2)
    for _ in range(_STEPS):
        design, predicted = _linearised(members, beta, len(traits))
        residual = target - predicted
        weight = np.minimum(1.0, _OUTLIER * sigma / np.maximum(np.abs(residual), 1e-12)) / sigma**2
        normal = design.T @ (weight[:, None] * design) + precision
        right = design.T @ (weight * (residual + design @ beta))
        beta = np.linalg.solve(normal, right)
    design, predicted = _linearised(members, beta, len(traits))
    residual = target - predicted
    # Tails are heavier than a normal distribution's: what holds nine residuals in ten counts.
    noise = float(np.quantile(np.abs(residual), 0.9)) / NINE_IN_TEN
    covariance = np.linalg.inv(normal)
    return Correction(
        coefficients={trait: float(beta[i]) for trait, i in index.items()},
        covariance={
            trait: {other: float(covariance[i, j]) for other, j in index.items()}
            for trait, i in index.items()
        },
        noise=max(noise, 0.02),
        fitted_to=fitted_to,
    )


def _linearised(
    members: list[tuple[np.ndarray, list[np.ndarray]]], beta: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Share of each trait in each figure, and the logarithm of each predicted figure."""
    design = np.zeros((len(members), count))
    predicted = np.zeros(len(members))
    for row, (seconds, indices) in enumerate(members):
        corrected = seconds * np.exp([beta[i].sum() for i in indices])
        total = corrected.sum()
        predicted[row] = np.log(total)
        for share, where in zip(corrected / total, indices, strict=True):
            design[row, where] += share
    return design, predicted

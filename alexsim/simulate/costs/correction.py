"""Corrections of cost models: what fitting published figures has taught, and how sure it is.

A piece of cost is multiplied by the exponential of the sum of its traits' coefficients. Every
coefficient has a normal prior around 0 (the mechanism as worked out) whose width depends on the
kind of trait; measurements move it. What is left over gives each prediction its interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from alexsim.errors import ProfileError
from alexsim.simulate.costs.cost import Cost
from alexsim.simulate.costs.trees import Forests, load_forests, log_factor
from alexsim.strict_json import json_text
from alexsim.typed import parse

PRIOR_WIDTHS = {
    "library": 0.4,
    "architecture": 0.25,
    "precision": 0.7,
    "fc": 0.4,
    "memory": 0.3,
    "elementwise": 0.5,
    "im2col": 0.5,
    "family": 0.4,
    "overhead": 0.7,
}
"""Standard deviation of the logarithm that a trait's coefficient has before any measurement."""


def prior_width(trait: str) -> float:
    """Width of a trait's prior; that of its first word. Interactions are narrower."""
    words = trait.split(":")
    if words[0] == "family" and words[-1] == "overhead":
        return 1.0
    return PRIOR_WIDTHS[words[0]] * (0.6 if len(words) > 2 else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """Coefficients by trait, and their covariance.

    ``noise`` is the relative scatter of one measurement around its prediction.
    """

    coefficients: Mapping[str, float]
    covariance: Mapping[str, Mapping[str, float]]
    noise: float
    fitted_to: str
    roofline_noise: float = 0.15
    """The same scatter around the roofline, which nothing corrects."""

    forests: Forests = field(default_factory=dict)
    """Trees by kind of call; empty: the mechanism as worked out."""

    def time(self, cost: Cost) -> float:
        """Corrected seconds of a piece of cost; never faster than the device's peaks allow."""
        coefficients = self.coefficients
        logarithm = sum([coefficients.get(trait, 0.0) for trait in cost.traits])
        logarithm += log_factor(self.forests, cost.learned)
        return max(cost.seconds * math.exp(logarithm), cost.least_s)

    def spread(self, gradient: Mapping[str, float]) -> float:
        """Standard deviation of the logarithm of a time.

        ``gradient``: share of the time that each trait multiplies. Traits that no measurement had
        keep the width of their prior.
        """
        variance = self.noise**2
        for trait, share in gradient.items():
            row = self.covariance.get(trait)
            if row is None:
                variance += (share * prior_width(trait)) ** 2
                continue
            variance += share * sum(row.get(other, 0.0) * s for other, s in gradient.items())
        return math.sqrt(max(variance, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionFile:
    """The same as a file: traits, their coefficients, and the covariance's lower triangle."""

    fitted_to: str
    noise: float
    roofline_noise: float
    traits: tuple[str, ...]
    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        count = len(self.traits)
        rows = [len(row) for row in self.covariance]
        if len(self.coefficients) != count or rows != [*range(1, count + 1)]:
            raise ProfileError(f"coefficients and covariance are not those of {count} traits")


def scatter(noise: float) -> Correction:
    """No correction; figures lie around predictions with this relative scatter."""
    return Correction(coefficients={}, covariance={}, noise=noise, fitted_to="nothing")


UNFITTED = scatter(0.15)
"""The mechanism alone; its intervals are those of the priors."""


@cache
def load_correction() -> Correction:
    """What was fitted to the published rows and shipped.

    Raises:
        ProfileError: the file is malformed.
    """
    source = files("alexsim_profiles") / "measurements" / "correction.json"
    stored = parse(CorrectionFile, source.read_text(encoding="utf-8"), str(source))
    return Correction(
        coefficients=dict(zip(stored.traits, stored.coefficients, strict=True)),
        covariance=_Triangle(stored.traits, stored.covariance),
        noise=stored.noise,
        roofline_noise=stored.roofline_noise,
        fitted_to=stored.fitted_to,
        forests=load_forests(),
    )


def correction_of(library: str) -> Correction:
    """What is shipped for a library; nothing corrects the roofline, but its errors are known."""
    shipped = load_correction()
    return scatter(shipped.roofline_noise) if library == "roofline" else shipped


class _Triangle(Mapping[str, Mapping[str, float]]):
    """Rows of a symmetric matrix stored as its lower triangle, made when they are asked for."""

    def __init__(self, traits: Sequence[str], triangle: Sequence[Sequence[float]]) -> None:
        self._index = {trait: i for i, trait in enumerate(traits)}
        self._triangle = triangle
        self._made: dict[str, dict[str, float]] = {}

    def __getitem__(self, key: str) -> dict[str, float]:
        if key not in self._made:
            i, triangle = self._index[key], self._triangle
            self._made[key] = {
                other: triangle[max(i, j)][min(i, j)] for other, j in self._index.items()
            }
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


def correction_document(correction: Correction) -> dict[str, Any]:
    """A correction as JSON: traits, coefficients, and the covariance's lower triangle."""
    traits = tuple(sorted(correction.coefficients))
    return asdict(
        CorrectionFile(
            fitted_to=correction.fitted_to,
            noise=round(correction.noise, 5),
            roofline_noise=round(correction.roofline_noise, 5),
            traits=traits,
            coefficients=tuple(round(correction.coefficients[trait], 5) for trait in traits),
            covariance=tuple(
                tuple(float(f"{correction.covariance[a][b]:.3g}") for b in traits[: i + 1])
                for i, a in enumerate(traits)
            ),
        )
    )


def correction_text(correction: Correction) -> str:
    """As a JSON file with one trait, and one row of the covariance, per line."""
    document = correction_document(correction)
    rows = document.pop("covariance")
    head = json_text(document, indent=1).removesuffix("\n}")
    lines = ",\n".join(json.dumps(row, separators=(",", ":"), allow_nan=False) for row in rows)
    return f'{head},\n "covariance": [\n{lines}\n]}}\n'

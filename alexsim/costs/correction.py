"""Corrections of cost models: what measured kernels and published figures have taught, and how sure
it is.

A piece of cost is multiplied by what trees say of its shape (``trees``), and by the exponential of
the sum of its traits' coefficients. Every coefficient has a normal prior around 0 whose width
depends on the kind of trait; published figures move it. The scatter of what fits like it had not
seen gives each prediction its interval (``card``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from alexsim.costs.card import EMPTY, Card, ErrorClass, Unit
from alexsim.costs.cost import OF_HOST, Cost
from alexsim.costs.trees import Forests, forests_from, log_factor
from alexsim.errors import ProfileError
from alexsim.machine.device import Device
from alexsim.typed import parse

if TYPE_CHECKING:
    import numpy as np

Waits = Literal["step", "op", "never"]
"""When a host waits for the device: at a step's end; for each op; or never, in a loop in which the
slower of the two sets the pace."""

PRIOR_WIDTHS = {
    "library": 0.3,
    "architecture": 0.15,
    "device": 0.14,
    "precision": 0.4,
    "fc": 0.2,
    "memory": 0.15,
    "elementwise": 0.3,
    "im2col": 0.5,
    "family": 0.4,
    "overhead": 0.7,
    "host": 1.8,
    "upload": 1.5,
}
"""Standard deviation of the logarithm that a trait's coefficient has before any measurement. A
device's is what one number per device and source takes from the trees' errors on devices unseen."""


def prior_width(trait: str) -> float:
    """Width of a trait's prior; that of its first word. Interactions are narrower."""
    words = trait.split(":")
    if words[0] == "family" and words[-1] == "overhead":
        return 0.6 if len(words) < 4 else 0.5
    return PRIOR_WIDTHS[words[0]] * (0.6 if len(words) > 2 else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correction:
    """Coefficients by trait, their covariance, and the trees.

    ``traits`` name the rows and columns of ``covariance``.
    """

    coefficients: Mapping[str, float] = field(default_factory=dict)
    traits: Sequence[str] = ()
    covariance: np.ndarray | None = None
    forests: Forests = field(default_factory=dict)
    """Trees by kind of call; empty: the mechanism as worked out."""
    card: Card = EMPTY
    evidence: str = ""
    """What it was conditioned on beside the shipped fit; empty: nothing."""
    alike: frozenset[str] = frozenset()
    """Devices, by name, that the evidence is of."""
    alike_noise: float = 0.0
    """Scatter of the evidence's own rows, each predicted from the others."""

    def time(self, cost: Cost) -> float:
        """Corrected seconds of a piece of cost; never faster than the device's peaks allow."""
        coefficients = self.coefficients
        logarithm = sum([coefficients.get(trait, 0.0) for trait in cost.traits])
        logarithm += log_factor(self.forests, cost.learned)
        return max(cost.seconds * math.exp(logarithm), cost.least_s)

    def times(self, ops: Sequence[Sequence[Cost]], *, waits: Waits = "step") -> list[list[float]]:
        """Corrected seconds of the pieces of ops that follow each other, which add up to the time
        that all of them take.

        The host issues ops in order, and goes on while the device computes: what either does
        meanwhile takes no time.

        Args:
            ops: pieces of each.
            waits: when the host does.
        """
        times = [[self.time(cost) for cost in costs] for costs in ops]
        return paced(ops, times, waits)

    def error_class(
        self, unit: Unit, device: Device, library: str, *, reduced: bool
    ) -> ErrorClass | None:
        """Errors of the class that a prediction belongs to; None where none is known."""
        return self.card.error_of(
            unit,
            device_seen=device.name in self.card.devices,
            library_seen=library in self.card.libraries,
            reduced=reduced,
            platform=device.architecture.platform,
        )

    def variance(self, shares: Mapping[str, float]) -> float:
        """Variance of the logarithm of a time by its coefficients alone.

        ``shares``: share of the time that each trait multiplies. Traits that no measurement had
        keep the width of their prior.
        """
        index = {trait: i for i, trait in enumerate(self.traits)}
        known = [(index[trait], share) for trait, share in shares.items() if trait in index]
        total = sum(
            (share * prior_width(trait)) ** 2
            for trait, share in shares.items()
            if trait not in index
        )
        if known and self.covariance is not None:
            places = [place for place, _ in known]
            weights = [share for _, share in known]
            part = self.covariance[places][:, places]
            total += float(part.dot(weights).dot(weights))
        return max(total, 0.0)

    def spread(
        self, shares: Mapping[str, float], error: ErrorClass | None, device: str = ""
    ) -> float:
        """Standard deviation of the logarithm of a time.

        The class's own, from fits that had not seen what it says. Without a class: the scatter of
        the figures, and the coefficients'. Where further evidence was given of the device, the
        scatter of its own rows and what the coefficients still leave open, if that is less; of
        another device, what the coefficients left open before makes room for what they do now.
        """
        if error is None:
            return math.sqrt(self.card.noise**2 + self.variance(shares))
        if not self.evidence:
            return error.noise
        after = self.variance(shares)
        if device in self.alike:
            return min(error.noise, math.hypot(self.alike_noise, math.sqrt(after)))
        left = error.noise**2 - max(load_correction().variance(shares) - after, 0.0)
        return math.sqrt(max(left, error.noise**2 / 4))


_HOSTS = [(trait,) for trait in OF_HOST]


def paced_by_host(ops: Sequence[Sequence[Cost]], times: Sequence[Sequence[float]]) -> int:
    """The last op that the device waits for until the host has issued it; -1: none.

    Op j ends no sooner than all up to it are issued and it has run; all ops behind it follow. So
    they take the largest, over j, of the host's time up to j and the kernels' from j on.
    """
    issued_s, kernels_s, latest_s, last = 0.0, 0.0, 0.0, -1
    for place, (costs, seconds) in enumerate(zip(ops, times, strict=True)):
        host_s = sum([s for c, s in zip(costs, seconds, strict=True) if c.traits[:1] in _HOSTS])
        issued_s += host_s
        # How much later the device is done if it waits for this op to be issued.
        if host_s and (late_s := issued_s - kernels_s) > latest_s:
            latest_s, last = late_s, place
        kernels_s += sum(seconds) - host_s
    return last


def paced(
    ops: Sequence[Sequence[Cost]], times: Sequence[Sequence[float]], waits: Waits = "step"
) -> list[list[float]]:
    """Seconds of pieces that set the pace; 0 of the others, which run beside them.

    Of a step the host's count up to some op, and the kernels' from there on.
    """
    if waits == "op":
        return [list(taken) for taken in times]
    if waits == "never":
        summed = [0.0, 0.0]
        for costs, taken in zip(ops, times, strict=True):
            for cost, seconds in zip(costs, taken, strict=True):
                summed[cost.of_host] += seconds
        host = summed[True] > summed[False]
        return [
            [s if cost.of_host == host else 0.0 for cost, s in zip(costs, taken, strict=True)]
            for costs, taken in zip(ops, times, strict=True)
        ]
    last = paced_by_host(ops, times)
    return [
        [
            0.0 if (place > last if cost.of_host else place < last) else seconds
            for cost, seconds in zip(costs, taken, strict=True)
        ]
        for place, (costs, taken) in enumerate(zip(ops, times, strict=True))
    ]


def scatter(noise: float) -> Correction:
    """No correction; figures lie around predictions with this relative scatter."""
    from dataclasses import replace

    return Correction(card=replace(EMPTY, noise=noise))


UNFITTED = scatter(0.15)
"""The mechanism alone; its intervals are those of the priors."""


@cache
def load_card() -> Card:
    """The card of the shipped fit.

    Raises:
        ProfileError: the file is malformed.
    """
    source = files("alexsim_profiles") / "measurements" / "fit.json"
    return parse(Card, source.read_text(encoding="utf-8"), str(source))


@cache
def load_correction() -> Correction:
    """What was fitted to measured kernels and published figures, and shipped.

    Raises:
        ProfileError: the files are malformed, or not of this version's features.
    """
    import numpy as np

    source = files("alexsim_profiles") / "measurements" / "fit.npz"
    with source.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    traits = tuple(arrays["traits"].tolist())
    coefficients = arrays["coefficients"].astype(np.float64)
    triangle = arrays["covariance"].astype(np.float64)
    if len(coefficients) != len(traits) or len(triangle) != len(traits) * (len(traits) + 1) // 2:
        raise ProfileError(f"{source}: not the coefficients of {len(traits)} traits")
    covariance = np.zeros((len(traits), len(traits)))
    lower = np.tril_indices(len(traits))
    covariance[lower] = triangle
    covariance.T[lower] = triangle
    return Correction(
        coefficients=dict(zip(traits, coefficients.tolist(), strict=True)),
        traits=traits,
        covariance=covariance,
        forests=forests_from(arrays, str(source)),
        card=load_card(),
    )


def correction_of(library: str) -> Correction:
    """What is shipped for a library; nothing corrects the roofline, but its errors are known."""
    return scatter(load_card().roofline_noise) if library == "roofline" else load_correction()

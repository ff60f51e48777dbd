"""Configurations of a sweep, and those that no other beats: the Pareto set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One configuration and its result, or the line that says why there is none."""

    settings: Mapping[str, str]
    gpus: int = 0
    """Of all replicas."""
    partition: str = ""
    """How they share a step."""
    step_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    images_per_s: float = 0.0
    training_days: float = 0.0
    utilisation: float = 0.0
    utilisation_counts: str = ""
    """As in a simulation."""
    memory_bytes: int = 0
    device_memory_bytes: int = 0
    """What is usable of a device's."""
    fits: bool = False
    energy_kwh: float = 0.0
    """Of all devices in the training run, at their data sheets' power."""
    price_usd: float | None = None
    """Of all devices when they came out; None where a sheet states none."""
    pareto: bool = False
    """Whether it fits and no other that fits beats it: see ``with_pareto``."""
    error: str = ""
    figures: str = ""
    """Digest of all simulated figures: equal only where nothing differs."""

    @property
    def days_interval(self) -> tuple[float, float]:
        """Bounds of the training's days."""
        steps_days = self.training_days / self.step_s
        return steps_days * self.low_s, steps_days * self.high_s


def objectives(points: Sequence[Point]) -> tuple[str, ...]:
    """What is compared: time, memory, energy; and price, if that of every configuration is known.

    Configurations that do not fit their memory, or make no sense, do not count.
    """
    able = [point for point in points if point.fits and not point.error]
    priced = bool(able) and all(point.price_usd is not None for point in able)
    return ("training_days", "memory_bytes", "energy_kwh", *(("price_usd",) if priced else ()))


def with_pareto(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points, with those marked that fit and that no other fitting point beats.

    A point beats another that is nowhere better and somewhere worse; equal points do not beat each
    other.
    """
    names = objectives(points)
    able = [
        (tuple(getattr(point, name) for name in names), index)
        for index, point in enumerate(points)
        if point.fits and not point.error
    ]
    front: list[tuple[float, ...]] = []
    best = set()
    # A point that beats another comes before it in this order.
    for values, index in sorted(able):
        if any(other != values and _nowhere_better(values, other) for other in front):
            continue
        front.append(values)
        best.add(index)
    return tuple(
        replace(point, pareto=True) if index in best else point
        for index, point in enumerate(points)
    )


def _nowhere_better(values: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return all(value >= other_value for value, other_value in zip(values, other, strict=True))

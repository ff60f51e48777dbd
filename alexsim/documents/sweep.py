"""``alexsim sweep --json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from alexsim.documents.base import ABSENT, Document, From, Part
from alexsim.explore.pareto import Point


def _unless_failed(source: Callable[[Any], Any]) -> From:
    """A figure of a configuration that could be simulated."""
    return From(lambda point: ABSENT if point.error else source(point))


class PointResult(Part):
    """A configuration: its figures, or the line that says why there are none."""

    settings: Annotated[dict[str, str], From(lambda point: dict(point.settings))]
    error: Annotated[str, From(lambda point: point.error or ABSENT)] = ""
    gpus: Annotated[int | None, _unless_failed(lambda p: p.gpus)] = None
    """Of all replicas."""
    partition: Annotated[str, _unless_failed(lambda p: p.partition)] = ""
    """How they share a step."""
    step_s: Annotated[float | None, _unless_failed(lambda p: p.step_s)] = None
    step_s_interval: Annotated[
        tuple[float, float] | None, _unless_failed(lambda p: (p.low_s, p.high_s))
    ] = None
    images_per_s: Annotated[float | None, _unless_failed(lambda p: p.images_per_s)] = None
    training_days: Annotated[float | None, _unless_failed(lambda p: p.training_days)] = None
    utilisation: Annotated[float | None, _unless_failed(lambda p: p.utilisation)] = None
    utilisation_counts: Annotated[str, _unless_failed(lambda p: p.utilisation_counts)] = ""
    memory_bytes: Annotated[int | None, _unless_failed(lambda p: p.memory_bytes)] = None
    """Of the fullest device."""
    fits: Annotated[bool | None, _unless_failed(lambda p: p.fits)] = None
    energy_kwh: Annotated[float | None, _unless_failed(lambda p: p.energy_kwh)] = None
    price_usd: Annotated[float | None, _unless_failed(lambda p: p.price_usd)] = None
    pareto: bool
    """Whether it has a result, fits, and no other that fits beats it."""


class SweepDocument(Document):
    """``alexsim sweep --json``."""

    images: int
    """In an epoch."""
    epochs: int
    points: tuple[PointResult, ...]


def sweep_document(points: Sequence[Point], *, images: int, epochs: int) -> SweepDocument:
    """``alexsim sweep --json``."""
    return SweepDocument.of(points=tuple(points), images=images, epochs=epochs)


class GridDocument(Document):
    """``alexsim sweep --dry-run --json``."""

    configurations: tuple[dict[str, str], ...]


def grid_document(configurations: Sequence[Mapping[str, str]]) -> GridDocument:
    """``alexsim sweep --dry-run --json``."""
    return GridDocument.of(configurations=[dict(each) for each in configurations])

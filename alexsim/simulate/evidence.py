"""What a prediction rests on: what the fit has seen of it, and how far off its like were."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from alexsim.costs.card import ErrorClass
from alexsim.costs.cost import Cost
from alexsim.costs.trees import inside
from alexsim.simulate.timer import Timer


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Of one prediction; rows are those that the shipped fit was fitted to."""

    device: str
    device_rows: int
    """Timed kernels and published figures of the device; 0: never seen."""
    library: str
    library_rows: int
    """Published figures with the library; 0: never seen."""
    inside: float
    """Share of the computing time in calls whose shapes lie within what was measured."""
    learned: float
    """Share of the computing time in calls of which kernels were measured at all."""
    rows: int
    """All that the fit was fitted to."""
    error: ErrorClass | None
    """Errors of predictions like this one; None where there are none, or this machine was
    measured."""
    given: str
    """What was given beside the shipped fit; empty: nothing."""


def evidence_of(timer: Timer, costs: Iterable[Cost]) -> Evidence:
    """What the timer's prediction of these pieces rests on."""
    correction, device = timer.correction, timer.machine.device.basis
    card = correction.card
    whole, known, within = 0.0, 0.0, 0.0
    for cost in costs:
        whole += cost.seconds
        covered = inside(correction.forests, cost.learned)
        if covered is not None:
            known += cost.seconds
            within += cost.seconds if covered else 0.0
    error = None
    if timer.calibration is None and timer.library.name != "roofline":
        reduced = timer.best_precision != "fp32"
        error = correction.error_class("network", device, timer.library.name, reduced=reduced)
    return Evidence(
        device=device.name,
        device_rows=card.devices.get(device.name, 0),
        library=timer.library.name,
        library_rows=card.libraries.get(timer.library.name, 0),
        inside=within / whole if math.isfinite(whole) and whole else 0.0,
        learned=known / whole if math.isfinite(whole) and whole else 0.0,
        rows=sum(card.devices.values()),
        error=error,
        given=correction.evidence,
    )

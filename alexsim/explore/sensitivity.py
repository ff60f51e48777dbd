"""How a prediction depends on its assumptions, changed one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from alexsim.costs.correction import Correction
from alexsim.machine.machine import Machine, changed
from alexsim.simulate.simulation import Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """An assumption, its change, and the step's time over its time before."""

    assumption: str
    change: str
    ratio: float


Simulate = Callable[[Machine, Correction], Simulation]


def sensitivities(
    run: Simulate, machine: Machine, correction: Correction, traits: tuple[str, ...]
) -> tuple[Sensitivity, ...]:
    """Sensitivities, the largest first.

    Args:
        run: simulates the same configuration on another machine or with another correction.
        machine: the machine that is predicted.
        correction: the coefficients in use.
        traits: coefficients that are moved by one standard deviation.
    """
    base = run(machine, correction).step_s
    changes = []
    for key, value, change in (
        ("device.clock_hz", machine.device.clock_hz.value * 0.9, "-10 %"),
        ("device.memory_bytes_per_s", machine.device.memory_bytes_per_s.value * 0.9, "-10 %"),
        ("link.bytes_per_s", machine.link.bytes_per_s.value / 2, "half"),
        ("link.latency_s", machine.link.latency_s.value * 10, "x 10"),
        ("decode_images_per_s", machine.decode_images_per_s.value / 2, "half"),
        ("disk_bytes_per_s", machine.disk_bytes_per_s.value / 2, "half"),
    ):
        if key.startswith("device.") and machine.devices:
            continue  # unlike cards have no number in common
        other = changed(machine, {key: value})
        changes.append((key, change, run(other, correction).step_s / base))
    for trait in traits:
        # The coefficient's uncertainty, without the scatter of single measurements.
        width = math.sqrt(correction.variance({trait: 1.0}))
        moved = {**correction.coefficients}
        moved[trait] = moved.get(trait, 0.0) + width
        shifted = replace(correction, coefficients=moved)
        change = f"{100 * width:+.0f} % (1 s.d.)"
        changes.append((trait, change, run(machine, shifted).step_s / base))
    rows = [Sensitivity(assumption=a, change=c, ratio=r) for a, c, r in changes]
    return tuple(sorted(rows, key=lambda row: -abs(row.ratio - 1)))


def traits_of(library: str, machine: Machine) -> tuple[str, ...]:
    """Traits of the corrections that apply to most of a step's time."""
    architecture = machine.device.architecture.name
    if library == "roofline":
        return ()
    return (
        f"library:{library}",
        *(f"library:{library}:{kind}" for kind in ("forward", "grad_input", "grad_weight")),
        f"architecture:{architecture}",
        "memory",
    )

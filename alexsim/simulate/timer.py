"""What times an op: a library's cost model on a machine, or measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alexsim.machine.machine import Machine
from alexsim.simulate.costs.correction import Correction
from alexsim.simulate.costs.cost import Cost, Precision, Work
from alexsim.simulate.costs.libraries import Library
from alexsim.simulate.costs.measured import Calibration

DataPath = Literal["jpeg", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """Times ops: a library's cost model on a device, corrected by what was fitted."""

    machine: Machine
    library: Library
    correction: Correction
    precision: Precision = "fp32"
    calibration: Calibration | None = None
    """Measurements of this machine, which take the place of every model."""

    def costs(self, work: Work) -> list[Cost]:
        """Pieces of an op's time, corrected."""
        device, correction = self.machine.device, self.correction
        return [
            cost.lasting(correction.time(cost))
            for cost in self.library.costs(device, work, self.precision, correction)
        ]

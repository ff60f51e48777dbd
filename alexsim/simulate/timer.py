"""What times an op: a library's cost model on a machine, or measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from alexsim.costs.correction import Correction
from alexsim.costs.cost import Cost, Precision, Work
from alexsim.costs.libraries import Library, load_library_for
from alexsim.costs.measured import Calibration
from alexsim.costs.precision import StepPrecision, best_precision, op_precision
from alexsim.errors import ProfileError
from alexsim.machine.machine import Machine
from alexsim.plan.plan import PASS_OF, OpKind

DataPath = Literal["jpeg", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timer:
    """Times ops: a library's cost model on a machine's devices, corrected by what was fitted."""

    machine: Machine
    library: Library
    correction: Correction
    precision: StepPrecision = "fp32"
    calibration: Calibration | None = None
    """Measurements of this machine, which take the place of every model."""
    faster: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """What-if: how many times as fast as these a layer's pass is, by their names."""

    @property
    def best_precision(self) -> Precision:
        """The fastest precision of any op on the first device."""
        return self.best_on(0)

    def best_on(self, index: int) -> Precision:
        """The same on another device."""
        return best_precision(self.precision, self.machine.device_at(index), self.library.name)

    @property
    def scales_loss(self) -> bool:
        """Whether gradients are checked and divided before an update: float16 has few exponents
        (PyTorch's ``GradScaler``), bfloat16 as many as float32."""
        cards = self.machine.devices or (self.machine.device,)
        return self.precision == "amp" and any(card.half_type == "fp16" for card in cards)

    def costs(self, work: Work, index: int = 0) -> list[Cost]:
        """Pieces of an op's time, corrected: its kernels', and the host's to issue it; ``index`` is
        the place of the device that runs it."""
        device, correction = self.machine.device_at(index), self.correction
        precision = op_precision(self.precision, device, self.library.name, work)
        times = self.times_as_fast(work.part.layer.name, work.kind)
        costs = self.library.costs(device, work, precision)
        return [
            cost.lasting(seconds / times)
            for cost, seconds in zip(costs, map(correction.time, costs), strict=True)
        ]

    def times_as_fast(self, layer: str, kind: OpKind) -> float:
        """What an op's time is divided by; 1 but for a what-if's ops that compute."""
        if not self.faster or kind.activity != "computing":
            return 1.0
        return self.faster.get((layer, PASS_OF.get(kind, "forward")), 1.0)


def timer_of(
    library: str,
    machine: Machine,
    correction: Correction,
    precision: StepPrecision = "fp32",
    calibration: Calibration | None = None,
) -> Timer:
    """A timer by the library of that name.

    Raises:
        ProfileError: there is no such library, or it or the device cannot compute so.
    """
    first, *others = machine.devices or (machine.device,)
    known = load_library_for(library, first, precision)
    for other in others:
        if load_library_for(library, other, precision) != known:
            raise ProfileError(
                f"{library} is another on {other.name} than on {first.name}; --library roofline"
                " knows no such difference"
            )
    return Timer(
        machine=machine,
        library=known,
        correction=correction,
        precision=precision,
        calibration=calibration,
    )

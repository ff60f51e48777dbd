"""Costs by interpolation of this machine's own measurements.

``alexsim check calibrate`` times every op of a step at a few batch sizes; an op at another batch
size lies on the line between its neighbours. On one machine all virtual GPUs share the same cores,
so ops of different devices take turns, and decoding images takes its turn too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Lt, MinLen

from alexsim.errors import ProfileError
from alexsim.machine.device import load_device
from alexsim.machine.machine import Machine, load_machine
from alexsim.machine.sheet import Quantity
from alexsim.network.layers import Pool
from alexsim.network.part import Part
from alexsim.plan.plan import Op, OpKind
from alexsim.strict_json import json_text
from alexsim.typed import load

SCHEMA = 2
REST = "rest"
"""Time of a step that lies between its ops."""
Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
Points = Annotated[tuple[tuple[Count, Annotated[float, Ge(0)]], ...], MinLen(1)]
"""Batch sizes, ascending, and the seconds measured there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """One microbenchmark: what ran, its shape, one run's time, and units of work per second."""

    what: str
    shape: str
    seconds: Positive
    per_second: Positive
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured on one machine: when, how and by which code."""

    machine: str
    system: str
    date: str
    method: str
    backend: str
    torch: str
    threads: Count
    rounds: Count
    memory_bytes: Count
    scatter: Annotated[float, Gt(0), Lt(1)]
    """Standard deviation of the logarithm of one step's time around the median."""
    rates: tuple[Rate, ...]
    ops: Mapping[str, Points]

    def __post_init__(self) -> None:
        for name, points in self.ops.items():
            # Nothing may lie between the ops, and an offer of what is there takes no time.
            batch = next((batch for batch, seconds in points if not seconds), None)
            if batch is not None and name not in (REST, OpKind.POST):
                raise ProfileError(f"ops.{name} must be above 0 s at {batch} images, got 0")

    def rate(self, what: str) -> float:
        """The best rate of a microbenchmark whose name begins so.

        Raises:
            ProfileError: there is none.
        """
        rates = [rate.per_second for rate in self.rates if rate.what.startswith(what)]
        if not rates:
            raise ProfileError(f"the calibration has no rate of {what!r}; run it again")
        return max(rates)

    @property
    def crop_side(self) -> int:
        """Side of the crops whose loading was timed; 0 if the file does not say."""
        shapes = [rate.shape for rate in self.rates if rate.what == "image normalise"]
        side = shapes[0].partition(" ")[0] if shapes else ""
        return int(side) if side.isdecimal() else 0

    @property
    def flop_per_s(self) -> float:
        """The highest rate that any product or convolution reached."""
        return max(self.rate("gemm"), self.rate("convolution"))

    def seconds(self, signature: str, batch_size: int) -> float:
        """Time of an op at a batch size; beyond the measured ones, on the nearest line.

        Raises:
            ProfileError: nobody measured such an op.
        """
        points = self.ops.get(signature)
        if points is None:
            raise ProfileError(
                f"the calibration has no measurement of {signature!r}; measure its network with"
                " `alexsim check calibrate --net EDITION --gpus N`"
            )
        if len(points) == 1:
            return points[0][1] * batch_size / points[0][0]
        upper = bisect_left([batch for batch, _ in points], batch_size)
        upper = min(max(upper, 1), len(points) - 1)
        (low, below), (high, above) = points[upper - 1], points[upper]
        return max(0.0, below + (above - below) * (batch_size - low) / (high - low))


def signature(op: Op, part: Part | None) -> str:
    """What an op's time depends on beside the batch size: its kind and its shapes.

    Not for barriers: a device that waits there lets the others compute, and costs nothing.
    """
    if part is None:
        return str(op.kind)
    layer = part.layer
    names = ("size", "stride", "padding", "ties")
    options = "x".join(
        str(getattr(layer, name))
        for name in names
        if hasattr(layer, name) and not (name == "padding" and isinstance(layer, Pool))
    )
    # What few layers have stands there only where they have it.
    usual = {"dilation": 1, "groups": 1, "bias": True}
    if isinstance(layer, Pool):
        usual["padding"] = 0
    for name, value in usual.items():
        if getattr(layer, name, value) != value:
            options += f" {name}={getattr(layer, name)}"
    marks = f"{'+' if op.accumulate else ''}{'*' if op.fused else ''}{'&' if op.epilogue else ''}"
    shapes = f"{part.input_shape}->{part.output_shape}".replace(" ", "")
    return f"{op.kind}{marks} {type(layer).__name__} {options} {shapes}"


def default_path() -> Path:
    """Where ``alexsim check calibrate`` leaves its measurements."""
    from platformdirs import user_data_path

    return user_data_path("alexsim") / "calibration.json"


def write(calibration: Calibration) -> str:
    """As JSON."""
    document = {"schema": SCHEMA} | asdict(calibration)
    return json_text(document, indent=1)


def read(path: str) -> Calibration:
    """A file that ``alexsim check calibrate`` wrote.

    Raises:
        ProfileError: there is none, or it is malformed.
    """
    make = "`alexsim check calibrate` makes one"
    return load(Calibration, Path(path), "calibration", schema=SCHEMA, hint=make)


def machine_of(calibration: Calibration) -> Machine:
    """This machine as the simulator's records have it; every op's own time is measured."""
    source = f"alexsim check calibrate on {calibration.machine}"

    def measured(value: float) -> Quantity:
        return Quantity(value=value, kind="measured", source=source)

    base = load_machine("gtx580x2")
    device = load_device("gtx580")
    lanes = device.architecture.lanes_per_sm.value
    device = replace(
        device,
        name=calibration.machine,
        note="",
        memory_bytes=measured(calibration.memory_bytes),
        context_bytes=measured(0),
        multiprocessors=measured(calibration.threads),
        clock_hz=measured(calibration.flop_per_s / (2 * lanes * calibration.threads)),
        memory_bytes_per_s=measured(calibration.rate("memory copy")),
    )
    return replace(
        base,
        name=f"this machine ({calibration.machine}, {calibration.threads} threads)",
        device=device,
        device_name="here",
        # Every thread decodes and crops, in its turn; files come from memory.
        decode_workers=measured(calibration.threads),
        decode_images_per_s=measured(calibration.rate("image load")),
        crop_workers=measured(calibration.threads),
        crop_images_per_s=measured(calibration.rate("image normalise")),
        disk_bytes_per_s=measured(calibration.rate("memory read")),
        rates_for=calibration.crop_side or base.rates_for,
    )

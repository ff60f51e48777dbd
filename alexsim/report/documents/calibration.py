"""What is measured of this machine as JSON: ``calibrate --json`` and ``kernels --json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from alexsim.profile.calibrate import Check
from alexsim.report.documents.base import Document, From, Part
from alexsim.simulate.costs.measured import Calibration
from alexsim_kernels.code import KernelCode


class RateRow(Part):
    """A microbenchmark: one run's time, and units of work per second."""

    what: str
    shape: str
    seconds: float
    per_second: float
    unit: str


class CheckRow(Part):
    """A time that was predicted from other batch sizes, and measured."""

    batch_size: int
    name: str
    """``step``, or a layer."""
    predicted_s: float
    measured_s: float
    ratio_interval: Annotated[tuple[float, float], From(lambda check: (check.low, check.high))]
    """Of predicted over measured: quantiles of the rounds (5 % and 95 %)."""


class CalibrationDocument(Document):
    """``alexsim calibrate --json``."""

    machine: str
    threads: int
    rounds: int
    date: str
    scatter: float
    """Standard deviation of the logarithm of a step's time."""
    flop_per_s: float
    """The highest rate that a product or a convolution reached."""
    rates: tuple[RateRow, ...]
    path: str
    """Where the calibration was written."""
    checks: tuple[CheckRow, ...]


def calibration_document(
    calibration: Calibration, checks: Sequence[Check], *, path: str
) -> CalibrationDocument:
    """``alexsim calibrate --json``."""
    return CalibrationDocument.of(calibration, path=path, checks=tuple(checks))


class KernelRow(Part):
    """A kernel as an op launches it, compiled for one architecture."""

    op: str
    kernel: str
    precision: str
    arch: int
    warps: int
    stages: int
    block: str
    registers: int
    shared_bytes: int
    spills: int
    """Instructions that move a thread's values to and from memory."""
    products: str
    """Its matrix instruction; ``FFMA`` without one, empty without products."""


class KernelsDocument(Document):
    """``alexsim kernels --json``."""

    arch: int
    kernels: tuple[KernelRow, ...]


def kernels_document(kernels: Sequence[KernelCode], *, arch: int) -> KernelsDocument:
    """``alexsim kernels --json``."""
    return KernelsDocument.of(arch=arch, kernels=tuple(kernels))

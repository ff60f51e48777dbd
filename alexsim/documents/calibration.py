"""What is measured of this machine as JSON: ``calibrate --json`` and ``kernels --json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from alexsim.costs.measured import Calibration, Rate
from alexsim.documents.base import Document, From, Part
from alexsim.profile.calibrate import Check
from alexsim_kernels.code import KernelCode


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
    """``alexsim check calibrate --json``."""

    machine: str
    device: str
    """``cpu`` or ``cuda``: whose ops were measured."""
    cards: int
    threads: int
    rounds: int
    date: str
    disturbed: int
    """Steps that other processes disturbed, when they had been measured again already."""
    clocks: str
    """Of the card while it was measured; or why nobody knows them; of a CPU, empty."""
    scatter: float
    """Standard deviation of the logarithm of a step's time."""
    flop_per_s: float
    """The highest rate that a product or a convolution reached."""
    rates: tuple[Rate, ...]
    path: str
    """Where the calibration was written."""
    checks: tuple[CheckRow, ...]


def calibration_document(
    calibration: Calibration, checks: Sequence[Check], *, path: str
) -> CalibrationDocument:
    """``alexsim check calibrate --json``."""
    return CalibrationDocument.of(calibration, path=path, checks=tuple(checks))


class KernelsDocument(Document):
    """``alexsim check kernels --json``."""

    arch: int
    kernels: tuple[KernelCode, ...]


def kernels_document(kernels: Sequence[KernelCode], *, arch: int) -> KernelsDocument:
    """``alexsim check kernels --json``."""
    return KernelsDocument.of(arch=arch, kernels=tuple(kernels))

"""Calibrations for tests: of what a test says, not of what this machine does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alexsim.costs.measured import ACROSS, DOWN, SUM, UP, Calibration, Point, Rate

NAMES = ("gemm", "convolution", "memory copy", "memory read", "image load", "image normalise")
LATENCY_S, BYTES_PER_S = 1e-5, 1e9


def calibrated(ops: Mapping[str, Sequence[Point]], **changes: Any) -> Calibration:
    """With these ops; every rate is a billion per second, every transfer begins after 10 us."""
    rates = [Rate(what=name, shape="", seconds=1.0, per_second=1e9, unit="") for name in NAMES]
    for name in (SUM, UP, DOWN, ACROSS):
        for size in (1, 1 << 30):
            seconds = LATENCY_S + (size - 1) / BYTES_PER_S
            rates.append(
                Rate(what=name, shape="", seconds=seconds, per_second=size / seconds, unit="byte")
            )
    known = {
        "machine": "a machine", "system": "", "date": "", "method": "", "device": "cpu",
        "cards": 1, "multiprocessors": 1, "clocks": "", "backend": "aten", "torch": "",
        "threads": 1, "rounds": 1, "disturbed": 0, "memory_bytes": 1 << 34, "scatter": 0.02,
        "rates": tuple(rates), "ops": {name: tuple(points) for name, points in ops.items()},
        "half_ops": {},
    }  # fmt: skip
    return Calibration(**known | changes)

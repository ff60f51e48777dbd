"""How a plan can be run; imports nothing, so that commands can name it."""

from __future__ import annotations

from typing import Literal

Device = Literal["cpu", "cuda"]
AskedDevice = Literal["auto", "cpu", "cuda"]
Backend = Literal["aten", "native", "triton"]
Precision = Literal["fp32", "fp32x3", "tf32", "bf16", "fp16"]
BACKENDS: tuple[Backend, ...] = ("aten", "native", "triton")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp32x3", "tf32", "bf16", "fp16")

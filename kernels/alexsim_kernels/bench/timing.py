"""The card that is measured, what it reaches at most, and how time is taken on it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import triton

from alexsim_kernels.common import Precision

CARD = "cuda" if torch.cuda.is_available() else "cpu"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp32x3", "tf32", "bf16")


@dataclass(frozen=True)
class Ceilings:
    """What this card reached."""

    bytes_per_s: float
    flop_per_s: dict[Precision, float]


def milliseconds(run: Callable[[], object]) -> tuple[float, float, float]:
    """Median, 20 % and 80 % quantiles."""
    median, low, high = triton.testing.do_bench(
        run, warmup=10, rep=40, quantiles=[0.5, 0.2, 0.8], return_mode="median"
    )
    return median, low, high


def ceilings() -> Ceilings:
    """A large copy, and large products in each precision."""
    source = torch.randn(1 << 28, device=CARD)
    target = torch.empty_like(source)
    copy_s = milliseconds(lambda: target.copy_(source))[0] / 1e3
    rates: dict[Precision, float] = {}
    for precision in PRECISIONS:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        a, b = (torch.randn(8192, 8192, device=CARD, dtype=dtype) for _ in range(2))
        rates[precision] = 2 * 8192**3 / (milliseconds(lambda: a @ b)[0] / 1e3)
    rates["fp32x3"] = rates["tf32"] / 3
    return Ceilings(2 * 4 * (1 << 28) / copy_s, rates)


def images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Fresh random values, channels-last."""
    values = torch.randn(shape, device=CARD).to(dtype)
    return values.contiguous(memory_format=torch.channels_last)


def distance(result: torch.Tensor, exact: torch.Tensor | None) -> float:
    """Norm of the error over that of the exact result, such as a gradient, which must be there."""
    assert exact is not None
    return float((result.double() - exact).norm() / exact.norm())


def where() -> dict[str, Any]:
    """The card, the versions and the commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = ""
    if shutil.which("git"):
        commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    card = torch.cuda.get_device_name() if CARD == "cuda" else platform.processor()
    return {
        "card": card,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }

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


def milliseconds(run: Callable[[], object], rep: float = 40) -> tuple[float, float, float]:
    """Median, 20 % and 80 % quantiles of some ``rep`` milliseconds of launches, of which each finds
    the card's cache without its tensors; on a CPU, where kernels are interpreted, of one."""
    if CARD == "cpu":
        start_s = time.perf_counter()
        run()
        taken = 1e3 * (time.perf_counter() - start_s)
        return taken, taken, taken
    median, low, high = triton.testing.do_bench(
        run, warmup=rep / 4, rep=rep, quantiles=[0.5, 0.2, 0.8], return_mode="median"
    )
    return median, low, high


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function through Inductor; on a CPU as it is, since compiling takes long there."""
    if CARD == "cpu":
        return function
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def copy_rate(numbers: int = 1 << 28) -> float:
    """Bytes per second that a large copy reads and writes."""
    source = torch.randn(numbers, device=CARD)
    target = torch.empty_like(source)
    return 8 * numbers / (milliseconds(lambda: target.copy_(source))[0] / 1e3)


def product_rate(precision: Precision, side: int = 8192) -> float:
    """FLOP per second of a large product by cuBLAS; of ``fp32x3`` a third of TF32's."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = precision in ("tf32", "fp32x3")
    a, b = (torch.randn(side, side, device=CARD).to(dtype) for _ in range(2))
    rate = 2 * side**3 / (milliseconds(lambda: a @ b)[0] / 1e3)
    return rate / 3 if precision == "fp32x3" else rate


def ceilings() -> Ceilings:
    """A large copy, and large products in each precision."""
    return Ceilings(copy_rate(), {precision: product_rate(precision) for precision in PRECISIONS})


def images(*shape: int, dtype: torch.dtype = torch.float32, place: str = CARD) -> torch.Tensor:
    """Fresh random values, channels-last."""
    values = torch.randn(shape, device=place).to(dtype)
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
    card = (
        torch.cuda.get_device_name()
        if CARD == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "card": card,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }

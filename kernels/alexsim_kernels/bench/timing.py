"""The card that is measured, what it reaches at most, and how time is taken on it."""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import triton

from alexsim_kernels.common import Precision

CARD = "cuda" if torch.cuda.is_available() else "cpu"
_AHEAD, _MOST_HOST_S = 1.3, 5e-3
"""How much longer than a launch the card is kept busy before it, and the longest launch."""
_SCRATCH_BYTES = 256 * 1024 * 1024
"""Several times any card's L2 cache: what is written there is no longer anything else's."""
_LEAST_LAUNCHES, _MOST_LAUNCHES = 5, 100
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp32x3", "tf32", "bf16")


@dataclass(frozen=True)
class Ceilings:
    """What this card reached."""

    bytes_per_s: float
    flop_per_s: dict[Precision, float]


def milliseconds(run: Callable[[], object], rep: float = 40) -> tuple[float, float, float]:
    """Median, 20 % and 80 % quantiles of some ``rep`` milliseconds of launches, of which each finds
    the card's cache without its tensors; on a CPU, where kernels are interpreted, of one.

    Before each the card is kept busy for as long as the host takes to launch it: a kernel that is
    shorter than its launch would else be timed as the host's work.
    """
    start_s = time.perf_counter()
    run()
    host_s = time.perf_counter() - start_s
    if CARD == "cpu":
        return 1e3 * host_s, 1e3 * host_s, 1e3 * host_s
    torch.cuda.synchronize()
    host_s = statistics.median(_host_s(run) for _ in range(3))
    clocks = int(_AHEAD * min(host_s, _MOST_HOST_S) * _clock_hz())
    scratch = torch.empty(_SCRATCH_BYTES, dtype=torch.int8, device=CARD)

    def timed(count: int) -> list[float]:
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(count)]
        for start, end in pairs:
            scratch.zero_()
            torch.cuda._sleep(clocks)
            start.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in pairs]

    first = statistics.median(timed(2))
    count = max(_LEAST_LAUNCHES, min(_MOST_LAUNCHES, int(rep / max(first, 1e-3))))
    fifths = statistics.quantiles(timed(count), n=10)
    return fifths[4], fifths[1], fifths[7]


def _host_s(run: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    start_s = time.perf_counter()
    run()
    return time.perf_counter() - start_s


@cache
def _clock_hz() -> float:
    return 1e3 * getattr(torch.cuda.get_device_properties(0), "clock_rate", 1.98e6)


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

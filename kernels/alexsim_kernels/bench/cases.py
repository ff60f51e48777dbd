"""An op of a kernel beside what else does it: how it is checked, and how it is timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.timing import CARD, Ceilings, distance, milliseconds
from alexsim_kernels.common import Precision

Run = Callable[[], object]
LIMITS: Mapping[Precision, float] = {
    "fp32": 1e-5, "fp32x3": 5e-5, "tf32": 2e-3, "bf16": 2e-2, "fp16": 2e-3,
}  # fmt: skip
"""Relative norms of errors against float64, of what a precision's rounding makes and no more; sums
of tensor cores are cut off where those of lanes are rounded."""
CHECKED = 16
"""Images on which results are compared with float64, which takes a card long; sixteen, so that sums
over their pixels have as many as the whole batch's in one respect: a multiple of 16, for which
kernels are specialised."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """An op at one number of images.

    ``check`` launches the kernel and gives the relative error of what it writes. ``others`` makes
    what does the same, by name. ``flop`` and ``moved_bytes`` are what it must do at least: those
    of the direct method, each tensor once.
    """

    op: str
    precision: Precision
    batch: int
    run: Run
    check: Callable[[], float]
    others: Callable[[], dict[str, Run]]
    flop: int = 0
    moved_bytes: int
    name: str = ""
    """In tables of what was measured: see ``alexsim_kernels.op_names``."""
    aten: str = "PyTorch"
    """Which of the others PyTorch runs where images lie channels-last."""


def checked(case: Case) -> Row:
    """Compare with float64; what is wrong, or raises, is a row that failed.

    Raises:
        RuntimeError: nothing runs on the card any more.
    """
    limit = LIMITS[case.precision]
    base = Row(op=case.op, precision=case.precision, batch=case.batch, limit=limit)
    try:
        error = case.check()
    except Exception as problem:
        return _broken(base, problem)
    wrong = "" if error <= limit else f"wrong: error {error:.1e} against float64, above {limit:.0e}"
    return replace(base, failed=wrong, error=error if math.isfinite(error) else None)


def _broken(row: Row, problem: Exception) -> Row:
    """The row of what raised, unless that ended all work on the card."""
    if CARD == "cuda":
        torch.cuda.synchronize()
    lines = str(problem).strip().splitlines() or [""]
    return replace(row, failed=f"{type(problem).__name__}: {lines[-1]}"[:200])


def timed_or_broken(case: Case, peaks: Ceilings) -> Row:
    """As ``timed``; what raises is a row that failed.

    Raises:
        RuntimeError: nothing runs on the card any more.
    """
    try:
        return timed(case, peaks)
    except Exception as problem:
        return _broken(Row(op=case.op, precision=case.precision, batch=case.batch), problem)


def timed(case: Case, peaks: Ceilings, *, error: float | None = None) -> Row:
    """Time it beside the others, and the floor that this card's ceilings set."""
    floor_s = case.moved_bytes / peaks.bytes_per_s
    if case.flop:
        floor_s = max(floor_s, case.flop / peaks.flop_per_s[case.precision])
    case.run()
    median, low, high = milliseconds(case.run)
    others = {name: milliseconds(run)[0] for name, run in case.others().items()}
    other, other_ms = min(others.items(), key=lambda item: item[1])
    table = {"op_name": case.name, "triton_ms": median, "aten_ms": others[case.aten]}
    return Row(
        op=case.op, precision=case.precision, batch=case.batch, error=error, ours_ms=median,
        ours_20_ms=low, ours_80_ms=high, other=other, other_ms=other_ms, floor_ms=1e3 * floor_s,
        detail=table if case.name else None,
    )  # fmt: skip


def poisoned(*results: torch.Tensor) -> None:
    """NaN everywhere, so that what is not written shows."""
    for result in results:
        result.fill_(math.nan)


def worst(*pairs: tuple[torch.Tensor, torch.Tensor | None]) -> float:
    """The largest distance of results from what they should be; NaN if any is."""
    distances = [distance(result, exact) for result, exact in pairs]
    return math.nan if any(map(math.isnan, distances)) else max(distances)

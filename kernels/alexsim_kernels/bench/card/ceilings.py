"""(a) The card, its versions, and what it reaches at most."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
import triton

from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.timing import CARD, PRECISIONS, Ceilings, copy_rate, product_rate, where
from alexsim_kernels.common import Precision

NEEDS = ("numpy", "torch", "triton")
_SMALL_NUMBERS, _SMALL_SIDE = 1 << 16, 64


def rows(job: Job) -> Iterator[Row]:
    """Name and versions; a copy's rate; the rates of products."""
    if CARD == "cpu" and not job.rehearse:
        raise RuntimeError("PyTorch sees no CUDA card")
    detail = where() | {"name": where()["card"], "python": sys.version.split()[0]}
    if CARD == "cuda":
        p = torch.cuda.get_device_properties(0)
        detail |= {
            "capability": 10 * p.major + p.minor, "multiprocessors": p.multi_processor_count,
            "memory_bytes": p.total_memory, "l2_bytes": p.L2_cache_size,
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        }  # fmt: skip
    text = f"{detail['name']}, torch {torch.__version__}, triton {triton.__version__}"
    yield Row(op="card", text=text, detail=detail)
    numbers, side = (_SMALL_NUMBERS, _SMALL_SIDE) if job.rehearse else (1 << 28, 8192)
    yield Row(op="copy", value=copy_rate(numbers), unit="B/s")
    order: tuple[Precision, ...] = ("bf16", "tf32", "fp32x3", "fp32")
    assert set(order) == set(PRECISIONS)
    for precision in order:
        yield Row(
            op="product", precision=precision, value=product_rate(precision, side), unit="FLOP/s"
        )


def ceilings_of(job: Job) -> Ceilings:
    """What part (a) measured.

    Raises:
        RuntimeError: it did not.
    """
    measured = {
        (row.op, row.precision): row.value
        for row in job.rows_of("ceilings")
        if row.value is not None
    }
    try:
        rates: dict[Precision, float] = {p: measured["product", p] for p in PRECISIONS}
        return Ceilings(measured["copy", ""], rates)
    except KeyError as missing:
        raise RuntimeError(f"part (a) did not measure {' '.join(missing.args[0])}") from None

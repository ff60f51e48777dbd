"""The ceiling of the CPU kernels: what their micro-kernel reaches out of the first caches."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

import torch

from alexsim_kernels.cpu.sizes import Precision
from alexsim_kernels.cpu.tensors import call, check_bf16, threads

_ROWS, _DEPTH, _COLUMNS = 48, 256, 64
"""A product of 48 x 256 values by a panel of 256 x 64: 112 KiB, in the second cache."""


def ceiling(
    dtype: torch.dtype = torch.float32,
    *,
    precision: Precision = "fp32",
    repeats: int = 400,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of the micro-kernel on all threads, in units of 1e9: the best of a few rounds.

    Args:
        dtype: float32 or float64.
        precision: ``bf16`` multiplies pairs of bfloat16 instead; sums are float32.
        repeats: products of each thread in a round.
        rounds: of which the fastest counts, as nothing is faster than the machine.
        clock: seconds; ``time.process_time`` counts what all threads take together.

    Raises:
        ValueError: ``bf16`` is asked for with float64.
        BuildError: ``bf16`` is asked for and there are no such products here.
    """
    count = threads()
    a, b = (torch.ones(count * _DEPTH * side, dtype=dtype) for side in (_ROWS, _COLUMNS))
    c = torch.zeros(count * _ROWS * _COLUMNS, dtype=dtype)
    function, values = "micro_kernel_rate", 1
    if precision == "bf16":
        check_bf16(c)
        a, b = (t.repeat_interleave(2).bfloat16() for t in (a, b))
        function, values = "micro_kernel_rate_bf16", 2
    best = 0.0
    for _ in range(rounds):
        start = clock()
        call(
            function, c, *(ctypes.c_void_p(t.data_ptr()) for t in (a, b, c)),
            *map(ctypes.c_long, (_ROWS, _DEPTH, _COLUMNS, repeats, count)),
        )  # fmt: skip
        flop = 2 * values * _ROWS * _DEPTH * _COLUMNS * repeats * count
        best = max(best, flop / (clock() - start) / 1e9)
    return best

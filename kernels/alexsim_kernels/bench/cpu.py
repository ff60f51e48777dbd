"""Checks, then times, CPU kernels against PyTorch's best: on one column of AlexNet, or ResNet-50's.

    python -m alexsim_kernels.bench.cpu [--net alexnet-2012 | resnet-50] [--batch 128]
        [--rounds 5] [--threads N] [--out cpu.json]
    python -m alexsim_kernels.bench.cpu --conv 32,64,56,56,128,3,3,1,1,1

PyTorch's best is its convolution and batch norm channels-last, its matrix products, its pools, and
a response norm made of its pools and powers, into memory that is there. Both run in turns, so that
whatever else the machine does meets both; a figure is a median over the rounds, a ratio that of
their ratios. Errors are relative norms against float64, on a few images of random data. GFLOP/s are
those of the direct method; the share of the peak is that of the products which are made, fewer by
Winograd's method, over what the micro-kernel reaches out of the first caches on all threads.

Fully connected layers come a second time with products of bfloat16, where the processor has them:
PyTorch's way is then its product of rounded operands, the weights' float32 masters rounded for
each; errors are against products of the rounded operands, and the last column has the median of
the ratios to our float32, timed in the same turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from alexsim_kernels.bench.cpu_cases import Case, Run, convolutions, products
from alexsim_kernels.bench.cpu_layer_cases import norms, pools, relus
from alexsim_kernels.bench.needs import refuse
from alexsim_kernels.bench.resnet_cases import batch_norms, resnet_convolutions
from alexsim_kernels.cpu.build import available, bf16_available, library
from alexsim_kernels.cpu.product import ceiling
from alexsim_kernels.cpu.sizes import Precision
from alexsim_kernels.shapes import add_conv

NETS = {
    "alexnet-2012": (convolutions, norms, pools, relus, products),
    "resnet-50": (resnet_convolutions, batch_norms),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A pass: medians in milliseconds, the ratio's median, relative error, rate and algorithm.

    For bfloat16 also the time in float32, and the median of the ratios to it.
    """

    op: str
    pass_: str
    ours_ms: float
    torch_ms: float
    ratio: float
    error: float
    gflop_per_s: float | None
    share_of_ceiling: float | None
    algorithm: str
    precision: Precision
    float32_ms: float | None = None
    of_float32: float | None = None


def clock() -> Callable[[], float]:
    """Of one thread, the processor's time: what others take of it counts less."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def milliseconds(run: Run) -> float:
    seconds = clock()
    start = seconds()
    run()
    return 1e3 * (seconds() - start)


def timed(case: Case, rounds: int, peaks: dict[Precision, float]) -> Row:
    """Check, then time in turns.

    Raises:
        AssertionError: the error is larger than a kernel may make.
    """
    error = case.check()
    assert error < 1e-5, f"{case.op} {case.pass_}: error {error:.1e}"
    runs = [run for run in (case.ours, case.other, case.in_float32) if run]
    for run in runs:
        run()
    turns = [[milliseconds(run) for run in runs] for _ in range(rounds)]
    ours, other, *float32 = map(statistics.median, zip(*turns, strict=True))
    rate = case.flop / ours / 1e6 if case.flop else None
    return Row(
        op=case.op, pass_=case.pass_, ours_ms=ours,
        torch_ms=other, ratio=statistics.median(turn[1] / turn[0] for turn in turns),
        error=error, gflop_per_s=rate,
        share_of_ceiling=2 * case.multiplied / ours / 1e6 / peaks[case.precision]
        if case.multiplied else None,
        algorithm=case.algorithm, precision=case.precision,
        float32_ms=float32[0] if float32 else None,
        of_float32=statistics.median(turn[0] / turn[2] for turn in turns) if float32 else None,
    )  # fmt: skip


def line(row: Row) -> str:
    """A row of the table, at most 80 columns wide."""
    rate = f"{row.gflop_per_s:6.0f} {row.share_of_ceiling:5.0%}" if row.gflop_per_s else " " * 12
    how = f"bf16 {row.of_float32:.2f}" if row.of_float32 else row.algorithm
    return (
        f"{row.op:<8}{row.pass_:<12}{row.ours_ms:8.1f}{row.torch_ms:8.1f}{row.ratio:7.2f}"
        f"{row.error:8.0e} {rate}  {how:<14}"
    ).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="alexsim_kernels.bench.cpu", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--net", choices=NETS, help="whose layers; alexnet-2012")
    parser.add_argument("--batch", type=int, help="images; 128")
    parser.add_argument("--rounds", type=int, default=5, help="times each is timed, in turns")
    parser.add_argument("--threads", type=int, help="threads; torch's own number if not given")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    add_conv(parser)
    given = parser.parse_args()
    if given.conv and (given.net or given.batch):
        parser.error("--conv says which layers, and of how many images: without --net and --batch")
    if why_not := available():
        refuse(why_not)
    library("float", lambda text: print(text, file=sys.stderr))
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    peaks: dict[Precision, float] = {"fp32": ceiling(clock=clock())}
    if not bf16_available():
        peaks["bf16"] = ceiling(precision="bf16", clock=clock())
    net, batch = given.net or "alexnet-2012", given.batch or 128
    what = "your own layers" if given.conv else f"{net}, batch {batch}"
    print(
        f"{what}, {torch.get_num_threads()} threads,"
        f" torch {torch.__version__};"
        f" micro-kernel {', '.join(f'{p} {rate:.0f}' for p, rate in peaks.items())} GFLOP/s"
    )
    print(
        "op      pass            ours   torch  ratio   error GFLOP/s peak  algorithm\n"
        "                          ms      ms"
    )
    rows = []
    own = {f"own{index}": conv for index, conv in enumerate(given.conv, start=1)}
    makers = [partial(convolutions, n, {name: conv}) for name, (n, conv) in own.items()]
    for make in makers or [partial(make, batch) for make in NETS[net]]:
        for case in make():
            rows.append(timed(case, given.rounds, peaks))
            print(line(rows[-1]), flush=True)
    if given.out:
        document = {
            "net": None if own else net, "batch": None if own else batch,
            "convolutions": {name: asdict(conv) | {"batch": n} for name, (n, conv) in own.items()},
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "micro_kernel_gflop_per_s": peaks, "rows": [asdict(row) for row in rows],
        }  # fmt: skip
        given.out.write_text(
            json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()

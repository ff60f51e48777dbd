"""Checks, then times, Triton's kernels against PyTorch's, layer by layer: needs a CUDA card.

    python -m alexsim_kernels.bench.layers --tune --out layers.json
    python -m alexsim_kernels.bench.layers --conv 32,64,56,56,128,3,3,1,1,1

Every figure is a median with the 20 % and 80 % quantiles, beside the floor that arithmetic and
memory set on this card, as measured here. ``--tune`` times tiles first and keeps the best in the
user's cache; ``--check`` compares with float64 and times nothing (also on a CPU, interpreted).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import asdict
from itertools import product
from pathlib import Path

from alexsim_kernels.bench.needs import interpret_without_card, need_card, need_triton
from alexsim_kernels.bench.row import Row
from alexsim_kernels.shapes import ALEXNET, Convolution, add_conv


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="alexsim_kernels.bench.layers", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--tune", action="store_true", help="time tiles first, keep the best")
    parser.add_argument("--check", action="store_true", help="compare with float64, time nothing")
    parser.add_argument("--batch", type=int, action="append", help="images; 128 and 1024")
    parser.add_argument("--only", choices=ALEXNET, action="append", help="one of AlexNet's")
    parser.add_argument("--out", type=Path, help="file for the figures, as JSON")
    add_conv(parser)
    arguments = parser.parse_args()
    if arguments.conv and (arguments.batch or arguments.only):
        parser.error("--conv says of how many images, and which: without --batch and --only")
    if arguments.tune and arguments.check:
        parser.error("--check times nothing: without --tune")
    return arguments


def _work(arguments: argparse.Namespace) -> list[tuple[int, dict[str, Convolution]]]:
    """Numbers of images, and convolutions of each by their names."""
    if arguments.conv:
        return [
            (batch, {f"own{index}": shape})
            for index, (batch, shape) in enumerate(arguments.conv, start=1)
        ]
    layers = {name: ALEXNET[name] for name in arguments.only or ALEXNET}
    return [(batch, layers) for batch in arguments.batch or [128, 1024]]


def main() -> None:
    """Check and time; write the figures."""
    arguments = _arguments()
    need_triton()
    if not arguments.check:
        need_card(
            "--check compares with float64 in Triton's interpreter, and python -m"
            " alexsim_kernels.bench.cpu times the kernels for CPUs"
        )
    interpret_without_card()
    from alexsim_kernels.bench.cases import Case, checked, timed
    from alexsim_kernels.bench.convolution_cases import convolutions
    from alexsim_kernels.bench.layer_cases import Sizes, pools_and_norms
    from alexsim_kernels.bench.tiles import tune
    from alexsim_kernels.bench.timing import CARD, PRECISIONS, ceilings, where

    peaks = None if arguments.check else ceilings()
    document = where() | {"ceilings": asdict(peaks) if peaks else None, "rows": []}
    rows: list[Row] = []
    precisions = PRECISIONS if CARD == "cuda" else ("fp32",)

    def take(cases: Iterable[Case]) -> None:
        for case in cases:
            row = checked(case)
            if peaks and not row.failed:
                row = timed(case, peaks, error=row.error)
            rows.append(row)
            document["rows"].append(row.document())
            print(row.line(), flush=True)
            if arguments.out:
                arguments.out.write_text(
                    json.dumps(document, indent=1, allow_nan=False), encoding="utf-8"
                )

    for batch, layers in _work(arguments):
        for (name, shape), precision in product(layers.items(), precisions):
            if arguments.tune:
                tune(name, shape, precision, batch)
            take(convolutions(name, shape, precision, batch))
        if not arguments.conv:
            take(pools_and_norms(batch, Sizes()))
    for precision in precisions if peaks else ():
        ratios = [
            row.ratio
            for row in rows
            if row.precision == precision and row.ratio and row.other.startswith("cuDNN")
        ]
        if ratios:
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            print(f"convolutions, {precision}: {mean:.2f} x cuDNN in geometric mean")
    if wrong := [row.op for row in rows if row.failed]:
        sys.exit(f"alexsim_kernels: wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

"""Puts on record what every candidate compiles to, without a card.

``python -m alexsim_kernels.candidates_record --arch 90`` compiles the candidates for AlexNet's
convolutions at 128 images and writes them into ``candidates.csv``; ``--check N`` compiles some N of
them anew and compares. One that does not compile has no registers.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

import triton
from triton.errors import TritonError

from alexsim_kernels import tuning
from alexsim_kernels.candidates import candidates, text_of
from alexsim_kernels.code import KernelCode
from alexsim_kernels.common import Config, Precision
from alexsim_kernels.compiled import CompilingDriver, passes
from alexsim_kernels.recorded import CANDIDATES, record, rows
from alexsim_kernels.shapes import ALEXNET, CONV1_PADDED, Convolution
from alexsim_kernels.tuning import SHARED_BYTES, Key

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp32x3", "tf32", "bf16")
LAYERS: dict[str, Convolution] = ALEXNET | {"conv1, 4 channels": CONV1_PADDED}
_SUMS = ("_sum_splits", "_finish")
"""Kernels that only add what candidates computed in parts."""


def all_candidates(arch: int) -> Iterator[tuple[str, Precision, str, Key, Config]]:
    """Layer, precision, pass, product and candidate."""
    multiprocessors = tuning.Card(f"sm_{arch}", arch).multiprocessors
    for name, shape in LAYERS.items():
        for precision in PRECISIONS:
            for pass_, launch in passes(shape, precision).items():
                with tuning.asked(launch=False) as keys:
                    launch(None)
                for config in candidates(
                    keys[0], arch, multiprocessors, stride=shape.stride, groups=shape.groups
                ):
                    yield name, precision, pass_, keys[0], config


def compile_one(
    driver: CompilingDriver, op: str, precision: Precision, pass_: str, config: Config
) -> tuple[str, KernelCode]:
    """Key and code of a candidate."""
    driver.op, driver.precision = f"{op} {pass_}", precision
    driver.launched.clear()
    nothing = KernelCode(
        op=driver.op, kernel="", precision=precision, arch=driver.target.arch, warps=config.warps,
        stages=config.stages, block="", registers=0, shared_bytes=0, spills=0, products="",
        instructions=0, turn_instructions=0, turn_products=0,
    )  # fmt: skip
    try:
        passes(LAYERS[op], precision)[pass_](config)
    except (RuntimeError, TritonError):
        return "", nothing
    made = [(key, code) for key, code, _ in driver.launched if code.kernel not in _SUMS]
    return made[-1] if made else ("", nothing)


def main() -> None:
    """Compile, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, choices=SHARED_BYTES, required=True)
    parser.add_argument("--check", type=int, metavar="N", help="compile N anew, and compare")
    arguments = parser.parse_args()
    driver = CompilingDriver(arguments.arch, {})
    triton.runtime.driver.set_active(driver)
    work = list(all_candidates(arguments.arch))
    if arguments.check:
        known = {
            (row["product"], row["tile"]): row["key"]
            for row in rows(CANDIDATES)
            if (row["triton"], row["arch"]) == (triton.__version__, str(arguments.arch))
        }
        for name, precision, pass_, key, config in random.Random(0).sample(work, arguments.check):
            made, _ = compile_one(driver, name, precision, pass_, config)
            if known.get((key.name(), text_of(config))) != made:
                sys.exit(
                    f"{name} {pass_} {precision}, {text_of(config)}: changed: python -m"
                    " alexsim_kernels.candidates_record --arch N, for every N on record"
                )
        return
    codes = []
    for done, (name, precision, pass_, key, config) in enumerate(work, start=1):
        hashed, code = compile_one(driver, name, precision, pass_, config)
        more = {"product": key.name(), "tile": text_of(config)}
        # A kernel that another op launched before is on record as that op's.
        named = replace(code, op=f"{name} {pass_}", precision=precision)
        codes.append((hashed, named, more))
        sys.stderr.write(f"\r{done} of {len(work)}")
    record(CANDIDATES, codes, arguments.arch)


if __name__ == "__main__":
    main()

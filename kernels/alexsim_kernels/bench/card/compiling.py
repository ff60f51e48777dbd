"""Beside the other parts: compiles kernels ahead of them, on all cores, into Triton's cache.

A kernel takes a second to compile and a millisecond to run: a card that waits for compilers is
wasted. Workers compile through the launch path, with a driver that launches nothing, in the order
in which the parts will want them.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import torch
import triton
from triton.errors import TritonError

from alexsim_kernels import compiled, tuning
from alexsim_kernels.bench.card import right, tiles
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.tiles import key_of
from alexsim_kernels.candidates import offered

NEEDS = ("torch", "triton")
_SPARE_CORES = 2
"""For the part that runs on the card, and for this one."""
_STEPS = "alexsim.bench.card.ahead"
"""The module that knows what steps launch."""


def launches(capability: int) -> Iterator[Callable[[], object]]:
    """What the parts will launch, in their order."""
    for some in chain(
        right.cases(place="meta"),
        right.kinds(bold=False, place="meta"),
        right.resnet(place="meta"),
        right.kinds(bold=True, place="meta"),
    ):
        yield from (case.run for case in some)
    with contextlib.suppress(ImportError):  # the kernels alone are at hand
        yield from importlib.import_module(_STEPS).launches()
    card = tuning.Card("", capability)
    for _, passes in tiles.work(place="meta"):
        for pass_ in passes.names:
            stride, groups = passes.shape.stride, passes.shape.groups
            for config in offered(key_of(passes, pass_), card, stride=stride, groups=groups):
                yield partial(passes.run, pass_, config)


def work(capability: int, index: int, count: int, most: int) -> None:
    """What worker ``index`` of ``count`` compiles: every so manyth, ``most`` in all."""
    driver = compiled.CompilingDriver(capability, {})
    driver.launchers = True
    os.nice(10)  # what launches kernels goes first
    triton.runtime.driver.set_active(driver)
    for number, launch in enumerate(launches(capability)):
        if number >= most:
            return
        if number % count == index:
            # The part that runs it says why not.
            with contextlib.suppress(RuntimeError, TritonError):
                launch()
            sys.stdout.write("+")
            sys.stdout.flush()


def rows(job: Job) -> Iterator[Row]:
    """How many kernels are compiled, every ten seconds."""
    capability = 90
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        capability = 10 * major + minor
    count = 1 if job.rehearse else max(1, (os.cpu_count() or 1) - _SPARE_CORES)
    most = 2 if job.rehearse else sys.maxsize
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *map(str, (capability, index, count, most))],
            stdout=subprocess.PIPE, env=environment,
        )
        for index in range(count)
    ]  # fmt: skip
    done, said_s = 0, time.monotonic()
    for worker in workers:
        assert worker.stdout is not None
        os.set_blocking(worker.stdout.fileno(), False)
    while any(worker.poll() is None for worker in workers) and job.left_s > 0:
        time.sleep(0.1)
        done += _read(workers)
        if time.monotonic() - said_s > 10:
            said_s = time.monotonic()
            yield Row(op="compiled ahead", value=done, unit="kernels", text=f"{count} workers")
    done += _read(workers)
    failed = [worker.returncode for worker in workers if worker.returncode]
    yield Row(
        op="compiled ahead", value=done, unit="kernels", text=f"{count} workers",
        failed=f"{len(failed)} workers ended with {failed[0]}" if failed else "",
    )  # fmt: skip


def _read(workers: list[subprocess.Popen[bytes]]) -> int:
    read = 0
    for worker in workers:
        assert worker.stdout is not None
        read += len(worker.stdout.read() or b"")
    return read


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("capability", "index", "count", "most"):
        parser.add_argument(name, type=int)
    work(**vars(parser.parse_args()))

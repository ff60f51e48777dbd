"""How fast a loader feeds a step, and what memory that takes on the host."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alexsim.data.augmentation import Preparation
from alexsim.data.choices import Order
from alexsim.data.dataset import Dataset
from alexsim.data.loader import Batch, Loader
from alexsim.data.statistics import Statistics
from alexsim.data.workers import workers_for

_WARM_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderRate:
    """A loader with some number of workers: drained, or asked for images at some pace."""

    workers: int
    images: int
    seconds: float
    waited_s: float
    """How long minibatches were waited for, and drawn up, in the process that trains."""
    worker_cpu_s: float
    """CPU time of all workers."""
    loader_cpu_s: float
    """CPU time of the process that trains: it draws what is decoded; its steps normalise."""
    worker_bytes: int
    """Memory of one worker; pages that processes share count in parts (PSS)."""
    loader_bytes: int

    @property
    def images_per_s(self) -> float:
        """Whole minibatches' images, by the clock."""
        return self.images / self.seconds

    @property
    def images_per_worker_cpu_s(self) -> float:
        """What a core decodes and crops that nothing else uses."""
        return self.images / self.worker_cpu_s

    @property
    def images_per_loader_cpu_s(self) -> float:
        """What the one thread that draws could do: the most for any number of workers."""
        return self.images / self.loader_cpu_s


def loader_rate(
    dataset: Dataset,
    statistics: Statistics,
    *,
    workers: int,
    seconds: float,
    batch_size: int,
    crop_side: int,
    order: Order,
    pace: float = 0,
) -> LoaderRate:
    """Draw minibatches as training does for some seconds, and do nothing with them.

    Args:
        pace: images per second that a step takes in; 0: all that come.
    """
    with workers_for(workers) as pool:
        loader = Loader(
            dataset,
            statistics,
            Preparation(),
            batch_size=batch_size,
            crop_side=crop_side,
            seed=0,
            pool=pool,
            order=order,
        )
        batches = loader.training(0, 1_000_000)
        for _ in range(_WARM_BATCHES):
            next(batches)
        # The first steps were drained: let what is drawn ahead stand ready, as it does in a run.
        time.sleep(batch_size / pace if pace else 0)
        children = list(pool._processes)
        worker_s, loader_s = _cpu_s(children), time.process_time()
        started = time.perf_counter()
        images, waited_s = _drain(batches, batch_size, started + seconds, pace)
        return LoaderRate(
            workers=workers,
            images=images,
            seconds=time.perf_counter() - started,
            waited_s=waited_s,
            worker_cpu_s=_cpu_s(children) - worker_s,
            loader_cpu_s=time.process_time() - loader_s,
            worker_bytes=sum(map(_resident, children)) // len(children),
            loader_bytes=_resident(os.getpid()),
        )


def _drain(
    batches: Iterator[Batch], batch_size: int, until: float, pace: float
) -> tuple[int, float]:
    images, waited_s = 0, 0.0
    while (asked := time.perf_counter()) < until:
        next(batches)
        received = time.perf_counter()
        images += batch_size
        waited_s += received - asked
        if pace:
            # The step runs on another device: it leaves this machine's cores to the loader.
            time.sleep(batch_size / pace)
    return images, waited_s


def _cpu_s(processes: list[int]) -> float:
    """User and system time (proc(5), fields 14 and 15 of ``stat``)."""
    ticks = 0
    for process in processes:
        # The command's name, in brackets, may hold spaces.
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _resident(process: int) -> int:
    """Proportional set size in bytes (proc(5), ``smaps_rollup``)."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0

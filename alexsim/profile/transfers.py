"""How fast values travel: between a card and the host, between cards, and summed by processes.

Each is timed at a small size, for its latency, and at a large one, for its rate.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection

import torch
import torch.distributed as dist

from alexsim.costs.measured import ACROSS, DOWN, SUM, UP
from alexsim.errors import AlexsimError
from alexsim.execute.choices import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.profile.clock import REPEATS, Clock
from alexsim.profile.microbench import Timed, give_back, timed
from alexsim.spawn import SPAWN
from alexsim.units import MIB

_SIZES = (4096, 64 * MIB)
_WRITTEN = {
    UP: "host to device, pinned",
    DOWN: "device to host, pinned",
    ACROSS: "peer to peer",
}
_WAIT_S = 120
_PROCESSES = 2


def transfer_rates(device: Device) -> Iterator[Timed]:
    """What crosses between this machine's devices, and between them and the host."""
    return card_rates() if device == "cuda" else process_rates()


def card_rates() -> Iterator[Timed]:
    """Copies from pinned memory to the card and back and, of several cards, between the first two,
    and the sum over all of them."""
    clock, cards = Clock("cuda"), torch.cuda.device_count()
    for size in _SIZES:
        there, here = _floats(size, "cuda"), _floats(size, "cpu").pin_memory()
        ways = {UP: (there, here), DOWN: (here, there)}
        if cards > 1:
            ways[ACROSS] = (_floats(size, "cuda:1"), there)
        for what, (target, source) in ways.items():
            copy = partial(target.copy_, source, non_blocking=True)
            yield _copied(
                what, size, clock.seconds(copy), "memcpy", "cudaMemcpy", what=_WRITTEN[what]
            )
        if cards > 1:
            parts = [_floats(size, f"cuda:{card}") for card in range(cards)]
            sums = partial(torch.cuda.nccl.all_reduce, parts)
            version = ".".join(
                map(str, torch.cuda.nccl.version())  # type: ignore[no-untyped-call]
            )
            library = f"nccl {version}"
            yield _copied(SUM, size, clock.seconds(sums), "allreduce", library, ranks=cards)
    give_back("cuda")


def _floats(size: int, where: str) -> torch.Tensor:
    return torch.ones(size // FLOAT_BYTES, device=where)


def process_rates() -> Iterator[Timed]:
    """Sums by two processes of this machine over the loopback interface: as replicas, which
    ``alexsim train`` has in processes, sum their gradients.

    Raises:
        AlexsimError: they cannot, or take too long.
    """
    # New interpreters: a fork would have PyTorch's threads without their locks.
    answer, told = SPAWN.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        running = [
            SPAWN.Process(target=_sum_in_turns, args=(folder, rank, told), daemon=True)
            for rank in range(_PROCESSES)
        ]
        for process in running:
            process.start()
        told.close()
        try:
            if not answer.poll(_WAIT_S):
                raise AlexsimError(f"two processes took over {_WAIT_S} s to sum {_SIZES[-1]} bytes")
            seconds = answer.recv()
        except EOFError as error:
            raise AlexsimError("two processes of this machine cannot reach each other") from error
        finally:
            for process in running:
                process.join(1)
                process.kill()
    for size, each in zip(_SIZES, seconds, strict=True):
        library = f"gloo (pytorch {torch.__version__})"
        yield _copied(SUM, size, each, "allreduce", library, ranks=_PROCESSES)


def _sum_in_turns(folder: str, rank: int, told: Connection) -> None:
    """One of the processes; the first tells the median seconds of each size."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.FileStore(f"{folder}/meet", _PROCESSES)  # type: ignore[attr-defined]
    limit = timedelta(seconds=_WAIT_S)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=_PROCESSES, timeout=limit)
    medians = []
    for size in _SIZES:
        values, times = torch.zeros(size // FLOAT_BYTES), []
        for _ in range(1 + 2 * REPEATS):
            dist.barrier()
            started = time.perf_counter()
            dist.all_reduce(values)
            times.append(time.perf_counter() - started)
        medians.append(statistics.median(times[1:]))
    if rank == 0:
        told.send(medians)
    dist.destroy_process_group()


def _copied(
    name: str, size: int, seconds: float, op: str, library: str, **extra: str | int
) -> Timed:
    shape = f"{extra['ranks']} x {_text(size)}" if "ranks" in extra else _text(size)
    columns = {"library": library, "op": op, "pass": "collective" if op == "allreduce" else "copy"}
    columns["extra"] = json.dumps({"bytes": size} | extra, allow_nan=False)
    return timed(name, shape, (size, "byte"), seconds, **columns)


def _text(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB"

"""A process per virtual GPU on one card, each held to its budget: begun early, told when to go.

Each imports what it needs while the part that began it measures something else, and touches the
card only when it is told to go. What it then finds it tells line by line, so that what came before
a failure is known.
"""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from alexsim.bench.card.tiny import BATCH, tiny
from alexsim.bench.card.trials import Times, failure, minibatch
from alexsim.editions.load import load_network
from alexsim.errors import MemoryBudgetError
from alexsim.execute.cards import cap, places, process_bytes
from alexsim.execute.choices import Device
from alexsim.execute.context import STILL, Choices
from alexsim.execute.memory import Memory
from alexsim.execute.ranks import Ranks
from alexsim.plan.choices import TransportName
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan
from alexsim.processes.world import RENDEZVOUS, Connected, Place, joined
from alexsim.spawn import SPAWN
from alexsim.units import GIB

BUDGET = 3 * GIB
"""Of each virtual GPU, as in 2012."""
_PROCESSES = 2
_SILENT_S = 60.0
_LIFTED = 1 << 62
_WARM_UPS, _STEPS = 2, 5


def two_columns(*, transport: TransportName, rehearse: bool) -> Plan:
    """AlexNet of 2012 on two devices, 128 images; in a rehearsal something small."""
    network = tiny(2) if rehearse else load_network("alexnet-2012")
    size = BATCH if rehearse else 128
    return plan(network, batch_size=size, transport=transport, backend="triton")


class Processes:
    """The processes, from ``__enter__`` to ``__exit__``."""

    def __init__(self, device: Device, *, rehearse: bool) -> None:
        self._device, self._rehearse = device, rehearse
        self._folder = ""
        self._running: list[Any] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Processes:
        self._folder = tempfile.mkdtemp(prefix="alexsim-")
        for rank in range(_PROCESSES):
            here, there = SPAWN.Pipe()
            told = (self._folder, rank, self._device, self._rehearse, there)
            process = SPAWN.Process(target=_be_a_process, args=told, daemon=True)
            process.start()
            there.close()
            self._running.append(process)
            self._pipes.append(here)
        return self

    def go(self, limit_s: float) -> Iterator[dict[str, Any]]:
        """What they tell: records with their ``rank``, or why there are no more, ``failed``.

        Args:
            limit_s: how long they may take altogether.
        """
        until = time.monotonic() + limit_s
        for pipe in self._pipes:
            pipe.send("go")
        open_pipes = dict(enumerate(self._pipes))
        while open_pipes:
            for rank, pipe in list(open_pipes.items()):
                try:
                    if pipe.poll(0.05):
                        yield {"rank": rank, **pipe.recv()}
                except EOFError:
                    del open_pipes[rank]
            if open_pipes and time.monotonic() > until:
                for rank in open_pipes:
                    yield {"rank": rank, "failed": f"no end within {limit_s:.0f} s"}
                return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._running:
            process.join(1)
            process.kill()
            process.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def _be_a_process(folder: str, rank: int, device: Device, rehearse: bool, pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return
    count = str(_PROCESSES)
    os.environ |= {
        RENDEZVOUS: f"file://{folder}/meet", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count, "RANK": str(rank), "LOCAL_RANK": str(rank),
    }  # fmt: skip
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        world = joined(Place.from_environment(), _PROCESSES, _SILENT_S)
        assert isinstance(world, Connected)
        for record in _records(world, device, rehearse):
            pipe.send(record)
        world.close()
    except Exception as error:
        pipe.send({"failed": failure(error)})
        raise
    finally:
        pipe.close()


def _records(world: Connected, device: Device, rehearse: bool) -> Iterator[dict[str, Any]]:
    made = two_columns(transport="host", rehearse=rehearse)
    planned, place = made.devices[world.rank], places(device, _PROCESSES)[world.rank]
    yield {"refused": _refused(made, world.rank, place)}
    strict = Ranks(made, Choices(budget_bytes=BUDGET, device=device), world)
    strict.initialise()
    network = made.network
    images, labels = minibatch(network.input_shape, network.classes, made.batch_size, device)
    warm_ups, steps = (0, 1) if rehearse else (_WARM_UPS, _STEPS)
    times = []
    for _ in range(warm_ups + steps):
        started = time.perf_counter()
        losses = strict.step(images, labels, step=0, hyperparameters=STILL).losses
        # The losses have come from the card, and from the other process.
        times.append(1e3 * (time.perf_counter() - started))
    assert losses is not None
    step = Times.of(times[warm_ups:])
    on_card = device == "cuda"
    yield {
        "step_ms": step.median,
        "step_20_ms": step.low,
        "step_80_ms": step.high,
        "loss": float(losses.mean()),
        "exchanged_bytes": strict.crossed_bytes_per_step()[0],
        "expected_bytes": made.exchanged_bytes,
        "planned_bytes": planned.total_bytes,
        "peak_bytes": torch.cuda.max_memory_allocated(place) if on_card else planned.total_bytes,
        "reserved_bytes": torch.cuda.max_memory_reserved(place) if on_card else None,
        "driver_bytes": process_bytes() if on_card else None,
        # Of the whole card: a driver that does not know processes by their ids here knows that.
        "card_used_bytes": used_bytes(place) if on_card else None,
    }
    # What both have done is read by both before either gives its memory back.
    world.each({})
    strict.close()


def used_bytes(place: torch.device) -> int:
    """Of a card, by all that run on it."""
    free, total = torch.cuda.mem_get_info(place)
    return total - free


def _refused(made: Plan, rank: int, place: torch.device) -> str:
    """What is said to the plan under half the budget that it needs: by the card's allocator or,
    without a card, by the ledger; empty if nothing is."""
    device = made.devices[rank]
    too_small = device.arena_bytes // 2
    on_card = place.type == "cuda"
    cap(place, too_small)
    try:
        Memory(made, device, None if on_card else too_small, torch.float32, place=place)
    except MemoryBudgetError as error:
        by_card = isinstance(error.__cause__, torch.OutOfMemoryError)
        return f"{'the card' if by_card else 'the plan'}: {' '.join(str(error).split())}"[:300]
    finally:
        cap(place, _LIFTED)
        gc.collect()
        if on_card:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(place)
    return ""

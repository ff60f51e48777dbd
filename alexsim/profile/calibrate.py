"""Calibration: every op of a step timed at a few batch sizes, which take turns."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from alexsim.costs.measured import MOST_SCATTER, REST, Calibration, Point, Rate, half_of, signature
from alexsim.errors import MeasurementError
from alexsim.execute.choices import Device
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim.profile.microbench import METHOD, device_name
from alexsim.profile.sittings import Bench, Round
from alexsim.profile.step_profile import quantile
from alexsim.simulate.simulation import NINE_IN_TEN, Simulation

_COPIES_ROUNDS = 2
"""Steps of a replica, of which few ops are others."""


def calibrate(
    bench: Bench,
    batches: Sequence[int],
    *,
    rounds: int,
    threads: int,
    rates: Sequence[Rate] = (),
    clocks: Callable[[], str] = lambda: "",
    done: Callable[[int], None] = lambda _: None,
) -> tuple[Calibration, dict[int, list[Round]]]:
    """Time the steps of ``bench`` in turns; the calibration knows those of ``batches``.

    Args:
        bench: steps of these and of other batch sizes, and of replicas.
        batches: two or more.
        rounds: steps at every batch size.
        threads: of the CPU.
        rates: of microbenchmarks.
        clocks: says a card's, when all is measured.
        done: gets how many rounds have run.

    Returns:
        The calibration, medians over rounds, and every round of every batch size.
    """
    measured = bench.rounds(list(bench.plans.values()), rounds, done)
    points: dict[str, list[Point]] = defaultdict(list)
    halves: dict[str, list[Point]] = defaultdict(list)
    for batch in sorted(batches):
        known = _points(bench.plans[batch], measured[batch])
        if batch in bench.copies:
            of_replica, with_half = _of_a_replica(bench, batch, threads)
            known = of_replica | known
            _append(halves, with_half)
        _append(points, known)
    return (
        Calibration(
            machine=device_name(bench.device),
            system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            date=datetime.now(UTC).date().isoformat(),
            method=f"ops: medians of {rounds} steps per batch size, in turns; rates: {METHOD}",
            clocks=clocks(),
            backend=bench.plans[batches[0]].spec.backend,
            torch=torch.__version__,
            threads=threads,
            rounds=rounds,
            disturbed=sum(each.disturbed for known in measured.values() for each in known),
            scatter=_scatter(measured),
            rates=tuple(rates),
            ops={name: tuple(known) for name, known in sorted(points.items())},
            half_ops={name: tuple(known) for name, known in sorted(halves.items())},
            **_counted(bench.device, threads),
        ),
        measured,
    )


def _of_a_replica(
    bench: Bench, batch: int, threads: int
) -> tuple[dict[str, Point], dict[str, Point]]:
    """A replica's points with all threads and, on a CPU, with half of them.

    Few of its ops are others than a device's alone: they need no turns, and so no memory beside
    those.
    """
    made = bench.copies[batch]

    def points() -> dict[str, Point]:
        return _points(made, bench.rounds([made], _COPIES_ROUNDS)[batch])

    if bench.device == "cuda":
        return points(), {}
    with _threads(half_of(threads)):
        halves = points()
    return points(), halves


def _append(points: Mapping[str, list[Point]], known: Mapping[str, Point]) -> None:
    for name, point in known.items():
        points[name].append(point)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


def _counted(device: Device, threads: int) -> dict[str, Any]:
    """What there is of a device, and its memory."""
    if device == "cpu":
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        cards, multiprocessors = 1, threads
    else:
        card = torch.cuda.get_device_properties(0)
        size, multiprocessors = card.total_memory, card.multi_processor_count
        cards = torch.cuda.device_count()
    return {
        "device": device,
        "cards": cards,
        "multiprocessors": multiprocessors,
        "memory_bytes": size,
    }


def _timed_ops(made: Plan) -> list[Op]:
    """Ops whose time is their own: not waits of devices, nor of replicas, for each other."""
    return [op for op in made.ops() if op.kind not in (OpKind.BARRIER, OpKind.ALL_REDUCE)]


def _points(made: Plan, rounds: Sequence[Round]) -> dict[str, Point]:
    """By signature, the images, the chunks and the seconds: the mean over ops of their medians; and
    what lies between them."""
    times: dict[str, list[float]] = defaultdict(list)
    chunks: dict[str, int] = {}
    parts = {(p.layer.name, p.column): p for ps in made.network.parts for p in ps}
    for op in _timed_ops(made):
        name = signature(op, parts.get((op.layer, op.column)))
        times[name].append(statistics.median(each.ops[op.id] for each in rounds))
        chunks[name] = op.chunk_images or made.batch_size
    ops = [op.id for op in _timed_ops(made)]
    rests = (each.step_s - sum(each.ops[op] for op in ops) for each in rounds)
    times[REST].append(max(0.0, statistics.median(rests)))
    chunks[REST] = made.batch_size
    return {
        name: (made.batch_size, chunks[name], statistics.mean(each)) for name, each in times.items()
    }


def _scatter(measured: Mapping[int, Sequence[Round]]) -> float:
    """Scatter of a normal distribution that holds nine steps in ten where they were.

    Raises:
        MeasurementError: it is so large that the steps say nothing.
    """
    deviations = []
    for rounds in measured.values():
        middle = statistics.median(round_.step_s for round_ in rounds)
        deviations += [abs(math.log(round_.step_s / middle)) for round_ in rounds]
    scatter = max(quantile(deviations, 0.9) / NINE_IN_TEN, LEAST_SCATTER)
    if scatter >= MOST_SCATTER:
        off = math.exp(max(deviations))
        raise MeasurementError(
            f"steps of a minibatch are up to {off:.1f} times off their median:"
            " others use this machine; measure again when it is quiet. Nothing was written"
        )
    return scatter


LEAST_SCATTER = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One quantity, predicted from other batch sizes and measured; ``name`` is ``step`` or a layer.

    ``low`` and ``high`` bound predicted over measured: quantiles of the rounds (5 % and 95 %).
    """

    batch_size: int
    name: str
    predicted_s: float
    measured_s: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Predicted over measured, minus one."""
        return self.predicted_s / self.measured_s - 1


def check(plan: Plan, simulation: Simulation, rounds: Sequence[Round]) -> list[Check]:
    """Predictions beside the measured rounds: of the step, then of every layer."""
    layers: dict[str, float] = defaultdict(float)
    for layer in simulation.layers:
        layers[layer.name] += layer.total_s
    ops: dict[str, list[str]] = defaultdict(list)
    for op in plan.ops():
        if op.kind.activity == "computing":
            ops[op.layer].append(op.id)
    rows = [("step", simulation.step_s, [round_.step_s for round_ in rounds])]
    rows += [
        (name, seconds, [sum(round_.ops[op] for op in ops[name]) for round_ in rounds])
        for name, seconds in layers.items()
    ]
    return [
        Check(
            batch_size=plan.batch_size,
            name=name,
            predicted_s=predicted,
            measured_s=statistics.median(measured),
            low=predicted / quantile(measured, 0.95),
            high=predicted / quantile(measured, 0.05),
        )
        for name, predicted, measured in rows
    ]

"""Calibration: every op of a step timed at a few batch sizes, which take turns."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from alexsim.errors import AlexsimError
from alexsim.execute.choices import Device
from alexsim.execute.context import STILL, Choices
from alexsim.execute.executor import Executor
from alexsim.execute.transport import InProcess
from alexsim.network.network import Network
from alexsim.plan.choices import Policy, Schedule
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.microbench import METHOD, device_name
from alexsim.profile.others import Moment
from alexsim.profile.step_profile import quantile
from alexsim.profile.steps import minibatch, wait
from alexsim.simulate.costs.measured import REST, Calibration, Point, Rate, half_of, signature
from alexsim.simulate.simulation import NINE_IN_TEN, Simulation

_WARM_UPS: Mapping[Device, int] = {"cpu": 1, "cuda": 3}
"""Steps that fault pages in, and let oneDNN and cuDNN make their kernels and a card its clocks."""
_DISTURBED = 0.05
"""Share of the cores' time that others may take during a step."""
_SITTING = 2
"""Rounds in the same memory. Where a step's pages happen to lie makes a difference of percents to
it, the same in every round: medians are over several such places."""
_COPIES, _COPIES_ROUNDS = 2, 2
"""Replicas whose ops are timed where they differ, and in how many steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measured step: its wall time, and its ops' seconds by id."""

    batch_size: int
    step_s: float
    ops: dict[str, float]
    disturbed: bool = False
    """Whether others took the cores meanwhile."""


class _Alone(InProcess):
    """A replica without the others: what they would sum stays as it is."""

    def reduce(self, device: int, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Nothing."""


class Step:
    """The same step again and again, every op timed."""

    def __init__(self, made: Plan, device: Device, state: Mapping[str, torch.Tensor]) -> None:
        """``state``: weights to begin with; if empty, drawn ones."""
        self.plan, self.device = made, device
        transport = _Alone(len(made.devices)) if made.replicas > 1 else None
        self.executor = Executor(made, Choices(device=device), transport=transport)
        if state:
            self.executor.load_state(state)
        else:
            self.executor.initialise()
        self._images, self._labels = minibatch(made)

    def __call__(self) -> Round:
        """Run it once."""
        self.executor.record()
        wait(self.device)
        before = Moment.now()
        started = time.perf_counter()
        self.executor.step(self._images, self._labels, step=0, hyperparameters=STILL)
        wait(self.device)
        elapsed = time.perf_counter() - started
        seconds = {op: times[0] for op, times in self.executor.trace().by_op().items()}
        return Round(
            batch_size=self.plan.batch_size,
            step_s=elapsed,
            ops=seconds,
            disturbed=self.device == "cpu" and Moment.now().others_share(before) > _DISTURBED,
        )


class Bench:
    """A network's step at several batch sizes.

    Args:
        network: what is trained.
        batches: images of a step.
        gpus: devices that share them: of a CPU, one per column or 1; of a card, 1.
        policy: of memory.
        schedule: of ops.
        device: where to run.
        copies: batch sizes of which there is the step of a replica as well.
    """

    def __init__(
        self,
        network: Network,
        batches: Sequence[int],
        *,
        gpus: int | None,
        policy: Policy,
        schedule: Schedule,
        device: Device = "cpu",
        copies: Sequence[int] = (),
    ) -> None:
        self.device = device
        usual = PlanSpec(
            network=network, gpus=gpus, policy=policy, schedule=schedule, backend="aten"
        )
        self.plans = {batch: plan(usual, batch_size=batch) for batch in batches}
        self.copies = {
            batch: plan(usual, batch_size=_COPIES * batch, replicas=_COPIES) for batch in copies
        }
        self._state: dict[str, torch.Tensor] = {}

    def steps(self, plans: Sequence[Plan]) -> list[Step]:
        """Ready to run, in memory of their own.

        Raises:
            AlexsimError: there is no card, or it cannot hold them together.
        """
        try:
            return [self._step(made) for made in plans]
        except torch.OutOfMemoryError as error:
            raise AlexsimError(
                f"steps of {', '.join(map(str, self.plans))} images do not fit on the card"
                " together: choose smaller --batches"
            ) from error

    def _step(self, made: Plan) -> Step:
        """Weights are drawn once."""
        step = Step(made, self.device, self._state)
        if not self._state:
            self._state = {name: each.clone() for name, each in step.executor.state().items()}
        return step

    def rounds(
        self, plans: Sequence[Plan], rounds: int, done: Callable[[int], None] = lambda _: None
    ) -> dict[int, list[Round]]:
        """Every plan's measured steps, by its images, in turns.

        A step that other processes disturb is measured again, as often as there are rounds at most.
        """
        measured: dict[int, list[Round]] = {made.batch_size: [] for made in plans}
        for first in range(0, rounds, _SITTING):
            for each in self._sitting(plans, min(_SITTING, rounds - first)):
                measured[each.batch_size].append(each)
            done(min(first + _SITTING, rounds))
        return measured

    def _sitting(self, plans: Sequence[Plan], rounds: int) -> Iterator[Round]:
        """Its steps' memory is given back at its end."""
        steps = self.steps(plans)
        for step in steps:
            for _ in range(_WARM_UPS[self.device]):
                step()
        again = dict.fromkeys(steps, rounds)
        for index in range(rounds):
            # Forward and back again, so that a drift inside a sitting cancels.
            for step in steps if index % 2 == 0 else reversed(steps):
                each = step()
                while each.disturbed and again[step]:
                    again[step] -= 1
                    each = step()
                yield each


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
            backend="aten",
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
    """Scatter of a normal distribution that holds nine steps in ten where they were."""
    deviations = []
    for rounds in measured.values():
        middle = statistics.median(round_.step_s for round_ in rounds)
        deviations += [abs(math.log(round_.step_s / middle)) for round_ in rounds]
    return max(quantile(deviations, 0.9) / NINE_IN_TEN, LEAST_SCATTER)


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

"""Calibration: every op of a step timed at a few batch sizes, which take turns."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from alexsim.execute.context import STILL
from alexsim.execute.executor import Executor
from alexsim.machine.cpu import cpu_name
from alexsim.network.network import Network
from alexsim.plan.choices import Policy, Schedule
from alexsim.plan.plan import OpKind, Plan
from alexsim.plan.planner import plan
from alexsim.profile.microbench import METHOD, rates
from alexsim.profile.step_profile import quantile
from alexsim.simulate.costs.measured import REST, Calibration, Rate, signature
from alexsim.simulate.simulation import NINE_IN_TEN, Simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measured step: its wall time, and its ops' seconds by id."""

    batch_size: int
    step_s: float
    ops: dict[str, float]


class Bench:
    """A network's step at several batch sizes, ready to run."""

    def __init__(
        self,
        network: Network,
        batches: Sequence[int],
        *,
        gpus: int | None,
        policy: Policy,
        schedule: Schedule,
    ) -> None:
        self.network = network
        self.plans: dict[int, Plan] = {}
        self._executors: dict[int, Executor] = {}
        self._inputs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        generator = torch.Generator().manual_seed(0)
        channels, height, width = network.input_shape
        for batch in batches:
            planned = plan(
                network,
                gpus=gpus,
                batch_size=batch,
                policy=policy,
                schedule=schedule,
                backend="aten",
            )
            self.plans[batch] = planned
            self._executors[batch] = Executor(planned)
            self._executors[batch].initialise()
            images = torch.randn((batch, height, width, channels), generator=generator)
            labels = torch.randint(network.classes, (batch,), generator=generator)
            self._inputs[batch] = images.permute(0, 3, 1, 2), labels

    def step(self, batch: int) -> Round:
        """Run one step with every op timed."""
        executor = self._executors[batch]
        images, labels = self._inputs[batch]
        executor.record()
        started = time.perf_counter()
        executor.step(images, labels, step=0, hyperparameters=STILL)
        elapsed = time.perf_counter() - started
        seconds = {op: times[0] for op, times in executor.trace().by_op().items()}
        return Round(batch_size=batch, step_s=elapsed, ops=seconds)


def calibrate(
    bench: Bench,
    batches: Sequence[int],
    *,
    rounds: int,
    threads: int,
    others: Sequence[int] = (),
    data: Sequence[Rate] = (),
    done: Callable[[int], None] = lambda _: None,
) -> tuple[Calibration, dict[int, list[Round]]]:
    """Time ``batches`` in turns and, between them, ``others``, which the calibration leaves out.

    ``data`` are measured rates of the data path.

    Returns:
        The calibration, medians over rounds, and every round of every batch size.
    """
    all_batches = sorted({*batches, *others})
    for batch in all_batches:
        bench.step(batch)  # faults pages in, and lets oneDNN make its kernels
    measured: dict[int, list[Round]] = defaultdict(list)
    for index in range(rounds):
        # Forward and back again, so that a drift inside a round cancels.
        for batch in all_batches if index % 2 == 0 else reversed(all_batches):
            measured[batch].append(bench.step(batch))
        done(index + 1)
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for batch in sorted(batches):
        by_signature: dict[str, list[float]] = defaultdict(list)
        planned = bench.plans[batch]
        parts = {(p.layer.name, p.column): p for ps in planned.network.parts for p in ps}
        timed_ops = [op for op in planned.ops() if op.kind != OpKind.BARRIER]
        for op in timed_ops:
            name = signature(op, parts.get((op.layer, op.column)))
            times = [round_.ops[op.id] for round_ in measured[batch]]
            by_signature[name].append(statistics.median(times))
        by_signature[REST].append(
            statistics.median(
                round_.step_s - sum(round_.ops[op.id] for op in timed_ops)
                for round_ in measured[batch]
            )
        )
        for name, times in by_signature.items():
            points[name][batch] = statistics.mean(times)
    return (
        Calibration(
            machine=cpu_name(),
            system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            date=datetime.now(UTC).date().isoformat(),
            method=f"ops: medians of {rounds} steps per batch size, in turns; rates: {METHOD}",
            backend="aten",
            torch=torch.__version__,
            threads=threads,
            rounds=rounds,
            scatter=_scatter(measured),
            rates=(*rates(bench.network), *data),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            ops={
                name: tuple(sorted(by_batch.items())) for name, by_batch in sorted(points.items())
            },
        ),
        dict(measured),
    )


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

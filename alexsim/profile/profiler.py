"""A training step measured op by op, beside its counts and its prediction on another machine.

Steps with and without timing take turns, so that what timing costs is measured too. Devices of one
process on a CPU take turns as well: their times add up to the step's. On CUDA they run beside each
other, and a layer's time is that of both devices together.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from alexsim.execute.bind import Hyperparameters
from alexsim.execute.choices import Device, Precision
from alexsim.execute.executor import Choices, Executor
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.records import Op, OpKind, Plan
from alexsim.plan.tables import memory_table
from alexsim.simulate.records import Simulation

PASSES = ("forward", "grad_input", "grad_weight", "update")
_PASS_OF = {
    OpKind.FORWARD: "forward",
    OpKind.DRAW: "forward",
    OpKind.LOSS: "forward",
    OpKind.GRAD_INPUT: "grad_input",
    OpKind.ACCUMULATE: "grad_input",
    OpKind.GRAD_WEIGHT: "grad_weight",
    OpKind.UPDATE: "update",
}
_STILL = Hyperparameters(weight_rate=1e-20, bias_rate=1e-20)
"""Rates that change no weight, so that every step is the same. Not 0: ATen then leaves products
out."""
_OVERHEAD = 10
"""Whatever takes so many times what arithmetic and memory need is bound by something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median of the rounds, and the quantiles of 10 % and 90 %."""

    median_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PassProfile:
    """One pass of a layer over the whole batch, all columns together."""

    name: str
    mac: int
    flop: int
    elementwise_flop: int
    moved_bytes: int
    measured: Spread
    predicted_s: float
    floor_s: float
    """What this machine needs at least: arithmetic or bytes at its ceilings."""
    limit: str
    """``compute`` or ``memory``, whichever the floor is; ``overhead`` where neither explains it."""

    @property
    def flop_per_s(self) -> float:
        """Rate of the multiply-adds of convolutions and fully connected layers."""
        return self.flop / self.measured.median_s if self.measured.median_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile:
    """One layer: its passes, and the bytes that the devices hold for it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    passes: tuple[PassProfile, ...]
    memory_bytes: dict[str, int]
    """By device."""

    @property
    def measured_s(self) -> float:
        """Sum of its passes' medians."""
        return sum(one.measured.median_s for one in self.passes)

    @property
    def predicted_s(self) -> float:
        """Its time on the other machine: that of the device that takes longest for it."""
        return sum(one.predicted_s for one in self.passes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """What this machine reached just now: a large product, and a large copy."""

    flop_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """A step: its layers, what is between them, and how much timing it cost."""

    network: str
    batch_size: int
    where: str
    rounds: int
    layers: tuple[LayerProfile, ...]
    transfers_s: float
    """Uploads and exchanges."""
    timed: Spread
    untimed: Spread
    overhead: Spread
    """Timed over untimed step, minus one, pair by pair (a ratio, not seconds)."""
    ceilings: Ceilings
    simulation: Simulation

    @property
    def layers_s(self) -> float:
        """Sum over layers."""
        return sum(layer.measured_s for layer in self.layers)

    @property
    def rest_s(self) -> float:
        """What of the timed step lies between its ops."""
        return self.timed.median_s - self.layers_s - self.transfers_s


def profile(
    plan: Plan,
    simulation: Simulation,
    *,
    device: Device,
    precision: Precision = "fp32",
    rounds: int,
    done: Callable[[int], None] = lambda _: None,
) -> StepProfile:
    """Run ``rounds`` pairs of steps, with and without timing.

    Args:
        plan: made for a backend.
        simulation: the same network on the machine to compare with.
        device: where to run.
        precision: of products, with backend ``triton``.
        rounds: pairs.
        done: told how many pairs have run.
    """
    executor = Executor(plan, Choices(device=device, precision=precision))
    executor.initialise()
    generator = torch.Generator().manual_seed(0)
    channels, height, width = plan.network.input_shape
    size = (plan.batch_size, height, width, channels)
    images = torch.randn(size, generator=generator).permute(0, 3, 1, 2)
    labels = torch.randint(plan.network.classes, (plan.batch_size,), generator=generator)

    def step(*, timed: bool) -> tuple[float, dict[str, float]]:
        executor.record(on=timed)
        _wait(device)
        started = time.perf_counter()
        executor.step(images, labels, step=0, hyperparameters=_STILL)
        _wait(device)
        elapsed = time.perf_counter() - started
        return elapsed, {op: times[0] for op, times in executor.trace().by_op().items()}

    step(timed=False)
    step(timed=True)
    timed: list[tuple[float, dict[str, float]]] = []
    untimed: list[float] = []
    for index in range(rounds):
        # Which comes first changes, so that a drift falls on both alike.
        for which in (True, False) if index % 2 else (False, True):
            elapsed, ops = step(timed=which)
            if which:
                timed.append((elapsed, ops))
            else:
                untimed.append(elapsed)
        done(index + 1)
    found = ceilings(device)
    return StepProfile(
        network=plan.network.name,
        batch_size=plan.batch_size,
        where=f"{device}, {plan.backend}",
        rounds=rounds,
        layers=_layers(plan, [ops for _, ops in timed], found, simulation),
        transfers_s=sum(
            statistics.median(ops.get(op.id, 0.0) for _, ops in timed)
            for op in plan.ops()
            if op.kind in (OpKind.UPLOAD, OpKind.POST, OpKind.WAIT)
        ),
        timed=spread([elapsed for elapsed, _ in timed]),
        untimed=spread(untimed),
        overhead=spread([a / b - 1 for (a, _), b in zip(timed, untimed, strict=True)]),
        ceilings=found,
        simulation=simulation,
    )


def spread(values: Sequence[float]) -> Spread:
    """Median and quantiles."""
    ordered = sorted(values)
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.1, 0.9))
    return Spread(median_s=statistics.median(ordered), low_s=low, high_s=high)


def ceilings(device: Device) -> Ceilings:
    """Measure a float32 product and a copy; about a second."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    out, source = torch.empty_like(a), torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    product_s = _best(lambda: torch.mm(a, b, out=out), device)
    copy_s = _best(lambda: target.copy_(source), device)
    return Ceilings(
        flop_per_s=2 * side**3 / product_s,
        bytes_per_s=2 * FLOAT_BYTES * source.numel() / copy_s,
    )


def _best(run: Callable[[], object], device: Device) -> float:
    seconds = []
    for _ in range(6):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _wait(device: Device) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _layers(
    plan: Plan, rounds: Sequence[dict[str, float]], found: Ceilings, simulation: Simulation
) -> tuple[LayerProfile, ...]:
    ops: dict[tuple[str, str], list[Op]] = defaultdict(list)
    for op in plan.ops():
        if op.kind in _PASS_OF:
            ops[op.layer, _PASS_OF[op.kind]].append(op)
    predicted: dict[tuple[str, str], float] = defaultdict(float)
    for layer in simulation.layers:
        for name in PASSES:
            key = (layer.name, name)
            predicted[key] = max(predicted[key], getattr(layer, f"{name}_s"))
    held = memory_table(plan)
    layers = []
    for parts in plan.network.parts:
        first = parts[0]
        name = first.layer.name
        layers.append(
            LayerProfile(
                name=name,
                kind=type(first.layer).__name__,
                shape=(sum(part.output_shape[0] for part in parts), *first.output_shape[1:]),
                parameters=sum(part.parameters for part in parts),
                passes=tuple(
                    _pass(which, ops[name, which], rounds, found, predicted[name, which])
                    for which in PASSES
                    if ops[name, which]
                ),
                memory_bytes={
                    device.name: sum(
                        size
                        for key, size in device.by_layer.items()
                        if key in (name, f"{name}.remote")
                    )
                    for device in held
                },
            )
        )
    return tuple(layers)


def _pass(
    name: str,
    ops: Sequence[Op],
    rounds: Sequence[dict[str, float]],
    found: Ceilings,
    predicted_s: float,
) -> PassProfile:
    measured = spread([sum(times[op.id] for op in ops) for times in rounds])
    mac = sum(op.count.mac for op in ops)
    moved = sum(op.count.moved_bytes for op in ops)
    compute_s, memory_s = 2 * mac / found.flop_per_s, moved / found.bytes_per_s
    floor_s = max(compute_s, memory_s)
    limit = "compute" if compute_s > memory_s else "memory"
    return PassProfile(
        name=name,
        mac=mac,
        flop=2 * mac,
        elementwise_flop=sum(op.count.elementwise_flop for op in ops),
        moved_bytes=moved,
        measured=measured,
        predicted_s=predicted_s,
        floor_s=floor_s,
        limit="overhead" if measured.median_s > _OVERHEAD * floor_s else limit,
    )

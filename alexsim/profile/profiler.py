"""A training step measured op by op, beside its counts and its prediction on another machine.

Steps with and without timing take turns, so that the cost of timing is measured too. Devices of one
process on a CPU take turns as well: their times add up to the step's. On CUDA they run beside each
other, and a layer's time is that of both devices together.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from alexsim.execute.choices import Device, Precision
from alexsim.execute.context import STILL, Choices
from alexsim.execute.executor import Executor
from alexsim.execute.here import name_of
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.choices import Products
from alexsim.plan.plan import Plan
from alexsim.profile.breakdown import layers_of, rounds_of, transfers_s
from alexsim.profile.nvml import Sample, Sampler, Telemetry
from alexsim.profile.rivals import Rivals
from alexsim.profile.step_profile import Ceilings, Held, StepProfile, Timing, ratio, spread
from alexsim.profile.steps import allocations, minibatch, take_turns, wait
from alexsim.simulate.simulation import Simulation
from alexsim.trace import Span, Trace
from alexsim_kernels.cpu.product import ceiling


@dataclass(slots=True)
class Underlay:
    """Events of ``torch.profiler`` during the last timed step, in Chrome's trace format; their
    ``ts`` is in microseconds of the spans' clock."""

    events: list[dict[str, Any]] = field(default_factory=list)


def profile(
    plan: Plan,
    simulation: Simulation,
    *,
    device: Device,
    precision: Precision = "fp32",
    rounds: int,
    underlay: Underlay | None = None,
    rivals: Rivals | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> StepProfile:
    """Run ``rounds`` pairs of steps, with and without timing, and a step to measure memory.

    Args:
        plan: made for a backend.
        simulation: the same network on the machine to compare with.
        device: where to run.
        precision: of products, with backend ``triton``.
        rounds: pairs.
        underlay: if given, filled with the events of ``torch.profiler`` in one more step.
        rivals: PyTorch's steps, which take turns with both.
        done: gets how many pairs have run.
    """
    executor = Executor(plan, Choices(device=device, precision=precision))
    executor.initialise()
    step = _Step(executor, device)
    step(timed=False)
    step(timed=True)
    timed: list[tuple[float, Trace]] = []
    untimed: list[float] = []

    def run(is_timed: bool, number: int) -> None:
        elapsed, spans = step(timed=is_timed, number=number)
        if is_timed:
            timed.append((elapsed, spans))
        else:
            untimed.append(elapsed)

    samples: list[Sample] = []
    with Sampler(samples.append) if device == "cuda" else contextlib.nullcontext() as sampler:
        for index in range(rounds):
            ours = [partial(run, is_timed, index) for is_timed in (False, True)]
            take_turns([*ours, *(rivals.turns() if rivals else ())], index)
            done(index + 1)
    reached = ceilings(device, plan.spec.backend, plan.spec.products)
    trace = Trace(spans=tuple(span for _, step_trace in timed for span in step_trace.spans))
    times = rounds_of(trace, plan)
    timed_s = [elapsed for elapsed, _ in timed]
    held = _held(plan, step, device)
    if underlay is not None:
        trace = Trace(spans=(*trace.spans, *_underlaid(step, device, rounds, underlay)))
    return StepProfile(
        plan=plan,
        where=f"{name_of(device)}, {plan.spec.backends}",
        rounds=rounds,
        layers=layers_of(plan, times, reached, simulation),
        transfers_s=transfers_s(plan, times),
        timed=spread(timed_s),
        timing=Timing(
            untimed=spread(untimed),
            overhead=ratio(timed_s, untimed),
            events=sum(1 for _ in plan.ops()),
            event_s=executor.event_s(),
        ),
        ceilings=reached,
        held=held,
        telemetry=Telemetry(
            cards=sampler.names,
            why=sampler.why,
            samples=tuple(samples),
            energy=sampler.energy,
            images=2 * rounds * plan.batch_size,
        )
        if sampler
        else None,
        simulation=simulation,
        trace=trace,
        beside=rivals.result(untimed) if rivals else None,
    )


class _Step:
    """The same step again and again, on random images."""

    def __init__(self, executor: Executor, device: Device) -> None:
        self._executor, self._device = executor, device
        self._images, self._labels = minibatch(executor.plan)

    def __call__(self, *, timed: bool, number: int = 0) -> tuple[float, Trace]:
        """Seconds of a step, and its spans if ``timed``."""
        self._executor.record(on=timed)
        wait(self._device)
        started = time.perf_counter()
        self._executor.step(self._images, self._labels, step=number, hyperparameters=STILL)
        wait(self._device)
        return time.perf_counter() - started, self._executor.trace()


def _held(plan: Plan, step: _Step, device: Device) -> tuple[Held, ...]:
    """Most memory held in a step: by each device on a CPU, by all together on cards.

    On a CPU each counts the scratch that it needs, though those of one process share it.
    """
    if device == "cuda":
        cards = range(torch.cuda.device_count())
        for card in cards:
            torch.cuda.reset_peak_memory_stats(card)
        step(timed=False)
        return (
            Held(
                devices=" + ".join(device_plan.name for device_plan in plan.devices),
                planned_bytes=sum(device_plan.total_bytes for device_plan in plan.devices),
                measured_bytes=sum(torch.cuda.max_memory_allocated(card) for card in cards),
            ),
        )
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        _, trace = step(timed=True)
    offset_ns = _wall_offset_ns()
    taken = [(when_ns - offset_ns, size) for when_ns, size in allocations(profiled)]
    peaks = _scratch_peaks(trace, taken)
    return tuple(
        Held(
            devices=device_plan.name,
            planned_bytes=device_plan.total_bytes,
            measured_bytes=device_plan.arena_bytes
            + device_plan.kept_scratch_bytes
            + peaks.get(device_plan.name, 0),
        )
        for device_plan in plan.devices
    )


def _scratch_peaks(trace: Trace, allocations: list[tuple[int, int]]) -> dict[str, int]:
    """Most bytes alive beside the arena while an op of each device ran.

    Args:
        trace: of the step.
        allocations: nanoseconds of the spans' clock, and bytes taken (or, below zero, given back).
    """
    spans = sorted(trace.spans, key=lambda span: span.start_s)
    starts = [span.start_s for span in spans]
    alive, peaks = 0, dict.fromkeys((span.device for span in spans), 0)
    for when_ns, size in allocations:
        alive += size
        index = bisect_right(starts, when_ns / 1e9) - 1
        if index >= 0 and when_ns / 1e9 <= spans[index].end_s:
            device = spans[index].device
            peaks[device] = max(peaks[device], alive)
    return peaks


def _underlaid(step: _Step, device: Device, number: int, into: Underlay) -> tuple[Span, ...]:
    """One more timed step with ``torch.profiler`` under it."""
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, acc_events=True) as profiled:
        _, trace = step(timed=True, number=number)
    offset_us = _wall_offset_ns() / 1e3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "torch.json"
        profiled.export_chrome_trace(str(path))
        document = json.loads(path.read_text(encoding="utf-8"))
    base_us = document.get("baseTimeNanoseconds", 0) / 1e3 - offset_us
    events = [
        event
        for event in document["traceEvents"]
        if event.get("ph") == "X" and event.get("cat") in ("cpu_op", "kernel", "gpu_memcpy")
    ]
    first, end = trace.bounds()[number]
    if device == "cuda" and events:
        # A card's events count from its first; there the two clocks meet.
        base_us = 1e6 * first - min(event["ts"] for event in events)
    if device == "cpu":
        # After the last op come copies for the caller: no part of the step.
        events = [event for event in events if event["ts"] + base_us < 1e6 * end]
    into.events += [event | {"ts": event["ts"] + base_us} for event in events]
    return trace.spans


def _wall_offset_ns() -> int:
    """The wall clock, which ``torch.profiler`` reads, less the spans' clock.

    The quickest reading of some: an interrupt between both clocks shifts a reading by its length.
    """
    readings = []
    for _ in range(9):
        before = time.perf_counter_ns()
        wall = time.time_ns()
        after = time.perf_counter_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


def ceilings(device: Device, backend: str, products: Products = "fp32") -> Ceilings:
    """Measure a float32 product and a copy; about a second.

    Where our kernels for CPUs run, the product is that of their micro-kernel: a library's large
    product may stay far below what the cores do.
    """
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    out, source = torch.empty_like(a), torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    with torch.no_grad():
        product_s = _best(lambda: torch.mm(a, b, out=out), device)
        copy_s = _best(lambda: target.copy_(source), device)
    flop_per_s = 2 * side**3 / product_s
    if backend == "native":
        flop_per_s = max(flop_per_s, 1e9 * ceiling())
    return Ceilings(
        flop_per_s=flop_per_s,
        bf16_flop_per_s=1e9 * ceiling(precision="bf16") if products == "bf16" else None,
        bytes_per_s=2 * FLOAT_BYTES * source.numel() / copy_s,
    )


def _best(run: Callable[[], object], device: Device) -> float:
    seconds = []
    for _ in range(6):
        wait(device)
        started = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])

"""A short calibration on the card, and what it and the simulator say of a step it has not seen.

As ``alexsim check calibrate --net alexnet-1gpu --device cuda``: PyTorch's kernels, float32, every
op of a step timed at a few batch sizes. Then the step of another batch size, measured beside what
the calibration predicts of it, and beside what ``alexsim simulate`` says by the card's data sheet
and published measurements alone, which is said first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from alexsim.bench.card.trials import Times, Trials, device_of
from alexsim.costs.correction import UNFITTED
from alexsim.costs.libraries import load_library
from alexsim.costs.measured import SUM, Calibration, Rate, machine_of
from alexsim.editions.load import load_network
from alexsim.errors import ProfileError
from alexsim.fidelity.rows import device_named
from alexsim.machine.machine import load_machine
from alexsim.network.network import Network
from alexsim.plan.spec import PlanSpec
from alexsim.profile.calibrate import calibrate, check
from alexsim.profile.clock import Clock, watched
from alexsim.profile.microbench import (
    Microbench,
    Timed,
    device_name,
    kernel_rows,
    network_rates,
    usual_rates,
)
from alexsim.profile.sittings import Bench, Round
from alexsim.profile.transfers import transfer_rates
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import on_machine, simulate
from alexsim.simulate.timer import Timer
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row

NEEDS = ("annotated_types", "numpy", "pydantic", "torch")
_OP = "step, ATen"
_SECONDS = {"before": 3.0, "calibration": 25.0, "kernels": 10.0}
_STAND_INS = ("image load", "image normalise")
"""Rates that a machine has and a step with its images ready does not ask for."""
_REHEARSED = (*_STAND_INS, SUM, "convolution", "memory copy", "memory read")
"""And those that would take a rehearsal too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is measured."""

    network: str
    taught: tuple[int, ...]
    asked: int
    rounds: int
    sheet: str
    """Of the card; empty where there is none."""


def rows(job: Job) -> Iterator[Row]:
    """The prediction by the sheet, the step beside both predictions, the calibration, and kernels
    that were timed."""
    device, trials = device_of(job), Trials(job, dict(_SECONDS))
    asked = _asked(job)
    network = load_network(asked.network)
    spec = PlanSpec(network=network, gpus=1, policy="reuse", backend="aten", batch_size=asked.asked)
    blank = Row(op=_OP, precision="fp32", batch=asked.asked)
    before: list[Simulation] = []
    yield from trials.rows("before", blank, partial(_before, blank, spec, asked.sheet, before))
    known: list[Calibration] = []
    kernels: list[Timed] = []

    def measuring() -> Iterator[Row]:
        with watched(device) as clocks:
            kernels.extend(_kernels(network, job))
            bench = Bench(spec, [*asked.taught, asked.asked], device=device)
            calibration, measured = calibrate(
                bench,
                asked.taught,
                rounds=asked.rounds,
                threads=torch.get_num_threads(),
                rates=[kernel.rate for kernel in kernels],
                clocks=clocks,
            )
        known.append(calibration)
        yield Row(
            op="calibration",
            text=f"{len(calibration.ops)} ops of {calibration.machine}; {calibration.clocks}",
            value=calibration.scatter,
            unit="of a step's time, scatter",
            detail={"calibration": asdict(calibration)},
        )
        rounds = measured[asked.asked]
        simulated = {f"{asked.sheet}, {each.library}": each for each in before}
        simulated["the calibration"] = _simulated(calibration, bench, asked.asked, job)
        for who, prediction in simulated.items():
            yield _beside(blank, bench, prediction, rounds, who)

    yield from trials.rows("calibration", replace(blank, op="calibration"), measuring)
    if known:
        timed = Row(op="kernels of usual sizes", precision="fp32")
        yield from trials.rows("kernels", timed, partial(_usual, timed, kernels, known[0], job))


def _asked(job: Job) -> _Asked:
    if job.rehearse:
        return _Asked(network="lenet-5", taught=(16, 64), asked=32, rounds=6, sheet="h200")
    name = device_name("cuda")
    # Tables write names with and without their maker and its line.
    names = (name, name.removeprefix("NVIDIA "), name.removeprefix("NVIDIA GeForce "))
    sheet = next((sheet for each in names if (sheet := device_named(each))), "")
    return _Asked(network="alexnet-1gpu", taught=(64, 128, 256), asked=192, rounds=6, sheet=sheet)


def _before(blank: Row, spec: PlanSpec, sheet: str, predictions: list[Simulation]) -> Iterator[Row]:
    if not sheet:
        raise ProfileError(f"there is no data sheet of {device_name('cuda')}")
    simulation = on_machine(spec, load_machine(sheet), data="none")
    predictions.append(simulation)
    low, high = simulation.step_interval.low, simulation.step_interval.high
    yield replace(
        blank,
        predicted_ms=1e3 * simulation.step_s,
        text=f"predicted by {sheet}, {simulation.library}; 90 %: {1e3 * low:.3g} to"
        f" {1e3 * high:.3g} ms",
    )


def _kernels(network: Network, job: Job) -> Iterator[Timed]:
    """Microbenchmarks: of the network's products and convolutions, memory and copies."""
    device = device_of(job)
    if job.rehearse:
        bench = Microbench(clock=Clock(device))
        yield bench.product(64, 64, 64)
        yield from bench.launches()
        return
    yield from network_rates(network, device)
    yield from transfer_rates(device)


def _simulated(known: Calibration, bench: Bench, batch: int, job: Job) -> Simulation:
    """What the calibration makes of a step with its images ready."""
    lacking = _REHEARSED if job.rehearse else _STAND_INS
    stand_ins = [
        Rate(what=what, shape="", seconds=1.0, per_second=1e9, unit="") for what in lacking
    ]
    whole = replace(known, rates=(*known.rates, *stand_ins))
    timer = Timer(
        machine=machine_of(whole),
        library=load_library("measured"),
        correction=UNFITTED,
        calibration=whole,
    )
    return simulate(bench.plans[batch], timer, data="none")


def _beside(
    blank: Row, bench: Bench, simulation: Simulation, rounds: Sequence[Round], who: str
) -> Row:
    """A measured step beside a prediction, and so its layers."""
    layers: Mapping[str, Sequence[float]] = {
        each.name: (round(1e3 * each.measured_s, 4), round(1e3 * each.predicted_s, 4))
        for each in check(bench.plans[blank.batch or 0], simulation, rounds)
        if each.name != "step"
    }
    times = Times.of([1e3 * each.step_s for each in rounds])
    return replace(
        blank,
        ours_ms=times.median,
        ours_20_ms=times.low,
        ours_80_ms=times.high,
        predicted_ms=1e3 * simulation.step_s,
        text=f"predicted by {who}",
        detail={"measured_and_predicted_ms": layers},
    )


def _usual(blank: Row, kernels: Sequence[Timed], known: Calibration, job: Job) -> Iterator[Row]:
    """Columns of a table of kernels, as ``alexsim check calibrate --rows`` writes them."""
    more = [] if job.rehearse else list(usual_rates(device_of(job)))
    lines = kernel_rows([*kernels, *more], known)
    yield replace(
        blank,
        text=f"{len(lines)} timed",
        detail={"kernels": [{k: v for k, v in line.items() if v != ""} for line in lines]},
    )

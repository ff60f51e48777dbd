"""``simulate``: a plan on a machine, timed by a library's cost model."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from alexsim.costs.correction import correction_of
from alexsim.costs.libraries import load_library
from alexsim.costs.measured import Calibration
from alexsim.costs.precision import plan_precision
from alexsim.errors import PlanError, ProfileError
from alexsim.machine.machine import Machine, load_machine
from alexsim.plan.choices import TransportName
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan as make_plan
from alexsim.plan.planner import representative
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.cores import CoresTaskList
from alexsim.simulate.engine import run
from alexsim.simulate.host import data_path_times
from alexsim.simulate.replicas import every_replica
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.summary import TimedSteps, summarise
from alexsim.simulate.tasks import TaskList
from alexsim.simulate.timer import DataPath, Timer
from alexsim.trace import Trace

_NETWORK = "10gbe"
_STEPS, _EVEN = 6, 3
"""A pipeline with two buffers per stage runs evenly from the fourth step."""
_WHOLE_STEPS, _WHOLE_EVEN = 12, 5
"""While the sixth step runs, the data path works on images of up to the twelfth."""


def planned(
    spec: PlanSpec,
    machine: Machine,
    *,
    calibration: Calibration | None = None,
    whole: bool = False,
) -> Plan:
    """The plan that is simulated; its transport is the machine's where the spec has none, and its
    backend that whose ops were measured.

    Of devices that do the same it has the first or, if ``whole``, all.

    Raises:
        PlanError: two choices do not go together.
        NetworkError: the partition cannot split the network.
    """
    transport: TransportName = "peer" if machine.peer else "host"
    spec = replace(spec.counted, transport=spec.transport or transport)
    if calibration:
        spec = replace(spec, backend=calibration.backend, threads=calibration.threads)
    return make_plan(spec) if whole else _plan(spec)


def enough_machines(name: str, devices: int) -> Machine:
    """A machine; if it has too few devices and no network, enough such machines joined by 10 Gbit/s
    Ethernet."""
    machine = load_machine(name)
    if not machine.lacks(devices):
        return machine
    joined = load_machine(name, "", _NETWORK)
    count = math.ceil(devices / joined.devices_per_node.value)
    return replace(joined, name=f"{count} machines over {_NETWORK}, each: {machine.name}")


_plan = lru_cache(maxsize=32)(representative)
"""Sweeps ask for the same plan on many machines."""


def simulate(
    plan: Plan,
    timer: Timer,
    *,
    data: DataPath = "jpeg",
    whole_pipeline: bool = False,
) -> Simulation:
    """Run a plan on a machine's virtual clock until its steps repeat.

    Args:
        plan: every device's ops or, of devices that do the same, those of one.
        timer: the machine, and the library that times its ops.
        data: ``jpeg`` reads, decodes and crops images beside the step; ``none`` has them ready.
        whole_pipeline: run several steps with the data path beside them even where a single step
            takes the same time: a serial step that is longer than every stage of the data path
            never waits for it.

    Raises:
        PlanError: the machine has fewer devices than the plan, nothing is multiplied, or the
            plan's numbers have not the types that the timer's precision gives them.
        ProfileError: the machine's numbers give no finite time.
    """
    if not any(op.count.mac for op in plan.ops()):
        raise PlanError(f"{plan.network.name} multiplies nothing: it has no product of matrices")
    if plan_precision(timer.precision) != plan.spec.precision:
        raise PlanError(
            f"precision {timer.precision} needs a plan of precision"
            f" {plan_precision(timer.precision)}; this one's is {plan.spec.precision}"
        )
    machine = timer.machine
    assert plan.stands_for == 1 or not machine.devices, "unlike cards each have their device"
    count = len(plan.devices) * plan.stands_for
    if lacking := machine.lacks(count):
        raise PlanError(lacking)

    if len(plan.network.input_shape) != 3:
        data = "none"  # they are no images, of which files could be decoded

    on_cores = timer.calibration is not None and timer.calibration.on_cores

    def tasks(data: DataPath) -> TaskList:
        kind = CoresTaskList if on_cores else TaskList
        return kind(plan=plan, timer=timer, data=data)

    host = data_path_times(machine, plan) if data == "jpeg" else None
    # Where decoding takes time of the cores that compute, the whole pipeline must run.
    whole = whole_pipeline or on_cores
    steps, even = (_WHOLE_STEPS, _WHOLE_EVEN) if whole else (_STEPS, _EVEN)
    alike = plan.spec.schedule == "serial" and not on_cores
    ready = _run(tasks("none"), 1, looked_at=0) if alike else _run(tasks("none"), steps, even)
    if host is None or (alike and not whole_pipeline and ready.step_s >= host.seconds):
        return summarise(ready, data_path=host)
    return summarise(
        _run(tasks(data), steps, looked_at=even), data_path=host, without_data_s=ready.step_s
    )


def _run(listed: TaskList, steps: int, looked_at: int) -> TimedSteps:
    listed.build(steps)
    return TimedSteps(listed=listed, times=run(listed.tasks), steps=steps, looked_at=looked_at)


def simulate_network(
    spec: PlanSpec, timer: Timer, *, data: DataPath = "jpeg", whole_pipeline: bool = False
) -> Simulation:
    """Plan and simulate: the entry point of commands and sweeps."""
    if timer.calibration and spec.partition == "hybrid":
        raise PlanError("this machine's calibration has no times of layers that hybrid plans split")
    if timer.calibration and spec.fusion != "none":
        raise PlanError("this machine's calibration has no times of layers that are fused")
    if timer.calibration and spec.optimizer != "sgd-2012":
        raise PlanError(
            f"this machine's calibration has times of sgd-2012's updates, not of {spec.optimizer}'s"
        )
    unlike = bool(timer.machine.devices)
    plan = planned(spec, timer.machine, calibration=timer.calibration, whole=unlike)
    if unlike:
        plan = every_replica(plan)
    return simulate(plan, timer, data=data, whole_pipeline=whole_pipeline)


def on_machine(
    spec: PlanSpec, machine: Machine, *, library: str = "", data: DataPath = "jpeg"
) -> Simulation:
    """A spec simulated with that library or, without a name, that of the machine's time.

    Its trace has the devices' spans only, to be compared with measured ones.
    """
    known = load_library(library or default_library(machine))
    timer = Timer(machine=machine, library=known, correction=correction_of(known.name))
    simulation = simulate_network(spec, timer, data=data)
    spans = tuple(span for span in simulation.trace.spans if span.device != "host")
    return replace(simulation, trace=Trace(spans=spans))


def default_library(machine: Machine) -> str:
    """The library that was current when the newest card came out; of other makers' devices theirs.

    Raises:
        ProfileError: the machine has devices of several makers, which no such library runs on.
    """
    cards = machine.devices or (machine.device,)
    platforms = {card.architecture.platform: card.name for card in cards}
    if len(platforms) > 1:
        names = " and ".join(platforms.values())
        raise ProfileError(f"no library runs on {names} alike but --library roofline")
    if other := {"hip": "miopen", "cpu": "onednn"}.get(cards[0].architecture.platform):
        return other
    year = max(card.year for card in cards)
    for last, name in ((2012, "cuda-convnet"), (2014, "cudnn-v2"), (2016, "cudnn-v5.1")):
        if year <= last:
            return name
    return "cudnn-v7" if year < 2020 else "cudnn-v8"

"""``simulate``: a plan on a machine, timed by a library's cost model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from alexsim.errors import PlanError
from alexsim.machine.machine import Machine, load_machine
from alexsim.network.hybrid import first_split
from alexsim.network.network import Network
from alexsim.plan.planner import plan as make_plan
from alexsim.plan.records import Plan, Policy, Schedule, TransportName
from alexsim.simulate.correction import load_correction
from alexsim.simulate.costs.libraries import load_library
from alexsim.simulate.engine import run
from alexsim.simulate.host import data_path_times
from alexsim.simulate.records import Simulation
from alexsim.simulate.summary import Run, summarise
from alexsim.simulate.tasks import DataPath, TaskList, Timer
from alexsim.trace import Trace

Partition = Literal["columns", "replicas", "hybrid"]
PARTITIONS: tuple[Partition, ...] = ("columns", "replicas", "hybrid")
_NETWORK = "10gbe"
_STEPS, _EVEN = 6, 3
"""A pipeline with two buffers per stage runs evenly from the fourth step."""
_WHOLE_STEPS, _WHOLE_EVEN = 12, 5
"""While the sixth step runs, the data path works on images of up to the twelfth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What is trained, and how it is split over how many GPUs.

    ``columns``: one plan over its devices, and ``replicas`` copies of them all. ``replicas``: a
    copy of a one-device plan per GPU. ``hybrid``: that, with the fully connected layers split over
    the GPUs instead. Every copy has an equal share of the images.
    """

    network: Network
    gpus: int | None = None
    partition: Partition = "columns"
    replicas: int = 1
    variable_batch: bool = False
    """With ``hybrid``: the split layers are updated after each device's images."""
    batch_size: int = 128
    schedule: Schedule = "serial"
    transport: TransportName | Literal[""] = ""
    """The machine's own if empty."""
    policy: Policy = "as-released"
    trainable: frozenset[str] | None = None
    """Layers that learn; all by default."""

    @property
    def copies(self) -> int:
        """Shares into which the images are divided."""
        if self.partition == "columns" or self.gpus is None:
            return self.replicas
        return self.gpus

    @property
    def slices(self) -> int:
        """Devices that a hybrid partition splits the fully connected layers over."""
        return self.copies if self.partition == "hybrid" else 1

    def plan(self, machine: Machine, *, backend: str = "") -> Plan:
        """The plan of one copy.

        Raises:
            PlanError: a choice is not allowed, or the images do not divide over the copies.
            NetworkError: a hybrid partition cannot split the network.
        """
        if self.partition not in PARTITIONS:
            raise PlanError(
                f"partition must be one of {', '.join(PARTITIONS)}; got {self.partition!r}"
            )
        if self.gpus is None and self.partition != "columns":
            raise PlanError(f"partition {self.partition} needs a number of GPUs (--gpus N)")
        if self.gpus is not None and self.gpus < 1:
            raise PlanError(f"gpus must be at least 1, got {self.gpus}")
        if self.replicas > 1 and self.partition != "columns":
            raise PlanError(
                f"partition {self.partition} has as many copies as GPUs (--gpus); replicas are of"
                " partition columns"
            )
        if self.batch_size % self.copies:
            what = "GPUs" if self.partition != "columns" else "replicas"
            raise PlanError(
                f"a batch of {self.batch_size} images does not divide over {self.copies} {what}"
            )
        if self.partition == "hybrid":
            first_split(self.network)
        elif self.variable_batch:
            raise PlanError("a variable batch needs partition hybrid")
        return _plan(
            self.network,
            gpus=self.gpus if self.partition == "columns" else 1,
            batch_size=self.batch_size // self.copies,
            replicas=self.copies if self.slices == 1 else 1,
            policy=self.policy,
            schedule=self.schedule,
            transport=self.transport or ("peer" if machine.peer else "host"),
            backend=backend,
            trainable=self.trainable,
        )

    def whole_plan(self, machine: Machine) -> Plan:
        """The plan of every device: of a hybrid partition, as it is trained.

        Raises:
            PlanError: as ``plan``.
            NetworkError: as ``plan``.
        """
        alike = self.plan(machine)
        if self.slices == 1:
            return alike
        return _plan(
            self.network,
            gpus=self.slices,
            partition="hybrid",
            variable_batch=self.variable_batch,
            batch_size=alike.batch_size,
            policy=self.policy,
            schedule=self.schedule,
            transport=alike.transport,
            trainable=self.trainable,
        )


def enough_machines(name: str, devices: int) -> Machine:
    """A machine; where it has too few devices and no network, as many of its kind as have enough,
    joined by 10 Gbit/s Ethernet."""
    machine = load_machine(name)
    if devices <= machine.devices_per_node.value or machine.network is not None:
        return machine
    joined = load_machine(name, "", _NETWORK)
    count = math.ceil(devices / joined.devices_per_node.value)
    return replace(joined, name=f"{count} machines over {_NETWORK}, each: {machine.name}")


_plan = lru_cache(maxsize=32)(make_plan)
"""Sweeps ask for the same plan on many machines."""


def simulate(
    plan: Plan,
    timer: Timer,
    *,
    data: DataPath = "jpeg",
    slices: int = 1,
    variable_batch: bool = False,
    whole_pipeline: bool = False,
) -> Simulation:
    """Run a plan on a machine's virtual clock until its steps repeat.

    Args:
        plan: what every device does in a step; one copy of it.
        timer: the machine, and whose speed its ops have.
        data: ``jpeg`` reads, decodes and crops images beside the step; ``none`` has them ready.
        slices: devices of a hybrid partition, of which the plan is one whole copy.
        variable_batch: whether their fully connected layers are updated after each one's images.
        whole_pipeline: run several steps with the data path beside them even where one step alone
            takes the same time: a serial step that is longer than every stage of the data path
            never waits for it.

    Raises:
        PlanError: the machine has fewer devices than the plan, or nothing is multiplied.
        ProfileError: the machine's numbers give no finite time.
    """
    if not any(op.count.mac for op in plan.ops()):
        raise PlanError(f"{plan.network.name} has no convolution and no fully connected layer")
    machine, copies = timer.machine, slices * plan.replicas
    count = len(plan.devices) * copies
    room = math.inf if machine.network else machine.devices_per_node.value
    if count > room:
        raise PlanError(
            f"{machine.name} has {room:g} device(s) and no network; {count} are asked for"
        )

    def tasks(data: DataPath) -> TaskList:
        return TaskList(
            plan=plan, timer=timer, data=data, slices=slices, variable_batch=variable_batch
        )

    host = data_path_times(machine, plan, copies) if data == "jpeg" else None
    # Where decoding takes the cores' time, all of it must be there.
    whole = whole_pipeline or timer.calibration is not None
    steps, even = (_WHOLE_STEPS, _WHOLE_EVEN) if whole else (_STEPS, _EVEN)
    alike = plan.schedule == "serial" and not timer.calibration
    ready = _run(tasks("none"), 1, looked_at=0) if alike else _run(tasks("none"), steps, even)
    if host is None or (alike and not whole_pipeline and ready.step_s >= host.seconds):
        return summarise(ready, data_path=host)
    return summarise(
        _run(tasks(data), steps, looked_at=even), data_path=host, without_data_s=ready.step_s
    )


def _run(listed: TaskList, steps: int, looked_at: int) -> Run:
    listed.build(steps)
    return Run(listed=listed, times=run(listed.tasks), steps=steps, looked_at=looked_at)


def simulate_network(
    configuration: Configuration,
    timer: Timer,
    *,
    data: DataPath = "jpeg",
    whole_pipeline: bool = False,
) -> Simulation:
    """Plan and simulate: what commands and sweeps call."""
    backend = "aten" if timer.calibration else ""
    if timer.calibration and (configuration.partition != "columns" or configuration.replicas > 1):
        raise PlanError("this machine's calibration predicts one replica of partition columns only")
    found = simulate(
        configuration.plan(timer.machine, backend=backend),
        timer,
        data=data,
        slices=configuration.slices,
        variable_batch=configuration.variable_batch,
        whole_pipeline=whole_pipeline,
    )
    return replace(found, partition=configuration.partition)


def on_machine(
    configuration: Configuration, machine: Machine, *, data: DataPath = "jpeg"
) -> Simulation:
    """A configuration on a machine as everyone would run it, with the library of its time.

    Its trace is the devices' alone: it is laid beside what was measured of them.
    """
    timer = Timer(
        machine=machine,
        library=load_library(default_library(machine)),
        correction=load_correction(),
    )
    found = simulate_network(configuration, timer, data=data)
    spans = tuple(span for span in found.trace.spans if span.device != "host")
    return replace(found, trace=Trace(spans=spans))


def default_library(machine: Machine) -> str:
    """The library that a card of its year was used with."""
    year = machine.device.year
    for last, name in ((2012, "cuda-convnet"), (2014, "cudnn-v2"), (2016, "cudnn-v5.1")):
        if year <= last:
            return name
    return "cudnn-v7" if year < 2020 else "cudnn-v8"

"""``simulate``: a plan on a machine, timed by a library's cost model."""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache
from typing import Literal

from alexsim.errors import PlanError
from alexsim.machine.machine import Machine
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import FullyConnected
from alexsim.network.network import Network
from alexsim.plan.planner import plan as make_plan
from alexsim.plan.records import Op, OpKind, Plan, Policy, Schedule, TransportName
from alexsim.simulate.correction import Correction
from alexsim.simulate.costs.libraries import load_library
from alexsim.simulate.costs.records import Precision
from alexsim.simulate.engine import Task, run
from alexsim.simulate.records import (
    DeviceTimes,
    ExchangeTimes,
    Interval,
    LayerTimes,
    Simulation,
)
from alexsim.simulate.tasks import DataPath, Scale, TaskList, Timer, host_stages
from alexsim.trace import Span, Trace

PARTITIONS = ("columns", "replicas", "hybrid")
_STEPS = 4
"""Steps until a pipeline with two buffers runs evenly."""
_NINE_IN_TEN = 1.645
"""Standard deviations that hold 90 % of a normal distribution."""


def partition(
    network: Network, *, gpus: int | None, kind: str, batch_size: int
) -> tuple[int, int, Scale]:
    """Devices of one copy of the plan, its images, and the copies.

    ``columns``: one copy. ``replicas`` and ``hybrid``: a copy per GPU, on an equal share of images.

    Raises:
        PlanError: the partition is unknown, or the batch does not divide.
    """
    if kind not in PARTITIONS:
        raise PlanError(f"partition must be one of {', '.join(PARTITIONS)}; got {kind!r}")
    if kind == "columns":
        return gpus or network.columns, batch_size, Scale()
    copies = gpus or 1
    if batch_size % copies:
        raise PlanError(f"a batch of {batch_size} images does not divide over {copies} GPUs")
    return 1, batch_size // copies, Scale(replicas=copies, hybrid=kind == "hybrid")


def simulate(
    plan: Plan,
    machine: Machine,
    *,
    library: str,
    correction: Correction,
    family: str = "",
    precision: Precision = "fp32",
    data: DataPath = "jpeg",
    scale: Scale | None = None,
    whole_pipeline: bool = False,
) -> Simulation:
    """Run a plan on a machine's virtual clock until its steps repeat.

    Args:
        plan: what every device does in a step; one copy of it.
        machine: devices, links and host.
        library: whose kernels' speed is modelled.
        correction: what fitting has taught about that library.
        family: the framework around the library; its own by default.
        precision: of products; storage is half as large with ``fp16``.
        data: ``jpeg`` reads, decodes and crops images beside the step; ``none`` has them ready.
        scale: copies of the plan on other devices.
        whole_pipeline: run several steps with the data path beside them even where one step alone
            takes the same time: a serial step that is longer than every stage of the data path
            never waits for it.

    Raises:
        PlanError: the machine has fewer devices than the plan.
        ProfileError: there is no such library.
    """
    scale = scale or Scale()
    count = len(plan.devices) * scale.replicas
    room = math.inf if machine.network else machine.devices_per_node.value
    if count > room:
        raise PlanError(
            f"{machine.name} has {room:g} device(s) and no network; {count} are asked for"
        )
    timer = Timer(
        machine=machine,
        library=load_library(library, family),
        correction=correction,
        precision=precision,
    )
    steps = _STEPS
    if plan.schedule == "serial" and not whole_pipeline:
        stages = host_stages(machine, plan.batch_size * scale.replicas).values()
        slowest = max(stages) if data == "jpeg" else 0.0
        listed = TaskList(plan=plan, timer=timer, data="none", scale=scale)
        listed.build(1)
        start, end = run(listed.tasks)
        if max(end) >= slowest:
            steps = 1
            listed.data = data
    if steps > 1:
        listed = TaskList(plan=plan, timer=timer, data=data, scale=scale)
        listed.build(steps)
        start, end = run(listed.tasks)
    ends = [0.0] * (steps + 1)
    for (step, op, _), finish in zip(listed.ops, end, strict=True):
        if op is not None:
            ends[step + 1] = max(ends[step + 1], finish)
    step_s = ends[steps] - ends[steps - 1]
    spread = _spread(listed, correction)
    return _summary(listed, start, end, ends, step_s, spread)


def simulate_network(
    network: Network,
    machine: Machine,
    *,
    library: str,
    correction: Correction,
    gpus: int | None = None,
    kind: str = "columns",
    batch_size: int = 128,
    schedule: Schedule = "serial",
    transport: TransportName | Literal[""] = "",
    policy: Policy = "as-released",
    data: DataPath = "jpeg",
    precision: Precision = "fp32",
    whole_pipeline: bool = False,
) -> Simulation:
    """Plan and simulate: what commands and sweeps call."""
    devices, images, scale = partition(network, gpus=gpus, kind=kind, batch_size=batch_size)
    made = _cached_plan(
        network,
        gpus=devices,
        batch_size=images,
        policy=policy,
        schedule=schedule,
        transport=transport or default_transport(machine),
    )
    return simulate(
        made,
        machine,
        library=library,
        correction=correction,
        data=data,
        precision=precision,
        scale=scale,
        whole_pipeline=whole_pipeline,
    )


_cached_plan = lru_cache(maxsize=32)(make_plan)
"""Sweeps ask for the same plan on many machines."""


def default_transport(machine: Machine) -> TransportName:
    """``peer`` where devices may read each other's memory, else ``host``."""
    return "peer" if machine.peer else "host"


def default_library(machine: Machine) -> str:
    """The library that a card of its year was used with."""
    year = machine.device.year
    for last, name in ((2012, "cuda-convnet"), (2014, "cudnn-v2"), (2016, "cudnn-v5.1")):
        if year <= last:
            return name
    return "cudnn-v7" if year < 2020 else "cudnn-v8"


def _spread(listed: TaskList, correction: Correction) -> float:
    """Standard deviation of the step's logarithm: that of the computing on the first device."""
    shares: dict[str, float] = defaultdict(float)
    total = 0.0
    first = listed.plan.devices[0].name
    for op in listed.plan.devices[0].ops:
        for cost in listed.costs.get(op.id, ()) if op.device == first else ():
            total += cost.seconds
            for trait in cost.traits:
                shares[trait] += cost.seconds
    return correction.spread({trait: share / total for trait, share in shares.items()})


def _summary(
    listed: TaskList,
    start: list[float],
    end: list[float],
    ends: list[float],
    step_s: float,
    spread: float,
) -> Simulation:
    plan, machine, scale = listed.plan, listed.timer.machine, listed.scale
    last = len(ends) - 2
    origin = ends[last]
    mine = [
        (op, task, begin, finish, name)
        for (step, op, name), task, begin, finish in zip(
            listed.ops, listed.tasks, start, end, strict=True
        )
        if step == last
    ]
    devices = tuple(_device(listed, index, mine, step_s) for index in range(len(plan.devices)))
    flop = sum(op.count.flop for op in plan.ops())
    forward_flop = sum(op.count.flop for op in plan.ops() if op.kind == OpKind.FORWARD)
    peak = machine.device.flop_per_s * len(plan.devices)
    spans = tuple(
        Span(
            op_id=name,
            device=task.queue.partition(".")[0],
            queue=task.queue.partition(".")[2],
            step=0,
            start_s=max(0.0, begin - origin),
            end_s=max(0.0, finish - origin),
            source="simulated",
        )
        for op, task, begin, finish, name in mine
        if finish > origin
    )
    loss = next(op.id for op in plan.ops() if op.kind == OpKind.LOSS)
    loss_end = next(finish for op, _, _, finish, name in mine if name == loss) - origin
    update = [begin for op, _, begin, _, _ in mine if op and op.kind == OpKind.UPDATE]
    backward_end = min(update, default=ends[-1]) - origin
    stages = host_stages(machine, plan.batch_size * scale.replicas)
    return Simulation(
        network=plan.network.name,
        machine=machine.name,
        library=listed.timer.library.name,
        partition="columns"
        if scale.replicas == 1
        else ("hybrid" if scale.hybrid else "replicas"),
        devices_count=len(plan.devices) * scale.replicas,
        batch_size=plan.batch_size * scale.replicas,
        step_s=step_s,
        step_interval=Interval(
            low=step_s * math.exp(-_NINE_IN_TEN * spread),
            high=step_s * math.exp(_NINE_IN_TEN * spread),
        ),
        forward_s=loss_end,
        backward_s=backward_end - loss_end,
        utilisation=flop / step_s / peak,
        ideal_forward_images_per_s=peak * scale.replicas * plan.batch_size / forward_flop,
        host_s=max(stages.values()) if listed.data == "jpeg" else 0.0,
        all_reduce_s=sum(t.seconds for op, t, _, _, n in mine if n.endswith(".all_reduce")),
        devices=devices,
        exchanges=_exchange_times(plan, mine),
        layers=_layers(listed),
        trace=Trace(spans=spans),
    )


_Placed = tuple[Op | None, Task, float, float, str]


def _device(listed: TaskList, index: int, mine: list[_Placed], step_s: float) -> DeviceTimes:
    device = listed.plan.devices[index]
    own = [(op, task) for op, task, _, _, _ in mine if op is not None and op.device == device.name]
    busy = sum(
        cost.seconds for op, _, _, _, name in mine if op is not None and name == op.id
        and op.device == device.name for cost in listed.costs.get(op.id, ())
    )
    exchange = sum(t.seconds for op, t in own if op.kind in (OpKind.POST, OpKind.WAIT))
    upload = sum(t.seconds for op, t in own if op.kind == OpKind.UPLOAD)
    on_queue = sum(task.seconds for _, task in own if task.queue.endswith(".compute"))
    barriers = sum(task.seconds for op, task in own if op.kind == OpKind.BARRIER)
    return DeviceTimes(
        name=device.name,
        busy_s=busy,
        idle_s=max(0.0, step_s - on_queue + barriers),
        exchange_s=exchange,
        upload_s=upload,
        memory_bytes=device.total_bytes
        + int(listed.timer.machine.device.context_bytes.value)
        + _unfused_bytes(listed),
    )


def _unfused_bytes(listed: TaskList) -> int:
    """Weight gradients that replicas must hold, which one copy adds straight to the momentum."""
    if listed.scale.replicas == 1 or listed.scale.hybrid:
        return 0
    return FLOAT_BYTES * sum(
        part.weight_count
        for parts in listed.plan.network.parts
        for part in parts
        if isinstance(part.layer, FullyConnected)
    )


def _exchange_times(plan: Plan, mine: list[_Placed]) -> tuple[ExchangeTimes, ...]:
    seconds: dict[str, float] = defaultdict(float)
    for op, task, _, _, _ in mine:
        if op is not None and op.exchange:
            seconds[op.exchange] += task.seconds
    return tuple(
        ExchangeTimes(
            name=exchange.name,
            source=exchange.source,
            target=exchange.target,
            size_bytes=exchange.size_bytes,
            seconds=seconds[exchange.name],
        )
        for exchange in plan.exchanges
    )


def _layers(listed: TaskList) -> tuple[LayerTimes, ...]:
    passes: dict[tuple[str, str], dict[str, float]] = {}
    limits: dict[tuple[str, str], dict[str, float]] = {}
    for op in listed.plan.ops():
        if op.id not in listed.costs:
            continue
        key = (op.layer, op.device)
        mine = passes.setdefault(key, defaultdict(float))
        limit = limits.setdefault(key, defaultdict(float))
        for cost in listed.costs[op.id]:
            mine[_PASS.get(op.kind, "forward_s")] += cost.seconds
            limit[cost.limit] += cost.seconds
    order = [parts[0].layer.name for parts in listed.plan.network.parts]
    return tuple(
        LayerTimes(
            name=name,
            device=device,
            forward_s=times["forward_s"],
            grad_input_s=times["grad_input_s"],
            grad_weight_s=times["grad_weight_s"],
            update_s=times["update_s"],
            limit=max(limits[name, device].items(), key=lambda item: item[1])[0],
        )
        for (name, device), times in sorted(
            passes.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
    )


_PASS = {
    OpKind.GRAD_INPUT: "grad_input_s",
    OpKind.ACCUMULATE: "grad_input_s",
    OpKind.GRAD_WEIGHT: "grad_weight_s",
    OpKind.UPDATE: "update_s",
}

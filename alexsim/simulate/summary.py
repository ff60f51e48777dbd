"""What a run of the engine says about a step: times by device, layer and exchange."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import FullyConnected
from alexsim.plan.records import Op, OpKind, Plan
from alexsim.simulate.costs.gemm import tensor_speedup
from alexsim.simulate.engine import Task
from alexsim.simulate.records import (
    NINE_IN_TEN,
    DeviceTimes,
    ExchangeTimes,
    Interval,
    LayerTimes,
    Simulation,
)
from alexsim.simulate.tasks import DataPath, TaskList, host_stages
from alexsim.trace import Span, Trace


def _spread(listed: TaskList) -> float:
    """Standard deviation of the step's logarithm: that of the computing on the first device."""
    shares: dict[str, float] = defaultdict(float)
    total = 0.0
    first = listed.plan.devices[0].name
    for op in listed.plan.devices[0].ops:
        for cost in listed.costs.get(op.id, ()) if op.device == first else ():
            total += cost.seconds
            for trait in cost.traits:
                shares[trait] += cost.seconds
    return listed.timer.correction.spread({trait: share / total for trait, share in shares.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Tasks of some steps, and when each started and ended."""

    listed: TaskList
    start: list[float]
    end: list[float]
    steps: int
    looked_at: int
    """The step that stands for all."""


def summarise(run: Run, *, data: DataPath) -> Simulation:
    """What the step that is looked at says."""
    listed = run.listed
    ends = [0.0] * (run.steps + 1)
    for (step, op, _), finish in zip(listed.ops, run.end, strict=True):
        if op is not None:
            ends[step + 1] = max(ends[step + 1], finish)
    last = run.looked_at
    origin, step_s = ends[last], ends[last + 1] - ends[last]
    spread = _spread(listed)
    plan, machine, scale = listed.plan, listed.timer.machine, listed.scale
    mine = [
        (op, task, begin, finish, name)
        for (step, op, name), task, begin, finish in zip(
            listed.ops, listed.tasks, run.start, run.end, strict=True
        )
        if step == last
    ]
    devices = tuple(_device(listed, index, mine, step_s) for index in range(len(plan.devices)))
    flop = sum(op.count.flop for op in plan.ops())
    forward_flop = sum(op.count.flop for op in plan.ops() if op.kind == OpKind.FORWARD)
    peak = machine.device.flop_per_s * len(plan.devices)
    peak *= tensor_speedup(machine.device, listed.timer.precision)
    loss = next(op.id for op in plan.ops() if op.kind == OpKind.LOSS)
    loss_end = next(finish for op, _, _, finish, name in mine if name == loss) - origin
    # A sum of gradients before an update bears its op, under a name of its own.
    update = [b for op, _, b, _, n in mine if op and op.kind == OpKind.UPDATE and n == op.id]
    backward_end = min(update, default=ends[last + 1]) - origin
    stages = host_stages(machine, plan, scale)
    return Simulation(
        network=plan.network.name,
        machine=machine.name,
        library=listed.timer.library.name,
        partition="columns" if scale.replicas == 1 else ("hybrid" if scale.hybrid else "replicas"),
        devices_count=len(plan.devices) * scale.replicas,
        batch_size=plan.batch_size * scale.replicas,
        step_s=step_s,
        step_interval=Interval(
            low=step_s * math.exp(-NINE_IN_TEN * spread),
            high=step_s * math.exp(NINE_IN_TEN * spread),
        ),
        forward_s=loss_end,
        backward_s=backward_end - loss_end,
        utilisation=flop / step_s / peak,
        ideal_forward_images_per_s=peak * scale.replicas * plan.batch_size / forward_flop,
        host_s=max(stages.values()) if data == "jpeg" else 0.0,
        all_reduce_s=sum(t.seconds for op, t, _, _, n in mine if n.endswith(".all_reduce")),
        devices=devices,
        exchanges=_exchange_times(plan, mine),
        layers=_layers(listed),
        device_memory_bytes=int(machine.device.memory_bytes.value),
        trace=Trace(spans=tuple(_spans(run, origin, step_s))),
    )


def _spans(run: Run, origin: float, step_s: float) -> Iterator[Span]:
    """What happens while the step runs: its ops, and what the host does ahead for others."""
    for (_, _, name), task, begin, finish in zip(
        run.listed.ops, run.listed.tasks, run.start, run.end, strict=True
    ):
        if finish <= origin or begin >= origin + step_s:
            continue
        device, _, queue = task.queue.partition(":")[0].partition(".")
        yield Span(
            op_id=name,
            device=device,
            queue=queue,
            step=0,
            start_s=max(0.0, begin - origin),
            end_s=min(step_s, finish - origin),
            source="simulated",
        )


_Placed = tuple[Op | None, Task, float, float, str]


def _device(listed: TaskList, index: int, mine: list[_Placed], step_s: float) -> DeviceTimes:
    device = listed.plan.devices[index]
    own = [(op, task) for op, task, _, _, _ in mine if op is not None and op.device == device.name]
    busy = sum(
        cost.seconds
        for op, _, _, _, name in mine
        if op is not None and name == op.id and op.device == device.name
        for cost in listed.costs.get(op.id, ())
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

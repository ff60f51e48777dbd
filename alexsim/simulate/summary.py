"""What a run of the engine says about a step: times by device, layer, op and exchange."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from alexsim.plan.records import Op, OpKind, Plan
from alexsim.simulate.costs.gemm import peak_flop_per_s
from alexsim.simulate.critical import critical_path, interval
from alexsim.simulate.engine import Task, Times
from alexsim.simulate.records import (
    DataPathTimes,
    DeviceTimes,
    ExchangeTimes,
    LayerTimes,
    OpTimes,
    Simulation,
)
from alexsim.simulate.tasks import TaskList
from alexsim.trace import Activity, Span, Trace, activity, covered_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Tasks of some steps, and when each started and ended."""

    listed: TaskList
    times: Times
    steps: int
    looked_at: int
    """The step that stands for all."""

    def closing(self, step: int) -> tuple[int, float]:
        """The task of the devices that ends a step, and when; the first step begins at 0."""
        ends = [
            (finish, index)
            for index, ((of, op, _), finish) in enumerate(
                zip(self.listed.ops, self.times.end, strict=True)
            )
            if of == step and op is not None
        ]
        finish, index = max(ends, default=(0.0, 0))
        return index, finish

    @property
    def step_s(self) -> float:
        """Length of the step that is looked at, from the end of the one before."""
        return self.closing(self.looked_at)[1] - self.closing(self.looked_at - 1)[1]


def summarise(
    run: Run, *, data_path: DataPathTimes | None, without_data_s: float | None = None
) -> Simulation:
    """What the step that is looked at says.

    Args:
        run: tasks and their times.
        data_path: what the hosts do beside it; None where images are ready.
        without_data_s: the step if they were ready; by default it is this one.
    """
    listed = run.listed
    start, end = run.times.start, run.times.end
    last = run.looked_at
    origin = run.closing(last - 1)[1]
    closing, closed = run.closing(last)
    step_s = closed - origin
    plan, machine = listed.plan, listed.timer.machine
    copies = plan.replicas
    host_s, count = data_path.seconds if data_path else 0.0, len(plan.devices) * copies
    mine = [
        (op, task, begin, finish, name)
        for (step, op, name), task, begin, finish in zip(
            listed.ops, listed.tasks, start, end, strict=True
        )
        if step == last
    ]
    spans = tuple(_spans(run, origin, step_s))
    devices = tuple(
        _device(listed, index, mine, spans, step_s) for index in range(len(plan.devices))
    )
    images = plan.images // plan.replicas
    ops = _ops(listed)
    flop = sum(op.flop for op in ops)
    forward_flop = sum(op.flop for op in ops if op.kind == OpKind.FORWARD)
    one_peak, peak = (_peak_flop_per_s(listed, ops, n) for n in (1, len(plan.devices)))
    # Of several heads, or turns, the last cost before anything goes back.
    first = [op for op in plan.devices[0].ops if op.kind in (OpKind.LOSS, OpKind.GRAD_INPUT)]
    loss = [op.id for op in takewhile(lambda op: op.kind == OpKind.LOSS, first)][-1]
    loss_end = next(finish for op, _, _, finish, name in mine if name == loss) - origin
    # A sum of gradients before an update bears its op, under a name of its own.
    update = [b for op, _, b, _, n in mine if op and op.kind == OpKind.UPDATE and n == op.id]
    backward_end = min(update, default=closed) - origin
    path = critical_path(listed, run.times, closing, origin)
    return Simulation(
        network=plan.network.name,
        machine=machine.name,
        library=listed.timer.library.name,
        partition=plan.partition,
        replicas=plan.replicas,
        devices_count=count,
        batch_size=plan.images,
        step_s=step_s,
        step_without_data_s=step_s if without_data_s is None else without_data_s,
        step_interval=interval(listed, step_s, path, devices, host_s=host_s),
        forward_s=loss_end,
        backward_s=backward_end - loss_end,
        utilisation=flop / step_s / peak,
        ideal_forward_images_per_s=peak * copies * images / forward_flop,
        done_share=flop / sum(op.count.flop for op in plan.ops()),
        ideal_training_images_per_s=one_peak * images / flop,
        data_path=data_path,
        all_reduce_s=sum(t.seconds for _, t, _, _, n in mine if activity(n) == "all_reduce")
        / len(plan.devices),
        devices=devices,
        exchanges=_exchange_times(plan, mine),
        layers=_layers(listed),
        ops=ops,
        critical_path=path,
        device_memory_bytes=int(machine.device.memory_bytes.value),
        power_w=count * machine.device.power_w.value,
        price_usd=count * price.value if (price := machine.device.price_usd) else None,
        trace=Trace(spans=spans),
    )


def _peak_flop_per_s(listed: TaskList, ops: tuple[OpTimes, ...], devices: int) -> float:
    """Peak of so many of the machine's devices.

    This machine's virtual GPUs are all one, and its peak is the best rate that was measured.
    """
    timer = listed.timer
    one = peak_flop_per_s(timer.machine.device, timer.precision)
    if timer.calibration is None:
        return devices * one
    return max(one, *(op.flop / op.seconds for op in ops if op.seconds))


def _spans(run: Run, origin: float, step_s: float) -> Iterator[Span]:
    """What happens while the step runs: its ops, and what the host does ahead for others."""
    for (_, _, name), task, begin, finish in zip(
        run.listed.ops, run.listed.tasks, run.times.start, run.times.end, strict=True
    ):
        if finish <= origin or begin >= origin + step_s:
            continue
        device, _, queue = task.queue.partition(".")
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


def _device(
    listed: TaskList, index: int, mine: list[_Placed], spans: tuple[Span, ...], step_s: float
) -> DeviceTimes:
    device = listed.plan.devices[index]
    whole: dict[Activity, float] = defaultdict(float)
    for op, task, _, _, name in mine:
        if op is not None and op.device == device.name:
            whole[activity(name)] += task.seconds
    when: dict[Activity, list[tuple[float, float]]] = defaultdict(list)
    for span in spans:
        if span.device == device.name:
            when[activity(span.op_id)].append((span.start_s, span.end_s))
    exposed: dict[Activity, float] = {}
    seen: list[tuple[float, float]] = []
    reached = 0.0
    for what in _IN_TURN:
        seen += when[what]
        covered = covered_s(seen)
        exposed[what], reached = covered - reached, covered
    return DeviceTimes(
        name=device.name,
        busy_s=exposed["computing"],
        idle_s=max(0.0, step_s - reached),
        exchange_s=whole["exchange"],
        upload_s=whole["upload"],
        exposed_exchange_s=exposed["exchange"],
        exposed_all_reduce_s=exposed["all_reduce"],
        exposed_upload_s=exposed["upload"],
        memory_bytes=device.total_bytes + int(listed.timer.machine.device.context_bytes.value),
    )


_IN_TURN: tuple[Activity, ...] = ("computing", "exchange", "all_reduce", "upload")
"""What hides what follows: a transfer counts as exposed where nothing before it goes on."""


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


def _ops(listed: TaskList) -> tuple[OpTimes, ...]:
    times = []
    for op in listed.plan.ops():
        if not (costs := listed.costs.get(op.id)):
            continue
        longest, seconds, flop = costs[0], costs[0].seconds, costs[0].flop
        for cost in costs[1:]:
            longest = cost if cost.seconds > longest.seconds else longest
            seconds, flop = seconds + cost.seconds, flop + cost.flop
        times.append(
            OpTimes(
                name=op.id,
                device=op.device,
                kind=op.kind.value,
                seconds=seconds,
                limit=longest.limit,
                # A slice of a layer may do its share and a little more: its whole is what counts.
                flop=min(op.count.flop, flop),
            )
        )
    return tuple(times)


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

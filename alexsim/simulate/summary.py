"""From a run of the engine to a step's times by device, layer, op and exchange."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

from alexsim.costs.gemm import peak_flop_per_s
from alexsim.costs.precision import computed
from alexsim.plan.plan import PASS_OF, Op, OpKind, Plan
from alexsim.simulate.critical import critical_path, elasticities, interval
from alexsim.simulate.engine import Times
from alexsim.simulate.evidence import evidence_of
from alexsim.simulate.simulation import (
    DataPathTimes,
    DeviceTimes,
    ExchangeTimes,
    LayerTimes,
    OpTimes,
    Simulation,
)
from alexsim.simulate.tasks import TaskList
from alexsim.trace import Activity, Span, Trace, covered_s


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedSteps:
    """Tasks of some steps, and when each started and ended."""

    listed: TaskList
    times: Times
    steps: int
    looked_at: int
    """Index of the step that is summarised."""

    def closing(self, step: int) -> tuple[int, float]:
        """The devices' last task of a step, and when it ends; nothing ends before the first step,
        which begins at 0."""
        if step < 0:
            return -1, 0.0
        ends = [(finish, index) for index, _, _, finish in self.ops_of(step)]
        finish, index = max(ends)
        return index, finish

    def ops_of(self, step: int) -> Iterator[tuple[int, Op, float, float]]:
        """Index, op, start and end of each of a step's tasks that is an op."""
        ops, start, end = self.listed.ops, self.times.start, self.times.end
        for index in self.listed.of_step[step].values():
            op = ops[index][0]
            if isinstance(op, Op):
                yield index, op, start[index], end[index]

    @property
    def step_s(self) -> float:
        """Length of the summarised step, from the end of the step before it."""
        return self.closing(self.looked_at)[1] - self.closing(self.looked_at - 1)[1]


def summarise(
    run: TimedSteps, *, data_path: DataPathTimes | None, without_data_s: float | None = None
) -> Simulation:
    """Summarise the step that is looked at.

    Args:
        run: tasks and their times.
        data_path: the hosts' work beside it; None where images are ready.
        without_data_s: seconds of the step if images were ready; by default this step's.
    """
    listed = run.listed
    last = run.looked_at
    before, origin = run.closing(last - 1)
    closing, closed = run.closing(last)
    step_s = closed - origin
    plan, machine = listed.plan, listed.timer.machine
    copies = plan.stands_for
    host_s, count = data_path.seconds if data_path else 0.0, len(plan.devices) * copies
    cards = machine.cards(count)
    prices = [card.price_usd.value for card in cards if card.price_usd]
    timed = [
        (op, listed.tasks[index].seconds, begin, finish)
        for index, op, begin, finish in run.ops_of(last)
    ]
    spans = dict(_spans(run, origin, closed))
    trace = Trace(spans=tuple(spans.values()))
    devices = tuple(
        _device(listed, index, timed, trace, step_s) for index in range(len(plan.devices))
    )
    images = plan.images // copies
    ops = _ops(listed)
    flop = sum(op.flop for op in ops)
    forward_flop = sum(op.flop for op in ops if op.kind == OpKind.FORWARD)
    device_peak, peak = (_peak_flop_per_s(listed, ops, n) for n in (1, len(plan.devices)))
    # With several heads or turns: the last loss before any gradient.
    first = [op for op in plan.devices[0].ops if op.kind in (OpKind.LOSS, OpKind.GRAD_INPUT)]
    loss = [op.id for op in takewhile(lambda op: op.kind == OpKind.LOSS, first)][-1]
    loss_end = next(finish for op, _, _, finish in timed if op.id == loss) - origin
    update = [begin for op, _, begin, _ in timed if op.kind == OpKind.UPDATE]
    backward_end = min(update, default=closed) - origin
    path = critical_path(spans, run.times, closing, origin)
    return Simulation(
        network=plan.network.name,
        machine=machine.name,
        library=listed.timer.library.name,
        partition=plan.spec.partition,
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
        ideal_training_images_per_s=(peak / count if machine.devices else device_peak)
        * images
        / flop,
        data_path=data_path,
        all_reduce_s=sum(s for op, s, _, _ in timed if op.kind.activity == "all_reduce")
        / len(plan.devices),
        devices=devices,
        exchanges=_exchange_times(plan, timed),
        layers=_layers(listed),
        ops=ops,
        critical_path=path,
        elasticities=elasticities(listed, run.times, closing, before),
        device_memory_bytes=int(min(card.memory_bytes.value for card in cards)),
        device_flop_per_s=machine.device.flop_per_s,
        power_w=sum(card.power_w.value for card in cards),
        price_usd=sum(prices) if len(prices) == count else None,
        computed=computed(
            listed.timer.precision, machine.device, listed.timer.library.name, plan.network.layers
        ),
        evidence=evidence_of(
            listed.timer,
            (cost for op in plan.devices[0].ops for cost in listed.costs.kernels.get(op.id, ())),
        ),
        trace=trace,
    )


def _peak_flop_per_s(listed: TaskList, ops: tuple[OpTimes, ...], devices: int) -> float:
    """Peak of ``devices`` of the machine's devices.

    Of a machine that was measured it is the best rate that was; virtual GPUs and replicas that
    share its cores share that.
    """
    timer = listed.timer
    device_peak = peak_flop_per_s(timer.machine.device, timer.best_precision)
    if timer.machine.devices:
        cards = enumerate(timer.machine.cards(devices))
        return sum(peak_flop_per_s(card, timer.best_on(index)) for index, card in cards)
    if timer.calibration is None:
        return devices * device_peak
    best = max(device_peak, *(op.flop / op.seconds for op in ops if op.seconds))
    shared = timer.calibration.on_cores and timer.machine.network is None
    return best / listed.plan.replicas if shared else devices * best


def _spans(run: TimedSteps, origin: float, closed: float) -> Iterator[tuple[int, Span]]:
    """Spans of tasks that run during the step: its ops, and the host's work for later steps."""
    for index, ((item, queue), begin, finish) in enumerate(
        zip(run.listed.ops, run.times.start, run.times.end, strict=True)
    ):
        if finish > origin and begin < closed:
            yield (
                index,
                item.span(
                    queue=queue,
                    step=0,
                    start_s=max(0.0, begin - origin),
                    end_s=min(closed, finish) - origin,
                    source="simulated",
                ),
            )


_Timed = tuple[Op, float, float, float]
"""An op of the summarised step, its length, its start and its end."""


def _device(
    listed: TaskList, index: int, timed: list[_Timed], trace: Trace, step_s: float
) -> DeviceTimes:
    device, card = listed.plan.devices[index], listed.timer.machine.device_at(index)
    total: dict[Activity, float] = defaultdict(float)
    for op, seconds, _, _ in timed:
        if op.device_index == index:
            total[op.kind.activity] += seconds
    intervals: dict[Activity, list[tuple[float, float]]] = defaultdict(list)
    for span in trace.spans:
        if span.device_index == index:
            intervals[span.activity].append((span.start_s, span.end_s))
    exposed: dict[Activity, float] = {}
    seen: list[tuple[float, float]] = []
    reached = 0.0
    for activity in _IN_TURN:
        seen += intervals[activity]
        covered = covered_s(seen)
        exposed[activity], reached = covered - reached, covered
    return DeviceTimes(
        name=device.name,
        busy_s=exposed["computing"],
        idle_s=max(0.0, step_s - reached),
        exchange_s=total["exchange"],
        upload_s=total["upload"],
        all_reduce_s=total["all_reduce"],
        exposed_exchange_s=exposed["exchange"],
        exposed_all_reduce_s=exposed["all_reduce"],
        exposed_upload_s=exposed["upload"],
        memory_bytes=device.total_bytes + int(card.context_bytes.value),
        card=card.name,
        capacity_bytes=int(card.memory_bytes.value),
    )


_IN_TURN: tuple[Activity, ...] = ("computing", "exchange", "all_reduce", "upload")
"""Each activity hides those that follow: a transfer is exposed where none before it goes on."""


def _exchange_times(plan: Plan, timed: list[_Timed]) -> tuple[ExchangeTimes, ...]:
    seconds: dict[str, float] = defaultdict(float)
    for op, taken_s, _, _ in timed:
        if op.exchange:
            seconds[op.exchange] += taken_s
        elif op.collective:
            # All devices take part at the same time.
            seconds[op.collective] = taken_s
    return tuple(
        ExchangeTimes(
            name=transfer.name,
            label=transfer.label,
            layer=transfer.layer,
            direction=transfer.direction,
            turn=transfer.turn,
            source=transfer.source,
            target=transfer.target,
            size_bytes=transfer.exchanged_bytes,
            seconds=seconds[transfer.name],
        )
        for transfer in plan.transfers
    )


def _ops(listed: TaskList) -> tuple[OpTimes, ...]:
    times = []
    for op in listed.plan.ops():
        if not (costs := listed.costs.kernels.get(op.id)):
            continue
        longest, seconds, flop = costs[0], costs[0].seconds, costs[0].flop
        least_s = longest.least_s
        for cost in costs[1:]:
            longest = cost if cost.seconds > longest.seconds else longest
            seconds, flop = seconds + cost.seconds, flop + cost.flop
            least_s += cost.least_s
        times.append(
            OpTimes(
                name=op.id,
                label=op.label,
                device=op.device,
                layer=op.layer,
                kind=op.kind,
                seconds=seconds,
                limit=longest.limit,
                least_s=least_s,
                # A slice of a layer may do more than its share: at most the plan's count.
                flop=min(op.count.flop, flop),
            )
        )
    return tuple(times)


def _layers(listed: TaskList) -> tuple[LayerTimes, ...]:
    passes: dict[tuple[str, str], dict[str, float]] = {}
    limits: dict[tuple[str, str], dict[str, float]] = {}
    for op in listed.plan.ops():
        if op.id not in listed.costs.kernels:
            continue
        key = (op.layer, op.device)
        pass_s = passes.setdefault(key, defaultdict(float))
        limit = limits.setdefault(key, defaultdict(float))
        for cost in listed.costs.kernels[op.id]:
            pass_s[PASS_OF.get(op.kind, "forward")] += cost.seconds
            limit[cost.limit] += cost.seconds
    order = [parts[0].layer.name for parts in listed.plan.network.parts]
    return tuple(
        LayerTimes(
            name=name,
            device=device,
            forward_s=times["forward"],
            grad_input_s=times["grad_input"],
            grad_weight_s=times["grad_weight"],
            update_s=times["update"],
            limit=max(limits[name, device].items(), key=lambda item: item[1])[0],
        )
        for (name, device), times in sorted(
            passes.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
    )

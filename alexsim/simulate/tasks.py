"""From a plan's ops to the engine's tasks: on which queue, over which links, for how long."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from alexsim.costs.cost import Cost, Work, work_of
from alexsim.costs.measured import REST, signature
from alexsim.machine import collectives, paths
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.part import Part
from alexsim.plan.backends import BACKENDS
from alexsim.plan.exchanges import Collective, Exchange
from alexsim.plan.plan import Op, OpKind, Plan
from alexsim.simulate.engine import Task
from alexsim.simulate.host import Auxiliary, data_path_times
from alexsim.simulate.op_costs import Costs, costs_of_ops
from alexsim.simulate.timer import DataPath, Timer

_known: dict[tuple[object, ...], tuple[tuple[object, ...], Costs]] = {}
"""Ops' costs of the last plans on the last machines, by their identities: a step is often simulated
again with another schedule of the host's, or to see what a change is worth."""
_MOST_KNOWN = 64
BARRIER_S = 3e-5
"""Host threads that synchronise their devices and wait for each other: tens of microseconds."""


@dataclass(slots=True, kw_only=True)
class TaskList:
    """Tasks of some steps, and the op or message that each is."""

    plan: Plan
    timer: Timer
    data: DataPath
    tasks: list[Task] = field(default_factory=list)
    ops: list[tuple[Op | Auxiliary, str]] = field(default_factory=list)
    """The op or message that each task is, and its device's queue."""
    of_step: list[dict[str, int]] = field(default_factory=list)
    """Every step's tasks, by the id of their op or message."""
    costs: Costs = field(init=False)
    _crossed: dict[str, int] = field(default_factory=dict)
    """The last transfer over each link."""
    _last: dict[str, int] = field(default_factory=dict)
    """The last task of each of the engine's queues."""
    _exchanges: dict[str, Exchange] = field(init=False)
    _collectives: dict[str, Collective] = field(init=False)
    _members: dict[str, int] = field(init=False)
    """How many of the plan's devices take part in each collective."""
    _parts: dict[tuple[str, int], Part] = field(init=False)
    _gradients: dict[tuple[str, int], list[str]] = field(init=False)
    """The ops of all devices that compute the weight gradient of each layer's part."""

    def __post_init__(self) -> None:
        self._parts = {(p.layer.name, p.column): p for ps in self.plan.network.parts for p in ps}
        self._exchanges = {exchange.name: exchange for exchange in self.plan.posted}
        self._collectives = {collective.name: collective for collective in self.plan.collectives}
        self._members = Counter(op.collective for op in self.plan.ops() if op.collective)
        self._gradients = {}
        for op in self.plan.ops():
            if op.kind == OpKind.GRAD_WEIGHT:
                self._gradients.setdefault(self._summed(op), []).append(op.id)

    def build(self, steps: int) -> None:
        """Emit ``steps`` steps: the host's work, then every device's ops."""
        self.costs = self._costs()
        for step in range(steps):
            self.of_step.append({})
            crop = self._host(step)
            self._devices(step, crop)

    def _costs(self) -> Costs:
        timer = self.timer
        whose = (timer.machine, timer.library, timer.correction, timer.calibration)
        key = (id(self.plan), *map(id, whose), timer.precision, *sorted(timer.faster.items()))
        if key in _known:
            return _known[key][1]
        costs: dict[str, list[Cost]] = {}
        alike: dict[tuple[object, ...], list[Cost]] = {}
        for op in self.plan.ops():
            if op.kind.activity != "computing":
                continue
            if self.timer.calibration is not None:
                flop = BACKENDS[op.backend].done_flop(op, self._parts[op.layer, op.column])
                costs[op.id] = [Cost(self._measured_s(op), "measured", (), flop=flop)]
                continue
            # Columns are mostly alike, and alike ops cost the same.
            work = self._work(op)
            shapes = (work.part.input_shape, work.part.output_shape)
            card = id(timer.machine.device_at(op.device_index))
            shape = (op.kind, op.layer, op.fused, op.epilogue, op.count, work.index, card, *shapes)
            if shape not in alike:
                alike[shape] = timer.costs(work, op.device_index)
            costs[op.id] = alike[shape]
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        # What a key's identities are of is kept, so that no other can have them.
        _known[key] = (self.plan, *whose), costs_of_ops(self.plan, costs)
        return _known[key][1]

    def _issued(self, step: int, device: int, op: Op) -> tuple[int, ...]:
        """The host's work to issue an op, if the device may wait for it. The host issues ops in
        order, without waiting, but begins a step when the step before it has ended."""
        place = self.costs.paced[device].get(op.id)
        if place is None:
            return ()
        after: tuple[int, ...] = ()
        if step and not place:
            after = (self.of_step[step - 1][self.plan.devices[device].ops[-1].id],)
        item = Auxiliary(id=f"issue {op.id}", device=op.device, activity="host", issues=op)
        seconds = sum([cost.seconds for cost in self.costs.pieces[op.id] if cost.of_host])
        return (self._add(step, item, "issue", seconds, after),)

    def _measured_s(self, op: Op) -> float:
        """By the calibration; an upload with what lies between the ops of its device's step."""
        calibration, images = self.timer.calibration, self.plan.batch_size
        assert calibration is not None
        shared = calibration.on_cores and self.timer.machine.network is None
        replicas = self.plan.replicas if shared else 1
        name = signature(op, self._parts.get((op.layer, op.column)))
        seconds = calibration.seconds(name, images, op.chunk_images or images, replicas=replicas)
        if op.kind == OpKind.UPLOAD and (op.device_index == 0 or not calibration.on_cores):
            seconds += calibration.seconds(REST, images, images, replicas=replicas)
        return seconds / self.timer.times_as_fast(op.layer, op.kind)

    def _work(self, op: Op) -> Work:
        epilogue = self._parts[op.epilogue, op.column] if op.epilogue else None
        work = work_of(op, self._parts[op.layer, op.column], epilogue, self.plan)
        return work.with_loss_scaling() if self.timer.scales_loss else work

    def _add(
        self,
        step: int,
        item: Op | Auxiliary,
        queue: str,
        seconds: float,
        after: tuple[int, ...],
        holds: tuple[str, ...] = (),
    ) -> int:
        # Messages on their way do not queue.
        lane = item.id if queue == "hop" else f"{item.device}.{queue}"
        index = len(self.tasks)
        self.tasks.append(Task(seconds, lane, after, holds))
        self.ops.append((item, queue))
        self._last[lane] = self.of_step[step][item.id] = index
        return index

    def _host(self, step: int) -> tuple[int, ...]:
        """Read, decode, crop the step's images; two batches may lie ready at a time."""
        if self.data == "none":
            return ()
        uploads = [op.id for op in self.plan.ops() if op.kind == OpKind.UPLOAD]
        return self._stages(step, "", uploads, ())

    def _stages(
        self, step: int, prefix: str, uploads: list[str], cores: tuple[str, ...]
    ) -> tuple[int, ...]:
        """Add the stages of one host's data path; return its last task."""
        decode, crop = f"host.{prefix}decode", f"host.{prefix}crop"
        previous: tuple[int, ...] = ()
        times = data_path_times(self.timer.machine, self.plan)
        for (stage, seconds), takers in zip(
            times.stages.items(), ([decode], [crop], uploads), strict=True
        ):
            after = previous
            if step >= 2:
                # A stage may be two batches ahead of the next.
                after = (*after, *(self.of_step[step - 2][taker] for taker in takers))
            holds = cores if stage != "disk" else ()
            queue = f"{prefix}{stage}"
            item = Auxiliary(id=f"host.{queue}", device="host", activity="host")
            previous = (self._add(step, item, queue, seconds, after, holds),)
        return previous

    def _devices(self, step: int, crop: tuple[int, ...]) -> None:
        known = self.of_step[step]
        pending: list[list[Op]] = [list(device.ops) for device in self.plan.devices]
        # Devices take turns up to where they meet, so every op is added after those it waits for.
        position = [0] * len(pending)
        while any(at < len(ops) for at, ops in zip(position, pending, strict=True)):
            moved = False
            for device, ops in enumerate(pending):
                while position[device] < len(ops):
                    op = ops[position[device]]
                    if op.kind == OpKind.BARRIER or op.collective:
                        break
                    if any(need not in known for need in self._needs(op)):
                        break
                    self._op(step, device, op, crop)
                    position[device] += 1
                    moved = True
            if not moved:
                self._meet(step, pending, position)

    def _needs(self, op: Op) -> tuple[str, ...]:
        """Ids of ops that must end before ``op``: an all-reduce waits for every device's part."""
        hybrid = self.plan.spec.partition == "hybrid"
        if op.kind != OpKind.ALL_REDUCE or (not hybrid and self._replicas == 1):
            return op.depends_on
        return (*op.depends_on, *self._gradients[self._summed(op)])

    def _summed(self, op: Op) -> tuple[str, int]:
        """What an op computes a gradient of, or sums it; devices of a hybrid plan, in which columns
        are turns, sum it over all of them."""
        return op.layer, 0 if self.plan.spec.partition == "hybrid" else op.column

    @property
    def _replicas(self) -> int:
        """Replicas whose devices the plan has, each with its own."""
        return self.plan.replicas if self.plan.stands_for == 1 else 1

    def _meet(self, step: int, pending: list[list[Op]], position: list[int]) -> None:
        """Every device is at a barrier or a collective, or done: add those at which all their
        devices have arrived."""
        standing = {
            device: queue[at]
            for device, (queue, at) in enumerate(zip(pending, position, strict=True))
            if at < len(queue)
        }
        met: dict[str, list[int]] = {}
        for device, op in standing.items():
            met.setdefault(op.collective, []).append(device)
        arrived: list[int] = []
        meeting = len(pending) // self._replicas
        for first in range(0, len(pending), meeting):
            group = range(first, first + meeting)
            if not set(group) <= set(met.get("", ())):
                continue
            ops = [standing[device] for device in group]
            last = [pending[device][position[device] - 1] for device in group if position[device]]
            self._barriers(step, ops, last)
            arrived += group
        met.pop("", None)
        if not arrived:
            for name, devices in met.items():
                if len(devices) == self._members[name]:
                    self._together(step, name, [standing[device] for device in devices])
                    arrived += devices
        assert arrived, [op.id for op in standing.values()]
        for device in arrived:
            position[device] += 1

    def _barriers(self, step: int, ops: list[Op], last: list[Op]) -> None:
        """All devices go on when all have arrived."""
        assert {op.kind for op in ops} == {OpKind.BARRIER}, [op.id for op in ops]
        known = self.of_step[step]
        seconds = self._barrier_s(ops[0])
        before = {known[need] for op in ops for need in op.depends_on if need in known}
        before |= {known[op.id] for op in last}
        for op in ops:
            self._add(step, op, "compute", seconds, tuple(before))

    def _together(self, step: int, name: str, ops: list[Op]) -> None:
        """All devices of a collective take part at the same time, when all are ready for it."""
        known = self.of_step[step]
        queue = self._collective_queue
        before = {known[need] for op in ops for need in op.depends_on}
        lanes = [f"{op.device}.{queue}" for op in ops]
        before |= {self._last[lane] for lane in lanes if lane in self._last}
        seconds = self._collective_s(self._collectives[name])
        for op in ops:
            self._add(step, op, queue, seconds, tuple(before))

    def _collective_s(self, collective: Collective) -> float:
        """Seconds in which one column's values or gradients, or all columns', are exchanged."""
        one_column = len(collective.columns) == 1
        duration_s = collectives.broadcast_s if one_column else collectives.all_gather_s
        devices = self.plan.turns
        peer = self.plan.transport == "peer"
        return duration_s(self.timer.machine, devices, collective.size_bytes, peer=peer)

    def _barrier_s(self, barrier: Op) -> float:
        """Seconds that a barrier takes when all have come to it."""
        del barrier
        return BARRIER_S

    def _op(self, step: int, device: int, op: Op, crop: tuple[int, ...]) -> None:
        known = self.of_step[step]
        after = tuple([known[need] for need in self._needs(op)])
        seconds = 0.0
        links: tuple[str, ...] = ()
        machine, size = self.timer.machine, op.count.moved_bytes
        if op.kind == OpKind.UPLOAD:
            path = paths.from_host(machine, device, size, alike=self.plan.stands_for)
            seconds = path.seconds if self.timer.calibration is None else self._measured_s(op)
            links, after = path.holds, (*after, *crop)
            if step >= 2 and op.queue != "compute":
                # Two input buffers: this step's is free when the step before the last has ended.
                last = self.plan.devices[device].ops[-1].id
                after = (*after, self.of_step[step - 2][last])
        elif op.kind in (OpKind.POST, OpKind.WAIT):
            seconds, links = self._exchange(op)
        elif op.kind == OpKind.ALL_REDUCE:
            part = self._parts[op.layer, op.column]
            seconds = self._all_reduce_s(part, self.plan.turns * self.plan.replicas)
            self._add(step, op, self._collective_queue, seconds, after)
            return
        elif op.id in self.costs.kernels_s:
            seconds = self.costs.kernels_s[op.id]
            after = (*after, *self._issued(step, device, op))
        elif size:
            seconds = size / machine.device_at(device).memory_bytes_per_s.value
        # Transfers cross a link in the order in which they are issued, whichever is ready first: so
        # a faster op never lets another transfer in before a transfer that more ops depend on.
        after = (*after, *[self._crossed[link] for link in links if link in self._crossed])
        index = self._add(step, op, op.queue, seconds, after)
        self._crossed |= dict.fromkeys(links, index)

    @property
    def _collective_queue(self) -> str:
        """In the overlap schedule the network, where collectives follow each other."""
        return "compute" if self.plan.spec.schedule == "serial" else "network"

    def _all_reduce_s(self, part: Part, devices: int) -> float:
        item = 2 if self.timer.precision == "fp16" else FLOAT_BYTES
        return collectives.all_reduce_s(
            self.timer.machine,
            devices,
            item * part.parameters,
            peer=self.plan.transport == "peer",
            columns=1 if self.plan.turns > 1 else len(self.plan.devices) // self._replicas,
        )

    def _exchange(self, op: Op) -> tuple[float, tuple[str, ...]]:
        """Peer: the consumer pulls. Host: the producer stages, the consumer fetches."""
        machine = self.timer.machine
        exchange = self._exchanges[op.exchange]
        source, target = exchange.source_index, exchange.target_index
        if self.plan.transport == "peer":
            if op.kind == OpKind.POST:
                return 0.0, ()
            path = paths.between(machine, source, target, exchange.size_bytes)
        elif op.kind == OpKind.POST:
            path = paths.to_host(machine, source, target, exchange.size_bytes)
        else:
            path = paths.from_host(machine, target, exchange.size_bytes)
        return path.seconds, path.holds

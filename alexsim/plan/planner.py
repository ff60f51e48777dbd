"""``plan``: from a network and a few choices to every op and buffer of a training step."""

from __future__ import annotations

from alexsim.errors import PlanError, unknown
from alexsim.network.hybrid import hybrid
from alexsim.network.network import Network
from alexsim.plan.backends import BACKENDS, Choice
from alexsim.plan.buffers import pieces
from alexsim.plan.layout import Layout, lay_out
from alexsim.plan.placement import Step
from alexsim.plan.records import (
    DevicePlan,
    Op,
    OpKind,
    Partition,
    Plan,
    Policy,
    Schedule,
    TransportName,
)
from alexsim.plan.steps import StepList

POLICIES: tuple[Policy, ...] = ("as-released", "in-place", "reuse")
SCHEDULES: tuple[Schedule, ...] = ("serial", "overlap")
PARTITIONS: tuple[Partition, ...] = ("columns", "hybrid")
TRANSPORTS: tuple[TransportName, ...] = ("peer", "host")


def plan(  # noqa: PLR0913 - the choices that a plan is made of
    network: Network,
    *,
    gpus: int | None = None,
    partition: Partition = "columns",
    variable_batch: bool = False,
    batch_size: int = 128,
    policy: Policy = "as-released",
    schedule: Schedule = "serial",
    transport: TransportName = "peer",
    trainable: frozenset[str] | None = None,
    backend: str = "",
    replicas: int = 1,
) -> Plan:
    """Lay out one training step.

    Args:
        network: what is trained.
        gpus: devices. With ``columns``: one per column (the default), or 1 for all columns on one;
            with ``hybrid``: any number.
        partition: ``columns``, or ``hybrid``: a copy of the convolutions on every device, and a
            share of the fully connected layers' units (see ``alexsim.network.hybrid``).
        variable_batch: with ``hybrid``, update the layers that are split after each device's
            images (Krizhevsky 2014, section 4.2), instead of once a step.
        batch_size: images that an op works on: those of a step, with ``hybrid`` of each device.
        policy: ``as-released`` and ``in-place`` hold the 2012 system's buffers, ``reuse`` the
            fewest bytes that this op order needs.
        schedule: ``serial`` as in 2012, or ``overlap``.
        transport: how exchanges travel; recorded for whoever times or runs the plan.
        trainable: layers that learn; every layer with weights by default. Gradients that no
            trained layer needs are left out, with their buffers.
        backend: whose scratch is counted: ``""`` for the 2012 kernels (none), ``aten`` or
            ``triton``.
        replicas: copies of these devices that train together, each on images of its own;
            ``columns`` only.

    Raises:
        PlanError: a choice is not one of those allowed.
        NetworkError: the network cannot be split so.
    """
    _choice("partition", partition, PARTITIONS)
    _choice("policy", policy, POLICIES)
    _choice("schedule", schedule, SCHEDULES)
    _choice("transport", transport, TRANSPORTS)
    _choice("backend", backend, tuple(BACKENDS))
    if batch_size < 1:
        raise PlanError(f"batch size must be at least 1, got {batch_size}")
    if replicas < 1:
        raise PlanError(f"replicas must be at least 1, got {replicas}")
    if partition == "hybrid":
        if replicas > 1 or backend == "triton":
            what = "replicas" if replicas > 1 else "backend triton"
            raise PlanError(f"partition hybrid does not go with {what}")
        network = network if network.copied else hybrid(network, gpus or 1)
    elif variable_batch:
        raise PlanError("a variable batch needs partition hybrid")
    if why := BACKENDS[backend].refused(network):
        raise PlanError(why)
    trained = frozenset(network.weighted_layers) if trainable is None else trainable
    if strange := sorted(trained - set(network.weighted_layers)):
        raise PlanError(unknown("layer with weights", strange[0], network.weighted_layers))
    steps = StepList(
        network=network,
        device_of=_device_of(network, gpus),
        batch_size=batch_size,
        variable_batch=variable_batch,
        schedule=schedule,
        trainable=trained,
        staged=backend != "",
        replicas=replicas,
    )
    steps.build()
    found = pieces(steps, policy)
    devices = tuple(
        _device_plan(steps, device, lay_out(device, steps, found, policy), backend)
        for device in range(len(steps.steps))
    )
    return Plan(
        network=network,
        batch_size=batch_size,
        policy=policy,
        schedule=schedule,
        transport=transport,
        trainable=trained,
        backend=backend,
        devices=devices,
        exchanges=tuple(steps.exchanges),
        replicas=replicas,
        partition=partition,
        variable_batch=variable_batch,
    )


def _choice(name: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise PlanError(f"{name} must be one of {', '.join(filter(None, allowed))}; got {given!r}")


def _device_of(network: Network, gpus: int | None) -> tuple[int, ...]:
    columns = network.columns
    if gpus in (None, columns):
        return tuple(range(columns))
    if gpus == 1:
        return (0,) * columns
    allowed = "1" if columns == 1 else f"1 or {columns}"
    raise PlanError(
        f"{network.name} is written in {columns} column(s): gpus must be {allowed}, got {gpus}"
    )


def _device_plan(steps: StepList, device: int, layout: Layout, backend: str) -> DevicePlan:
    return DevicePlan(
        name=f"gpu{device}",
        columns=tuple(c for c, at in enumerate(steps.device_of) if at == device),
        ops=_ops(steps, device, layout, backend),
        buffers=layout.buffers,
        blocks=layout.blocks,
        arena_bytes=layout.arena_bytes,
        live_peak_bytes=layout.live_peak_bytes,
        resident=layout.resident,
    )


def _ops(steps: StepList, device: int, layout: Layout, backend: str) -> tuple[Op, ...]:
    hazards = _Hazards(layout)
    choose = BACKENDS[backend].choose
    ops = []
    barrier = ""
    previous: list[str] = []
    for step in steps.steps[device]:
        depends_on = hazards.of(step)
        if step.kind == OpKind.WAIT:
            depends_on.add(f"{step.exchange}.post")
        if step.kind == OpKind.BARRIER:
            depends_on.update(previous)
            previous.clear()
        elif barrier:
            depends_on.add(barrier)
        choice = choose(step.kind, step.part, steps.batch_size, accumulate=step.accumulate)
        ops.append(_op(step, device, tuple(sorted(depends_on)), choice))
        previous.append(step.id)
        if step.kind == OpKind.BARRIER:
            barrier = step.id
    return tuple(ops)


def _op(step: Step, device: int, depends_on: tuple[str, ...], choice: Choice) -> Op:
    part = step.part
    return Op(
        id=step.id,
        kind=step.kind,
        device=f"gpu{device}",
        layer=part.layer.name if part else "",
        column=part.column if part else 0,
        queue=step.queue,
        operands=step.operands,
        reads=step.reads,
        writes=step.writes,
        depends_on=depends_on,
        count=step.count,
        backend=choice.backend,
        algorithm=choice.algorithm,
        scratch_bytes=choice.scratch_bytes,
        chunk_images=choice.chunk_images,
        first_image=step.first_image,
        accumulate=step.accumulate,
        fused=step.fused,
        exchange=step.exchange,
    )


class _Hazards:
    """Ops that must end before an op may touch its buffers, or memory that was another's."""

    def __init__(self, layout: Layout) -> None:
        self._place = {b.name: (b.block, b.channel) for b in layout.buffers}
        self._writer: dict[tuple[str, int], str] = {}
        self._readers: dict[tuple[str, int], set[str]] = {}
        self._earlier: dict[str, list[str]] = {}
        blocks = layout.blocks
        packed = sum(block.size_bytes for block in blocks) > layout.arena_bytes
        for block in blocks if packed else ():
            end = block.offset_bytes + block.size_bytes
            self._earlier[block.name] = [
                other.name
                for other in blocks
                if other.last < block.first
                and other.offset_bytes < end
                and block.offset_bytes < other.offset_bytes + other.size_bytes
            ]
        self._touched: dict[str, set[str]] = {}

    def of(self, step: Step) -> set[str]:
        """Ids that ``step`` depends on; remembers what it touches."""
        depends_on: set[str] = set()
        for name in step.reads:
            place = self._place.get(name)
            if place and place in self._writer:
                depends_on.add(self._writer[place])
        for name in step.writes:
            place = self._place[name]
            depends_on |= self._readers.get(place, set())
            if place in self._writer:
                depends_on.add(self._writer[place])
            for other in self._earlier.get(place[0], ()):
                depends_on |= self._touched.get(other, set())
        for name in step.reads:
            if place := self._place.get(name):
                self._readers.setdefault(place, set()).add(step.id)
                self._touched.setdefault(place[0], set()).add(step.id)
        for name in step.writes:
            place = self._place[name]
            self._writer[place], self._readers[place] = step.id, set()
            self._touched.setdefault(place[0], set()).add(step.id)
        depends_on.discard(step.id)
        return depends_on

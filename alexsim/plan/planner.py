"""``plan``: from a network and a few choices to every op and buffer of a training step."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import Any

from alexsim.network.network import Network
from alexsim.plan.backends import BACKENDS, Asked, Choice, read_as_rows
from alexsim.plan.buffers import pieces
from alexsim.plan.layout import Layout, lay_out
from alexsim.plan.placement import Step
from alexsim.plan.records import Block, DevicePlan, Op, OpKind, Plan
from alexsim.plan.spec import PlanSpec
from alexsim.plan.steps import StepList


def plan(of: PlanSpec | Network, **choices: Any) -> Plan:
    """Lay out one training step.

    Args:
        of: a spec; or a network, ``choices`` being the fields of its spec.
        choices: what is to be other than in the spec.

    Raises:
        PlanError: a choice is not one of those allowed.
        NetworkError: the network cannot be split so.
    """
    return _plan(_spec(of, choices), first_only=False)


def representative(of: PlanSpec | Network, **choices: Any) -> Plan:
    """``plan``, but of devices that do alike only the first: for whoever needs no more than times
    and bytes.

    Columns differ, and all stay. Devices of a hybrid plan differ by one unit of a layer more or
    less, and by the cost, which the first has. It stands for the others (``Plan.stands_for``), so
    that the work grows with their number, not with its square.
    """
    return _plan(_spec(of, choices), first_only=True)


def _spec(of: PlanSpec | Network, choices: dict[str, Any]) -> PlanSpec:
    return replace(of, **choices) if isinstance(of, PlanSpec) else PlanSpec(network=of, **choices)


def _plan(spec: PlanSpec, *, first_only: bool) -> Plan:
    network = spec.written
    steps = StepList(
        network=network,
        device_of=spec.device_of,
        batch_size=spec.op_images,
        variable_batch=spec.variable_batch,
        schedule=spec.schedule,
        trainable=spec.trained,
        optimizer=spec.optimizer,
        staged=spec.backend != "",
        replicas=spec.copies,
        policy=spec.policy,
        kernels=BACKENDS[spec.backend] if spec.fusion == "kernels" else None,
        first_only=first_only and spec.partition == "hybrid",
    )
    steps.build()
    found = pieces(steps, spec.policy)
    devices = tuple(
        _device_plan(steps, device, lay_out(device, steps, found, spec.policy), spec)
        for device in range(len(steps.steps))
    )
    return Plan(
        spec=spec,
        network=network,
        devices=devices,
        posted=tuple(steps.exchanges),
        collectives=tuple(steps.collectives),
    )


def _device_plan(steps: StepList, device: int, layout: Layout, spec: PlanSpec) -> DevicePlan:
    return DevicePlan(
        name=f"gpu{device}",
        index=device,
        columns=tuple(c for c, at in enumerate(steps.device_of) if at == device),
        ops=_ops(steps, device, layout, spec),
        buffers=layout.buffers,
        blocks=layout.blocks,
        arena_bytes=layout.arena_bytes,
        live_peak_bytes=layout.live_peak_bytes,
        resident=layout.resident,
    )


def _ops(steps: StepList, device: int, layout: Layout, spec: PlanSpec) -> tuple[Op, ...]:
    hazards = _Hazards(layout)
    choose = BACKENDS[spec.backend].choose
    rows = read_as_rows(steps.network, spec.policy)
    ops = []
    barrier = ""
    previous: list[str] = []
    for step in steps.steps[device]:
        depends_on = hazards.of(step)
        if step.kind == OpKind.WAIT:
            depends_on.add(steps.posts[step.exchange])
        if step.kind == OpKind.BARRIER:
            depends_on.update(previous)
            previous.clear()
        elif barrier:
            depends_on.add(barrier)
        part = step.part
        asked = Asked(
            step.kind,
            part,
            steps.batch_size,
            step.accumulate,
            spec.optimizer,
            spec.copies,
            rows=part is not None and not rows.isdisjoint((part.output, *part.reads)),
        )
        choice = choose(asked)
        ops.append(_op(step, device, tuple(sorted(depends_on)), choice))
        previous.append(step.id)
        if step.kind == OpKind.BARRIER:
            barrier = step.id
    return tuple(ops)


def _op(step: Step, device: int, depends_on: tuple[str, ...], choice: Choice) -> Op:
    return Op(
        id=step.id,
        label=step.label,
        kind=step.kind,
        device=f"gpu{device}",
        device_index=device,
        layer=step.layer,
        column=step.column,
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
        epilogue=step.epilogue,
        exchange=step.exchange,
        collective=step.collective,
        turn=step.turn,
        barrier=step.barrier,
        in_test=step.in_test or step.kind in _IN_TEST,
    )


_IN_TEST = frozenset({OpKind.UPLOAD, OpKind.FORWARD, OpKind.LOSS, OpKind.ALL_GATHER})
"""Always part of a forward pass alone; of exchanges and barriers, some are."""


class _Hazards:
    """Ops that must end before an op may touch its buffers, or memory that was another's."""

    def __init__(self, layout: Layout) -> None:
        self._place = {b.name: (b.block, b.channel) for b in layout.buffers}
        self._writer: dict[tuple[str, int], str] = {}
        self._readers: dict[tuple[str, int], set[str]] = {}
        blocks = layout.blocks
        packed = sum(block.size_bytes for block in blocks) > layout.arena_bytes
        self._earlier = _tenants_before(blocks) if packed else {}
        self._touched: dict[str, set[str]] = {}

    def of(self, step: Step) -> set[str]:
        """Ids that ``step`` depends on; remembers what it touches."""
        depends_on: set[str] = set()
        place_of, writers, readers, touched = (
            self._place,
            self._writer,
            self._readers,
            self._touched,
        )
        read = [place for name in step.reads if (place := place_of.get(name))]
        waits = [place_of[name] for name in step.waits]
        written = [place_of[name] for name in step.writes]
        for place in (*read, *waits, *written):
            if place in writers:
                depends_on.add(writers[place])
        for place in written:
            if place in readers:
                depends_on |= readers[place]
            for other in self._earlier.get(place[0], ()):
                depends_on |= touched.get(other, set())
        for place in read:
            readers.setdefault(place, set()).add(step.id)
        for place in (*written, *waits):
            writers[place], readers[place] = step.id, set()
        if self._earlier:
            for place in (*read, *written, *waits):
                touched.setdefault(place[0], set()).add(step.id)
        depends_on.discard(step.id)
        return depends_on


def _tenants_before(blocks: tuple[Block, ...]) -> dict[str, set[str]]:
    """Of each block, those that had its memory last; they waited for whoever had it before."""
    before: dict[str, set[str]] = {}
    held: list[tuple[int, int, str]] = []
    """Start, end and last tenant of each piece of memory, by address."""
    for block in sorted(blocks, key=lambda block: block.first):
        start, end = block.offset_bytes, block.offset_bytes + block.size_bytes
        low = bisect_left(held, (start,))
        if low and held[low - 1][1] > start:
            low -= 1
        high = bisect_left(held, (end,))
        others = held[low:high]
        before[block.name] = {name for _, _, name in others}
        left = [(s, start, name) for s, _, name in others[:1] if s < start]
        right = [(end, e, name) for _, e, name in others[-1:] if e > end]
        held[low:high] = [*left, (start, end, block.name), *right]
    return before

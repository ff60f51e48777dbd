"""``plan``: from a network and a few choices to every op and buffer of a training step."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import Any

from alexsim.network.network import Network
from alexsim.plan.buffers import pieces
from alexsim.plan.eager import lay_out_eager
from alexsim.plan.layout import Layout, lay_out
from alexsim.plan.plan import Block, DevicePlan, Op, OpKind, Plan
from alexsim.plan.spec import PlanSpec, usual_partition
from alexsim.plan.steps import StepList


def plan(spec: PlanSpec | Network, **choices: Any) -> Plan:
    """Lay out one training step.

    Args:
        spec: a spec; or a network, with the fields of its spec as ``choices``: several ``gpus``
            and no partition are ``usual_partition``.
        choices: fields that differ from the spec's.

    Raises:
        PlanError: a choice is not one of those allowed.
        NetworkError: the network cannot be split so.
    """
    return _plan(_spec(spec, choices), first_only=False)


def representative(spec: PlanSpec | Network, **choices: Any) -> Plan:
    """``plan`` with only the first of the devices that do alike: enough for times and bytes.

    Columns differ, and all stay. Devices of a hybrid plan differ by one unit of a layer more or
    less, and by the cost, which the first has. It stands for the others (``Plan.stands_for``), so
    that the work grows with their number, not with its square.
    """
    return _plan(_spec(spec, choices), first_only=True)


def _spec(spec: PlanSpec | Network, choices: dict[str, Any]) -> PlanSpec:
    if isinstance(spec, PlanSpec):
        return replace(spec, **choices)
    return PlanSpec(
        network=spec, **{"partition": usual_partition(spec, choices.get("gpus"))} | choices
    )


def _plan(spec: PlanSpec, *, first_only: bool) -> Plan:
    steps = StepList(spec=spec, first_only=first_only and spec.partition == "hybrid")
    steps.build()
    if spec.policy == "pytorch":
        layouts = [lay_out_eager(steps)]
    else:
        buffers = pieces(steps)
        layouts = [lay_out(device, steps, buffers) for device in range(len(steps.ops))]
    return Plan(
        spec=spec,
        network=steps.network,
        devices=tuple(_device_plan(steps, device, layout) for device, layout in enumerate(layouts)),
        posted=tuple(steps.exchanges),
        collectives=tuple(steps.collectives),
    )


def _device_plan(steps: StepList, device: int, layout: Layout) -> DevicePlan:
    _set_dependencies(steps, device, layout)
    return DevicePlan(
        name=f"gpu{device}",
        index=device,
        columns=tuple(c for c, at in enumerate(steps.device_of) if at == device),
        ops=tuple(steps.ops[device]),
        buffers=layout.buffers,
        blocks=layout.blocks,
        arena_bytes=layout.arena_bytes,
        live_peak_bytes=layout.live_peak_bytes,
        resident=layout.resident,
    )


def _set_dependencies(steps: StepList, device: int, layout: Layout) -> None:
    """Set what each op waits for; no op has left the planner yet, so they may be changed."""
    hazards = _Hazards(layout)
    barrier = ""
    previous: list[str] = []
    for op in steps.ops[device]:
        depends_on = hazards.dependencies(op, steps.waits.get(op.id, ()))
        if op.kind == OpKind.WAIT:
            depends_on.add(steps.posts[op.exchange])
        if op.kind == OpKind.BARRIER:
            depends_on.update(previous)
            previous.clear()
        elif barrier:
            depends_on.add(barrier)
        object.__setattr__(op, "depends_on", tuple(sorted(depends_on)))
        previous.append(op.id)
        if op.kind == OpKind.BARRIER:
            barrier = op.id


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

    def dependencies(self, op: Op, others: tuple[str, ...]) -> set[str]:
        """Ids that ``op`` depends on; remembers what it touches, and what stands for others'."""
        depends_on: set[str] = set()
        place_of, writers, readers, touched = (
            self._place,
            self._writer,
            self._readers,
            self._touched,
        )
        read = [place for name in op.reads if (place := place_of.get(name))]
        waits = [place_of[name] for name in others]
        written = [place_of[name] for name in op.writes]
        for place in (*read, *waits, *written):
            if place in writers:
                depends_on.add(writers[place])
        for place in written:
            if place in readers:
                depends_on |= readers[place]
            for other in self._earlier.get(place[0], ()):
                depends_on |= touched.get(other, set())
        for place in read:
            readers.setdefault(place, set()).add(op.id)
        for place in (*written, *waits):
            writers[place], readers[place] = op.id, set()
        if self._earlier:
            for place in (*read, *written, *waits):
                touched.setdefault(place[0], set()).add(op.id)
        depends_on.discard(op.id)
        return depends_on


def _tenants_before(blocks: tuple[Block, ...]) -> dict[str, set[str]]:
    """By block, the blocks that had its memory last; these waited for those before them."""
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

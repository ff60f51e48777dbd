"""Where buffers lie: blocks of one arena per device, side by side or packed by lifetime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from alexsim.plan.buffers import Piece
from alexsim.plan.choices import Policy
from alexsim.plan.exchanges import Collective, Exchange
from alexsim.plan.packing import Group, Room, live_peak, pack, side_by_side
from alexsim.plan.plan import Block, Buffer, Category, Op, OpKind
from alexsim.plan.steps import StepList


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The memory of one device."""

    buffers: tuple[Buffer, ...]
    blocks: tuple[Block, ...]
    arena_bytes: int
    live_peak_bytes: int
    resident: tuple[str, ...]


def lay_out(device: int, steps: StepList, pieces: list[Piece]) -> Layout:
    """Give every piece of one device its block, address and lifetime."""
    ops, policy = steps.ops[device], steps.spec.policy
    device_pieces = [piece for piece in pieces if piece.device == device]
    lives = _lifetimes(device, steps, device_pieces, whole_step=policy != "reuse")
    groups = _groups(device_pieces, lives, policy)
    rooms = _rooms(device, steps, groups)
    if policy == "reuse":
        arena = pack(rooms, len(ops))
        peak, alive = live_peak(groups, len(ops))
    else:
        arena = side_by_side(rooms)
        alive = groups
        peak = sum(group.size_bytes for group in groups)
    blocks = tuple(
        Block(
            name=room.name,
            shape=room.shape,
            size_bytes=room.size_bytes,
            offset_bytes=room.offset,
            first=room.first,
            last=room.last,
            joined=len(room.groups) > 1,
        )
        for room in rooms
    )
    buffers = tuple(
        piece.placed(group.block, lives[piece.name], channel=group.channel)
        for group in groups
        for piece in group.pieces
    )
    # Of pieces that share bytes, the largest stands for them in the memory table.
    resident = tuple(
        max(g.pieces, key=lambda p: (p.size_bytes, not p.shares)).name
        if len(g.pieces) > 1
        else g.pieces[0].name
        for g in alive
    )
    return Layout(
        buffers=buffers,
        blocks=blocks,
        arena_bytes=arena,
        live_peak_bytes=peak,
        resident=resident,
    )


def _lifetimes(
    device: int, steps: StepList, pieces: Iterable[Piece], *, whole_step: bool
) -> dict[str, tuple[int, int]]:
    ops = steps.ops[device]
    end = len(ops) - 1
    if whole_step:
        return {piece.name: (0, end) for piece in pieces}
    touched: dict[str, list[int]] = {}
    collectives = {collective.name: collective for collective in steps.collectives}
    for position, op in enumerate(ops):
        for name in (*op.reads, *op.writes):
            touched.setdefault(name, []).append(position)
        if op.kind == OpKind.POST:
            # The other device may pull until the barrier after its wait, or the end of the step.
            touched[op.reads[0]].append(_pulled_by(steps, op, device))
        if sent := op.operands.get("sent"):
            until = _taken_by(ops, position, collectives)
            for name in sent:
                touched[name].append(until)
    lives = {}
    for piece in pieces:
        whole = piece.persistent or piece.name not in touched
        lives[piece.name] = (0, end) if whole else _span(touched[piece.name])
    return lives


def _span(positions: list[int]) -> tuple[int, int]:
    return min(positions), max(positions)


def _pulled_by(steps: StepList, post: Op, device: int) -> int:
    """First position, on the source device, that the other device reaches only after its pull.

    That is a barrier, or a wait for something that the other device posts later: what it posts is
    computed from what it pulled.
    """
    exchange = next(e for e in steps.exchanges if e.name == post.exchange)
    target = steps.ops[exchange.target_index]
    pulled = next(
        i for i, op in enumerate(target) if op.exchange == post.exchange and op is not post
    )
    # A gradient is added after it is pulled; until then 2012's kernels read the source's memory.
    pulled = max(i for i, op in enumerate(target) if i == pulled or _adds(op, exchange))
    posted = {op.exchange for op in target[pulled:] if op.kind == OpKind.POST}
    barriers = {op.barrier for op in target[pulled:] if op.kind == OpKind.BARRIER}
    return next(
        i
        for i, op in enumerate(steps.ops[device])
        if (op.kind == OpKind.WAIT and op.exchange in posted)
        or (op.kind == OpKind.BARRIER and op.barrier in barriers)
    )


def _taken_by(ops: list[Op], sends: int, collectives: Mapping[str, Collective]) -> int:
    """First position that a device reaches only after all others have taken what it sent.

    That is a barrier, or a collective in which it receives from every other device: who sends
    there has ended all collectives before.
    """
    device = ops[sends].device_index
    takers = set(collectives[ops[sends].collective].receivers) - {device}
    return next(
        index
        for index, op in enumerate(islice(ops, sends + 1, None), sends + 1)
        if op.kind == OpKind.BARRIER
        or (
            ("received" in op.operands or "total" in op.operands)
            and takers.issubset(collectives[op.collective].senders)
        )
    )


def _adds(op: Op, exchange: Exchange) -> bool:
    return op.kind == OpKind.ACCUMULATE and op.operands["x"] == (exchange.target_buffer,)


def _groups(pieces: list[Piece], lives: dict[str, tuple[int, int]], policy: Policy) -> list[Group]:
    by_name = {piece.name: piece for piece in pieces}
    groups: dict[str, Group] = {}
    for piece in pieces:
        root = piece
        while root.shares in by_name:
            root = by_name[root.shares]
        key = root.name
        if policy != "reuse" and piece.category == Category.WORKSPACE:
            # Only one gradient lands at a time.
            key = "landing"
        first, last = lives[piece.name]
        group = groups.get(key)
        if group is None:
            size = piece.size_bytes
            groups[key] = Group(pieces=[piece], first=first, last=last, size_bytes=size)
            continue
        group.pieces.append(piece)
        group.size_bytes = max(group.size_bytes, piece.size_bytes)
        group.first, group.last = min(group.first, first), max(group.last, last)
    return list(groups.values())


def _rooms(device: int, steps: StepList, groups: list[Group]) -> list[Room]:
    """Blocks; the outputs that an input is made of lie side by side in one block."""
    group_of = {piece.name: group for group in groups for piece in group.pieces}
    rooms: dict[str, Room] = {}
    joined: dict[tuple[str, ...], str] = {}
    for part in steps.joining:
        if steps.device_of[part.column] != device:
            continue
        for kind in ("activation", "activation_grad"):
            for reads, names in zip(part.inputs, steps.inputs(part, kind), strict=True):
                if len(names) > 1 and all(name in group_of for name in names):
                    ends = dict.fromkeys((reads[0].layer, reads[-1].layer))
                    joined[names] = f"{'-'.join(ends)}.{kind}"
    # The longest first: others are their beginnings.
    for names in sorted(joined, key=len, reverse=True):
        _join(joined[names], names, group_of, rooms)
    for group in groups:
        if not group.block:
            largest, *others = group.pieces
            if others:
                largest = next(p for p in group.pieces if p.size_bytes == group.size_bytes)
            group.block = group.pieces[0].name
            rooms[group.block] = Room(
                name=group.block,
                shape=largest.shape,
                size_bytes=group.size_bytes,
                groups=[group],
            )
    return list(rooms.values())


def _join(
    block: str, names: tuple[str, ...], group_of: dict[str, Group], rooms: dict[str, Room]
) -> None:
    members = [group_of[name] for name in names]
    if members[0].block:
        assert {member.block for member in members} == {members[0].block}, f"{block}: in two blocks"
        return
    shapes = [next(p.shape for p in group_of[n].pieces if p.name == n) for n in names]
    channel = 0
    for group, shape in zip(members, shapes, strict=True):
        assert not group.block, f"{block}: {group.pieces[0].name} lies in {group.block}"
        group.block, group.channel = block, channel
        channel += shape[1]
    rooms[block] = Room(
        name=block,
        shape=(shapes[0][0], channel, *shapes[0][2:]),
        size_bytes=sum(group.size_bytes for group in members),
        groups=members,
    )

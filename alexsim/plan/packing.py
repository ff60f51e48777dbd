"""Addresses of blocks by their lifetimes: side by side, or packed into one arena."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from alexsim.network.layers import Shape
from alexsim.plan.buffers import Piece

_PACKING_ROUNDS = 11
_GOOD_ENOUGH = 1.005
_FEW_BLOCKS = 96
_ALIGNMENT_BYTES = 64
"""A cache line, so that vector loads of a block never straddle two."""


@dataclass(slots=True, kw_only=True)
class Group:
    """Pieces that share their bytes because one overwrites the other."""

    pieces: list[Piece]
    first: int
    last: int
    block: str = ""
    channel: int = 0
    size_bytes: int
    """Of the largest piece."""


@dataclass(slots=True, kw_only=True)
class Room:
    """A block before it has an address: one group, or the slices of one concatenation."""

    name: str
    shape: Shape
    size_bytes: int
    groups: list[Group]
    offset: int = 0
    first: int = field(init=False)
    last: int = field(init=False)

    def __post_init__(self) -> None:
        first, *others = self.groups
        self.first, self.last = first.first, first.last
        for group in others:
            self.first, self.last = min(self.first, group.first), max(self.last, group.last)


_Lives = TypeVar("_Lives", Group, Room)


def side_by_side(rooms: list[Room]) -> int:
    """Addresses one after the other; the bytes that they take."""
    offset = 0
    for room in rooms:
        room.offset = offset
        offset += _aligned(room.size_bytes)
    return offset


def pack(rooms: list[Room], ops: int) -> int:
    """Addresses by lifetime: what lives all step at the bottom, the rest in the lowest gaps.

    First fit of the largest first is within a few percent of the live peak; moving the blocks
    that stick out to the front of the order, again and again, closes most of the rest.
    """
    lasting = [room for room in rooms if (room.first, room.last) == (0, ops - 1)]
    base = side_by_side(lasting)
    passing = [room for room in rooms if (room.first, room.last) != (0, ops - 1)]
    bound = _aligned(live_peak(passing, ops)[0])
    orders = (
        sorted(passing, key=lambda r: (-r.size_bytes, r.first)),
        sorted(passing, key=lambda r: (-(r.last - r.first), -r.size_bytes)),
        sorted(passing, key=lambda r: (r.first, -r.size_bytes)),
        sorted(passing, key=lambda r: (-r.last, -r.size_bytes)),
        sorted(passing, key=lambda r: (-r.size_bytes * (r.last - r.first), r.first)),
        sorted(passing, key=lambda r: (-r.size_bytes, -r.first)),
    )
    best, offsets = _improved(orders[0], bound)
    for order in orders[1:]:
        if best > _GOOD_ENOUGH * bound:
            best, offsets = min((best, offsets), _improved(order, bound), key=lambda x: x[0])
    for room in passing:
        room.offset = base + offsets[room.name]
    return base + best


def _improved(order: list[Room], bound: int) -> tuple[int, dict[str, int]]:
    arena, offsets = best, best_offsets = _first_fit(order)
    # A round costs the square of the blocks: of many, what is good enough is not improved on.
    enough = bound if len(order) <= _FEW_BLOCKS else _GOOD_ENOUGH * bound
    tried = {tuple(offsets)}
    for _ in range(_PACKING_ROUNDS):
        if best <= enough:
            break
        ends = {room.name: offsets[room.name] + room.size_bytes > bound for room in order}
        order = sorted(order, key=lambda room: not ends[room.name])
        names = tuple(room.name for room in order)
        if names in tried:  # and so is all that would follow
            break
        tried.add(names)
        arena, offsets = _first_fit(order)
        if arena < best:
            best, best_offsets = arena, offsets
    return best, best_offsets


def _first_fit(rooms: list[Room]) -> tuple[int, dict[str, int]]:
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last
    offsets, arena = {}, 0
    for room in rooms:
        size, first, last = _aligned(room.size_bytes), room.first, room.last
        offset = 0
        # A planner's innermost loop: it asks first what most blocks fail, and calls nothing.
        for start, end, begins, ends in placed:
            if end > offset and begins <= last and first <= ends:
                if start - offset >= size:
                    break
                offset = end
        offsets[room.name] = offset
        insort(placed, (offset, offset + size, first, last))
        arena = max(arena, offset + size)
    return arena, offsets


def live_peak(groups: Sequence[_Lives], ops: int) -> tuple[int, list[_Lives]]:
    """The most bytes that are alive during an op, and what is alive then."""
    delta = [0] * (ops + 1)
    for group in groups:
        delta[group.first] += group.size_bytes
        delta[group.last + 1] -= group.size_bytes
    live, peak, position = 0, -1, 0
    for index, change in enumerate(delta):
        live += change
        if live > peak:
            peak, position = live, index
    return peak, [g for g in groups if g.first <= position <= g.last]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES

"""What a device holds while each op runs: the plan's memory as it changes through a step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from alexsim.plan.plan import Buffer, Category, DevicePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Bytes alive while one op runs, its scratch under ``workspace``."""

    op_id: str
    by_category: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """Everything alive."""
        return sum(self.by_category.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """Bytes that one or more buffers share, the largest of them, and their life."""

    buffer: Buffer
    first: int
    last: int


def holdings(device: DevicePlan) -> tuple[Holding, ...]:
    """Every separate piece of memory, largest first."""
    return tuple(
        Holding(
            buffer=_largest(group),
            first=min(buffer.first for buffer in group),
            last=max(buffer.last for buffer in group),
        )
        for group in sorted(_groups(device), key=lambda group: -_largest(group).size_bytes)
    )


def memory_timeline(device: DevicePlan) -> tuple[Moment, ...]:
    """One moment per op, in issue order.

    The arena is taken once and whole; these are the bytes in it that mean something, and the
    scratch beside it.
    """
    # What lives and dies between two ops changes the sums: no op looks at every buffer.
    changes: dict[int, list[tuple[str, int]]] = {}
    for holding in holdings(device):
        category, size = str(holding.buffer.category), holding.buffer.size_bytes
        changes.setdefault(holding.first, []).append((category, size))
        changes.setdefault(holding.last + 1, []).append((category, -size))
    alive: dict[str, int] = {}
    moments = []
    for position, op in enumerate(device.ops):
        for category, size in changes.get(position, ()):
            alive[category] = alive.get(category, 0) + size
        now = {category: size for category, size in alive.items() if size}
        if op.scratch_bytes:
            workspace = str(Category.WORKSPACE)
            now[workspace] = now.get(workspace, 0) + op.scratch_bytes
        moments.append(Moment(op_id=op.id, by_category=now))
    return tuple(moments)


def _groups(device: DevicePlan) -> Iterable[list[Buffer]]:
    """Buffers by the bytes they lie in: one overwrites the other where both are the same."""
    groups: dict[tuple[str, int], list[Buffer]] = {}
    for buffer in device.buffers:
        groups.setdefault((buffer.block, buffer.channel), []).append(buffer)
    return groups.values()


def _largest(group: list[Buffer]) -> Buffer:
    return max(group, key=lambda buffer: (buffer.size_bytes, not buffer.shares))

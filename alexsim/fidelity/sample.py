"""A part of many rows that is the same every time, and has some of everything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar

from alexsim.fidelity.kernel_rows import KernelRow
from alexsim.fidelity.row_files import Row

_EVERY, _MOST = 20, 2000
"""A quick look takes one row in 20; of tables of more than 40,000, some 2,000."""


class _Row(Protocol):
    @property
    def id(self) -> str: ...


_AnyRow = TypeVar("_AnyRow", bound=_Row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How many rows a quick look took, and how."""

    rows: int
    of: int
    """Rows of the table."""
    every: int
    """One in so many of each device with each library, and at least one."""


def quick(rows: Sequence[Row]) -> tuple[tuple[Row, ...], Sample]:
    """Rows for a quick look, of every device with every library, as the table names them."""
    every = max(_EVERY, -(-len(rows) // _MOST))
    kept = sample(rows, lambda row: (row.gpu, row.library), every=every)
    return kept, Sample(rows=len(kept), of=len(rows), every=every)


def quick_kernels(rows: Sequence[KernelRow]) -> tuple[list[KernelRow], Sample]:
    """Rows for a quick look, of every op of every device and source."""
    every = max(_EVERY, -(-len(rows) // _MOST))
    kept = sample(rows, lambda row: (row.device, row.source, row.op), every=every)
    return [*kept], Sample(rows=len(kept), of=len(rows), every=every)


def sample(
    rows: Sequence[_AnyRow], kind: Callable[[_AnyRow], Hashable], *, every: int
) -> tuple[_AnyRow, ...]:
    """One row in ``every`` of each kind, and at least one, in their order.

    Which ones, a hash of their ids says: not their places, as tables often go round through shapes
    or batch sizes, and not their figures. A CRC would follow such rounds too: where ids differ in
    the same digit, it differs in the same bits.
    """
    kinds: dict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        kinds[kind(row)].append(index)
    kept: list[int] = []
    for members in kinds.values():
        members.sort(key=lambda index: blake2b(rows[index].id.encode(), digest_size=8).digest())
        kept += members[: max(1, round(len(members) / every))]
    return tuple(rows[index] for index in sorted(kept))

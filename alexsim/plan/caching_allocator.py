"""PyTorch's caching allocator: which addresses allocations get, and what it reserves for them.

As ``c10/cuda/CUDACachingAllocator.cpp`` does by default, on one stream: sizes are rounded up to
512 bytes; up to 1 MiB they come from segments of 2 MiB, up to 10 MiB from segments of 20 MiB,
beyond from one of their own, rounded up to 2 MiB. The smallest free block that is large enough is
taken (of those the first by address) and split, if what is left over is worth a block: 512 bytes
in small segments, more than 1 MiB in large ones. A block that is freed is merged with free ones
beside it. Segments are given back only when the card has no more; here never.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

MIN_BLOCK_BYTES = 512
SMALL_BYTES = 1 << 20
"""Largest allocation of a small segment (``kSmallSize``)."""
SMALL_SEGMENT_BYTES = 2 << 20
LARGE_SEGMENT_BYTES = 20 << 20
OF_ITS_KIND_BYTES = 10 << 20
"""From this size on an allocation has a segment of its own size (``kMinLargeAlloc``)."""
ROUND_LARGE_BYTES = 2 << 20


@dataclass(slots=True, eq=False)
class _Block:
    address: int
    size_bytes: int
    small: bool
    free: bool = True
    before: _Block | None = field(default=None, repr=False)
    after: _Block | None = field(default=None, repr=False)


@dataclass(slots=True)
class CachingAllocator:
    """One device's allocator; its segments lie one behind the other, in the order they came."""

    reserved_bytes: int = 0
    allocated_bytes: int = 0
    """Bytes of allocations, each rounded up to 512."""
    peak_bytes: int = 0
    """The most of them that there have been."""
    _free: dict[bool, list[tuple[int, int]]] = field(default_factory=lambda: {True: [], False: []})
    """Of small and of large segments, size and address of each free block, in this order."""
    _blocks: dict[int, _Block] = field(default_factory=dict)

    def allocate(self, size_bytes: int) -> int:
        """The address of that many bytes, more than 0."""
        size = rounded(size_bytes)
        small = size <= SMALL_BYTES
        pool = self._free[small]
        place = bisect_left(pool, (size, 0))
        if place < len(pool):
            block = self._blocks[pool.pop(place)[1]]
        else:
            block = _Block(self.reserved_bytes, segment_bytes(size), small)
            self._blocks[block.address] = block
            self.reserved_bytes += block.size_bytes
        left_over = block.size_bytes - size
        if left_over >= MIN_BLOCK_BYTES if small else left_over > SMALL_BYTES:
            self._split(block, size)
        block.free = False
        self.allocated_bytes += block.size_bytes
        self.peak_bytes = max(self.peak_bytes, self.allocated_bytes)
        return block.address

    def release(self, address: int) -> None:
        """Take back what was allocated there."""
        block = self._blocks[address]
        assert not block.free, f"nothing is allocated at {address}"
        self.allocated_bytes -= block.size_bytes
        block.free = True
        pool = self._free[block.small]
        if (before := block.before) and before.free:
            pool.remove((before.size_bytes, before.address))
            block = self._merged(before, block)
        if (after := block.after) and after.free:
            pool.remove((after.size_bytes, after.address))
            block = self._merged(block, after)
        insort(pool, (block.size_bytes, block.address))

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size_bytes - size, block.small)
        rest.before, rest.after = block, block.after
        if rest.after:
            rest.after.before = rest
        block.after, block.size_bytes = rest, size
        self._blocks[rest.address] = rest
        insort(self._free[rest.small], (rest.size_bytes, rest.address))

    def _merged(self, first: _Block, second: _Block) -> _Block:
        first.size_bytes += second.size_bytes
        first.after = second.after
        if second.after:
            second.after.before = first
        del self._blocks[second.address]
        return first


def rounded(size_bytes: int) -> int:
    """Bytes of the block that an allocation needs."""
    return max(-(-size_bytes // MIN_BLOCK_BYTES), 1) * MIN_BLOCK_BYTES


def segment_bytes(size_bytes: int) -> int:
    """Bytes that are taken of the card, where no free block is large enough."""
    if size_bytes <= SMALL_BYTES:
        return SMALL_SEGMENT_BYTES
    if size_bytes < OF_ITS_KIND_BYTES:
        return LARGE_SEGMENT_BYTES
    return -(-size_bytes // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES

"""Which concatenations cost nothing: their inputs lie side by side in one block of memory.

An output can lie in one block only, at one place. What one layer reads of several columns *must*
lie side by side; a concatenation does where its inputs are not taken by another. Later
concatenations come first: in a dense block, each is then the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Read(NamedTuple):
    """An output that a part reads: a layer's, in one column."""

    layer: str
    column: int


class Places:
    """Blocks of outputs that lie side by side."""

    def __init__(self) -> None:
        self._place: dict[Read, tuple[int, int]] = {}
        self._blocks = 0

    def take(self, outputs: Sequence[Read], allowed: Callable[[Read], bool]) -> bool:
        """Whether these lie side by side: they did, or now do."""
        if len(set(outputs)) < len(outputs) or not all(map(allowed, outputs)):
            return False
        taken = [self._place.get(read) for read in outputs]
        if any(taken):
            first = taken[0]
            return first is not None and taken == [
                (first[0], first[1] + index) for index in range(len(outputs))
            ]
        for index, read in enumerate(outputs):
            self._place[read] = (self._blocks, index)
        self._blocks += 1
        return True

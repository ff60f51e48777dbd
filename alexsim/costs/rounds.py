"""What a multiprocessor's schedulers and load/store lanes allow a tiled kernel.

Such a kernel goes in rounds: its threads bring a piece of both operands into shared memory, wait
for each other, and multiply what lies there. Two times count: that in which the schedulers issue a
round's instructions, and that in which the load/store lanes deliver its words. They overlap in
part, since warps that wait for the one do not use the other: the round takes the root of the sum of
their squares (between their maximum, which is full overlap, and their sum, which is none).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from alexsim.machine.device import Architecture
from alexsim.network.counts import FLOAT_BYTES

WARP = 32
_CONTROL = 32
"""Instructions of a round beside those that compute and move words: two barriers, the loop, and
where the next words lie (some integer instructions for each row of either tile)."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one thread does between two barriers.

    ``steps`` times it loads ``distinct`` values, which differ among a warp's threads, and
    ``common`` ones, which many of them share, and adds to its ``sums``; one load brings
    ``distinct_width`` or ``common_width`` words, as far as they lie side by side.
    """

    distinct: int
    common: int
    sums: int
    """Multiply-adds in a step."""
    steps: int
    words: float
    """Words that the thread brings from memory to shared memory."""
    distinct_width: int = 1
    common_width: int = 1

    @property
    def loads(self) -> float:
        """Instructions per step that read shared memory."""
        return self.distinct / self.distinct_width + self.common / self.common_width


def outer(
    distinct: int,
    common: int,
    steps: int,
    words: float,
    *,
    distinct_width: int = 1,
    common_width: int = 1,
) -> Round:
    """A round of which every step multiplies all ``distinct`` values by all ``common`` ones."""
    sums = distinct * common
    return Round(distinct, common, sums, steps, words, distinct_width, common_width)


def lane_share(architecture: Architecture, work: Round) -> float:
    """Share of the float32 lanes that a kernel of such rounds keeps busy.

    A load of words that threads share occupies all load/store lanes once; one of words that differ
    as often as its bytes need all banks of shared memory. Every word from memory is loaded once
    and stored once.
    """
    lanes = architecture.load_store_lanes_per_sm.value / WARP
    at_once = architecture.dual_issue.value if architecture.dual_issue else 1
    bank_words = architecture.bank_bytes.value / FLOAT_BYTES if architecture.bank_bytes else 1
    multiplies = work.sums * work.steps
    issued = multiplies + work.loads * work.steps + 2 * work.words + _CONTROL
    issue = max(multiplies, issued / at_once) / architecture.issue_warps_per_clock.value
    passes = (
        work.loads
        + work.distinct * (max(1.0, work.distinct_width / bank_words) - 1) / work.distinct_width
    )
    delivery = (passes * work.steps + 2 * work.words) / lanes
    busy = multiplies * WARP / architecture.lanes_per_sm.value
    return busy / max(busy, hypot(issue, delivery))

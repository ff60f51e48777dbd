"""What a part is told: how long it may take, how large its work is, what is known already."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from alexsim_kernels.bench.row import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A part's work.

    A part that is still at work when its box ends is stopped, and keeps the rows it has yielded: so
    it yields the most valuable first, and begins nothing that it cannot end.
    """

    box_s: float
    """Seconds from the beginning to the end of the box."""
    rehearse: bool = False
    """On a CPU: the same calls on tiny shapes, interpreted."""
    rows: Sequence[tuple[str, Row]] = ()
    """Parts that have ended, and their rows."""
    began_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        """Seconds until the box ends."""
        return self.began_s + self.box_s - time.monotonic()

    def rows_of(self, part: str) -> list[Row]:
        """What an earlier part yielded."""
        return [row for name, row in self.rows if name == part]

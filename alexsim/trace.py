"""Spans and traces: when each op ran, on whichever clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Activity = Literal["computing", "exchange", "all_reduce", "upload", "barrier", "host"]
"""What a device, a link or the host does during a span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One run of one op, or of work that belongs to no op: the host's, or a message on its way.

    Times are seconds since the trace began.
    """

    op_id: str
    """A name for people."""
    activity: Activity
    kind: str = ""
    """The op's kind: ``forward``, ``grad_input`` ...; empty without an op, as is ``layer``."""
    layer: str = ""
    exchange: str = ""
    """The exchange that is posted or waited for."""
    device: str
    device_index: int = -1
    """Place among the devices of all replicas; -1 for what is on no device."""
    queue: str
    step: int
    start_s: float
    end_s: float
    source: str
    """Which clock: ``measured`` or ``simulated``."""

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The spans of one or more steps."""

    spans: tuple[Span, ...]

    def busy_s(self, select: Callable[[Span], bool] = lambda _: True) -> float:
        """Summed duration of the spans that ``select`` takes."""
        return sum(span.duration_s for span in self.spans if select(span))

    def bounds(self) -> dict[int, tuple[float, float]]:
        """When each step's first span starts and its last span ends, in step order."""
        bounds: dict[int, tuple[float, float]] = {}
        for span in self.spans:
            low, high = bounds.get(span.step, (span.start_s, span.end_s))
            bounds[span.step] = (min(low, span.start_s), max(high, span.end_s))
        return dict(sorted(bounds.items()))

    def step_s(self) -> dict[int, float]:
        """Length of each step, from its first span to its last."""
        return {step: high - low for step, (low, high) in self.bounds().items()}

    def by_op(self) -> dict[str, list[float]]:
        """Durations of each op, one per step, in step order."""
        durations: dict[str, list[float]] = {}
        for span in self.spans:
            durations.setdefault(span.op_id, []).append(span.duration_s)
        return durations


def covered_s(intervals: Iterable[tuple[float, float]]) -> float:
    """Length of the union of intervals: where they overlap counts once."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        if end > reached:
            total += end - max(start, reached)
            reached = end
    return total

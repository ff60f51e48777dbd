"""How much of this machine's cores other processes take, from Linux's counters of time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_BUSY = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The first columns of its first line (proc(5)); guests are in user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Seconds that all cores have worked, that this process has, and the time."""

    all_s: float
    ours_s: float
    time_s: float

    @staticmethod
    def now() -> Moment:
        """As the counters say; where there are none, as if nobody else did anything."""
        spent = os.times()
        ours_s = spent.user + spent.system
        try:
            ticks = [int(word) for word in _STAT.read_text("ascii").split()[1 : 1 + len(_BUSY)]]
        except (OSError, ValueError):
            return Moment(all_s=ours_s, ours_s=ours_s, time_s=time.perf_counter())
        counted = dict(zip(_BUSY, ticks, strict=True))
        busy = sum(counted.values()) - counted["idle"] - counted["iowait"]
        return Moment(
            all_s=busy / os.sysconf("SC_CLK_TCK"), ours_s=ours_s, time_s=time.perf_counter()
        )

    def others_share(self, since: Moment) -> float:
        """Part of all cores' time that others took since then; a tick more or less is none."""
        taken_s = (self.all_s - since.all_s) - (self.ours_s - since.ours_s)
        whole_s = (os.cpu_count() or 1) * (self.time_s - since.time_s)
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        return max(0.0, taken_s - tick_s) / whole_s if whole_s > 0 else 0.0

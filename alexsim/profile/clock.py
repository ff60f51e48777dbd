"""Seconds of what a device does: by events on a card, by the host's clock on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from alexsim.execute.cards import Timeline
from alexsim.execute.choices import Device
from alexsim.profile.nvml import Sample, Sampler
from alexsim.profile.steps import wait

REPEATS = 5
_REPEAT_S = 0.02
"""A repeat is about as long: long beside what a clock takes, and beside a launch."""
_MOST_CALLS = 1000
_WORKS = 0.5
"""Utilisation of a card that works: between two measurements it may go to sleep."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Times calls on a device."""

    device: Device

    def seconds(self, run: Callable[[], object]) -> float:
        """Of one call: median of repeats, each of calls in a row, after a warm-up.

        In a row, a card's next launch hides behind what runs.
        """
        run()
        wait(self.device)
        calls = min(_MOST_CALLS, max(1, int(_REPEAT_S / max(self._repeat_s(run, 1), 1e-9))))
        return statistics.median(self._repeat_s(run, calls) / calls for _ in range(REPEATS))

    def alone_s(self, run: Callable[[], object]) -> float:
        """Of one call that nothing precedes, from its launch until the host knows of its end."""
        times = []
        for _ in range(REPEATS * REPEATS):
            wait(self.device)
            started = time.perf_counter()
            run()
            wait(self.device)
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def _repeat_s(self, run: Callable[[], object], calls: int) -> float:
        if self.device == "cpu":
            started = time.perf_counter()
            for _ in range(calls):
                run()
            return time.perf_counter() - started
        begin = Timeline.mark()
        for _ in range(calls):
            run()
        end = Timeline.mark()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


@contextmanager
def watched(device: Device) -> Iterator[Callable[[], str]]:
    """Sample a card's clocks meanwhile; what is yielded says them in words, of a CPU none."""
    samples: list[Sample] = []
    if device == "cpu":
        yield lambda: ""
        return
    with Sampler(samples.append) as sampler:
        yield lambda: clocks_text(samples, sampler.why)


def clocks_text(samples: Sequence[Sample], why: str) -> str:
    """Medians of the first card's clocks while it worked; or ``why`` nobody knows them."""
    first = [sample for sample in samples if sample.card == 0]
    worked = [each for each in first if (each.utilisation or 0) >= _WORKS] or first
    known = {
        "SM": [sample.sm_mhz for sample in worked if sample.sm_mhz],
        "memory": [sample.memory_mhz for sample in worked if sample.memory_mhz],
    }
    texts = [f"{name} {statistics.median(mhz):.0f} MHz" for name, mhz in known.items() if mhz]
    if not texts:
        return f"clocks unknown: {why or 'NVML reports none'}"
    return f"{', '.join(texts)} (medians, by NVML)"

"""The state of the cards while the other parts run: a row per card and second.

It goes on until its box or its process ends; without NVML it says why at once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence

from alexsim.profile.nvml import Sample, Sampler
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row

NEEDS = ()
"""Of ``pynvml`` the part itself says that it is not there."""
_EVERY_S = 1.0
_FIELDS = ("utilisation", "sm_mhz", "memory_mhz", "memory_bytes", "temperature_c")


def rows(job: Job) -> Iterator[Row]:
    """Rows as the seconds pass; ``time_s`` in their detail is since the job began."""
    samples: list[Sample] = []
    with Sampler(samples.append) as sampler:
        if sampler.why:
            # A machine for rehearsals has no card: nothing has failed.
            yield (
                Row(op="telemetry", text=sampler.why)
                if job.rehearse
                else Row(op="telemetry", failed=sampler.why)
            )
            return
        offset_s = time.monotonic() - job.began_s
        while (left_s := job.left_s) > 0:
            time.sleep(min(_EVERY_S, left_s))
            # The sampler's thread goes on adding behind these.
            count = len(samples)
            second = samples[:count]
            del samples[:count]
            for card in sorted({each.card for each in second}):
                yield _row([each for each in second if each.card == card], offset_s)


def _row(samples: Sequence[Sample], offset_s: float) -> Row:
    """A second of a card: means, the highest temperature, and all that held its clocks down."""
    last = samples[-1]
    powers = [each.power_w for each in samples if each.power_w is not None]
    detail: dict[str, object] = {"time_s": round(last.time_s + offset_s, 2), "card": last.card}
    for name in _FIELDS:
        values = [value for each in samples if (value := getattr(each, name)) is not None]
        if values:
            mean = statistics.fmean(values)
            detail[name] = max(values) if name == "temperature_c" else round(mean, 3)
    detail["throttle"] = sorted({reason for each in samples for reason in each.throttle or ()})
    power = round(statistics.fmean(powers), 1) if powers else None
    detail["power_w"] = power
    return Row(op="telemetry", value=power, unit="W", detail=detail)

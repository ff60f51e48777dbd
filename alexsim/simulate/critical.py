"""The critical path of a step, and how certain its length is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from alexsim.plan.plan import PASS_OF, Op
from alexsim.simulate.engine import Times
from alexsim.simulate.host import Auxiliary
from alexsim.simulate.simulation import NINE_IN_TEN, DeviceTimes, Elasticity, Interval
from alexsim.simulate.tasks import TaskList
from alexsim.trace import Span

TRANSFER_SPREAD, HOST_SPREAD = 0.2, 0.3
"""Standard deviation of the logarithm of a transfer's time and of a stage of the data path:
published copies over one kind of link differ by about a fifth, hosts and disks by more."""

_ROUND = 1e-9
"""A share of a step that rounding leaves where both chains have the same tasks."""


def critical_path(
    spans: Mapping[int, Span], times: Times, last: int, origin: float
) -> tuple[Span, ...]:
    """The chain of tasks that ends with ``last``, back to where the step began.

    Each task started when the task before it ended, so their lengths add up to the step's.
    ``spans`` are by task.
    """
    path = []
    index = last
    while index >= 0 and times.end[index] > origin:
        if times.end[index] > times.start[index]:
            path.append(spans[index])
        index = times.cause[index]
    return tuple(reversed(path))


def elasticities(listed: TaskList, times: Times, last: int, before: int) -> tuple[Elasticity, ...]:
    """How much each part of a step's work would shorten the step if it took less time.

    A step ends with ``last``, and begins when ``before`` ends (-1: at time 0). Either end is the
    sum of the tasks on its chain back to time 0, so its derivative by the time of a part is the
    time that the part has on that chain; the step's is the difference. Where images set the pace
    both chains have a step's computing on them, and their difference is the data path alone: other
    than ``critical_path``, which goes back no further than to where the step began.

    Args:
        listed: the tasks.
        times: when each started and ended, and what let it start.
        last: the step's last task.
        before: that of the step before it.
    """
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    ends = [(times.end[last], last, 1), (times.end[before] if before >= 0 else 0.0, before, -1)]
    while ends[0][1] != ends[1][1]:
        # Back from the later of the two, until the chains meet.
        ends.sort()
        _, index, sign = ends.pop()
        seconds[part_of(*listed.ops[index])] += sign * (times.end[index] - times.start[index])
        cause = times.cause[index]
        ends.append((times.start[index], cause, sign))
    step_s = sum(seconds.values())
    return tuple(
        Elasticity(part=part, pass_name=name, share=taken_s / step_s)
        for (part, name), taken_s in seconds.items()
        if abs(taken_s) > _ROUND * step_s
    )


def part_of(item: Op | Auxiliary, queue: str) -> tuple[str, str]:
    """A layer and its pass, issuing it too; of a transfer its activity; of the data path its
    stage."""
    if isinstance(item, Auxiliary) and item.issues:
        item = item.issues
    if isinstance(item, Auxiliary):
        return (queue.rpartition(".")[2] if item.activity == "host" else item.activity), ""
    if item.kind.activity != "computing":
        return item.kind.activity, ""
    return item.layer, PASS_OF.get(item.kind, "forward")


def interval(
    listed: TaskList,
    step_s: float,
    path: Sequence[Span],
    devices: Sequence[DeviceTimes],
    *,
    host_s: float,
) -> Interval:
    """Bounds for nine steps in ten.

    The devices and the data path run beside each other, and the slower sets the pace: so the bounds
    are the larger of theirs. A device's time is as uncertain as its computing and its transfers, in
    their shares of the critical path.
    """
    if host_s > 0.999 * step_s:
        # The path leads through the data path; the devices alone would take less.
        computing = max(device.busy_s for device in devices)
        alone_s = max(step_s - device.idle_s for device in devices)
    else:
        computing = sum(s.duration_s for s in path if s.activity in ("computing", "host"))
        alone_s = step_s
    # Beside a data path that takes years, the devices' time is lost in rounding.
    share = computing / alone_s if alone_s else 0.0
    spread = math.hypot(share * _spread(listed), (1 - share) * TRANSFER_SPREAD)
    low, high = math.exp(-NINE_IN_TEN * spread), math.exp(NINE_IN_TEN * spread)
    slow = math.exp(NINE_IN_TEN * HOST_SPREAD)
    return Interval(low=max(alone_s * low, host_s / slow), high=max(alone_s * high, host_s * slow))


def _spread(listed: TaskList) -> float:
    """Standard deviation of the logarithm of the first device's computing time."""
    shares: dict[str, float] = defaultdict(float)
    total = 0.0
    for cost, seconds in listed.costs.pace():
        total += seconds
        for trait in cost.traits:
            shares[trait] += seconds
    timer = listed.timer
    error = timer.correction.error_class(
        "network",
        timer.machine.device.basis,
        timer.library.name,
        reduced=timer.best_precision != "fp32",
    )
    parts = {trait: share / total for trait, share in shares.items()}
    return timer.correction.spread(parts, error, timer.machine.device.basis.name)

"""A small deterministic event engine: tasks, in-order queues, shared resources, one clock.

It knows no domain words. A task waits for the tasks it needs, for its turn in its queue, and for
every resource that it holds while it runs. Tasks that wait for one resource get it in the order in
which they became ready, and then in the order in which they were given: so a run repeats bit for
bit.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Task:
    """Something that takes time.

    ``after`` are indices of tasks that must end first; ``queue`` runs its tasks in the order given;
    ``holds`` are resources that one task at a time may have.
    """

    seconds: float
    queue: str
    after: tuple[int, ...] = ()
    holds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Times:
    """Start and end of each task, and the task whose end let it start (-1: nothing had to end)."""

    start: list[float]
    end: list[float]
    cause: list[int]


def run(tasks: Sequence[Task]) -> Times:
    """Run all tasks.

    Raises:
        ValueError: tasks wait for each other in a circle.
    """
    count = len(tasks)
    start, end, cause = [0.0] * count, [0.0] * count, [-1] * count
    missing = [0] * count
    follows: list[list[int]] = [[] for _ in range(count)]
    last: dict[str, int] = {}
    for index, task in enumerate(tasks):
        needs = set(task.after)
        if (before := last.get(task.queue)) is not None:
            needs.add(before)
        last[task.queue] = index
        missing[index] = len(needs)
        for need in needs:
            follows[need].append(index)
    free: dict[str, tuple[float, int]] = {}
    ready = [0.0] * count
    waiting = [(0.0, 0.0, index) for index in range(count) if not missing[index]]
    heapq.heapify(waiting)
    done = 0
    while waiting:
        begin, since, index = heapq.heappop(waiting)
        task = tasks[index]
        if task.holds:
            freed, holder = max([free.get(resource, (0.0, -1)) for resource in task.holds])
            if freed > begin:
                cause[index] = holder
                heapq.heappush(waiting, (freed, since, index))
                continue
        finish = begin + task.seconds
        for resource in task.holds:
            free[resource] = finish, index
        start[index], end[index] = begin, finish
        done += 1
        for follower in follows[index]:
            if finish >= ready[follower]:
                ready[follower], cause[follower] = finish, index
            missing[follower] -= 1
            if not missing[follower]:
                heapq.heappush(waiting, (ready[follower], ready[follower], follower))
    if done < count:
        raise ValueError(f"{count - done} of {count} tasks wait for each other in a circle")
    return Times(start, end, cause)

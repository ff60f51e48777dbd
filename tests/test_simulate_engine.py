"""The event engine: order, resources, and what must always hold."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexsim.simulate.engine import Task, run


def test_a_queue_is_served_in_the_order_given() -> None:
    times = run([Task(2.0, "a"), Task(1.0, "a"), Task(5.0, "b")])
    assert (times.start, times.end) == ([0.0, 2.0, 0.0], [2.0, 3.0, 5.0])
    assert times.cause == [-1, 0, -1]


def test_a_resource_goes_to_whoever_was_ready_first() -> None:
    tasks = [
        Task(1.0, "a"),
        Task(3.0, "a", holds=("link",)),  # ready at 1
        Task(0.5, "b"),
        Task(3.0, "b", holds=("link",)),  # ready at 0.5
    ]
    times = run(tasks)
    start = times.start
    assert times.cause[1] == 3
    assert start[3] == 0.5
    assert start[1] == 3.5


def test_waiters_for_one_resource_keep_their_order_of_arrival() -> None:
    tasks = [
        Task(10.0, "z", holds=("link",)),
        Task(2.0, "a"),
        Task(1.0, "a", holds=("link",)),  # ready at 2
        Task(1.0, "b"),
        Task(1.0, "b", holds=("link",)),  # ready at 1: first
    ]
    start = run(tasks).start
    assert start[4] == 10.0
    assert start[2] == 11.0


def test_a_circle_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 of 2 tasks wait"):
        run([Task(1.0, "a", after=(1,)), Task(1.0, "b", after=(0,))])


@st.composite
def task_lists(draw: st.DrawFn) -> list[Task]:
    count = draw(st.integers(1, 25))
    return [
        Task(
            draw(st.floats(0, 10, allow_nan=False)),
            draw(st.sampled_from("abc")),
            tuple(draw(st.sets(st.integers(0, index - 1), max_size=3))) if index else (),
            tuple(draw(st.sets(st.sampled_from(("up", "down", "uplink")), max_size=2))),
        )
        for index in range(count)
    ]


@given(task_lists())
def test_nothing_overlaps_and_nothing_starts_early(tasks: list[Task]) -> None:
    times = run(tasks)
    start, end = times.start, times.end
    for index, cause in enumerate(times.cause):
        # What let a task start ended exactly then, and stands in its way: a need, a turn, a holder.
        assert start[index] == (end[cause] if cause >= 0 else 0.0)
        if cause >= 0:
            task, other = tasks[index], tasks[cause]
            shared = set(task.holds) & set(other.holds)
            assert cause in task.after or other.queue == task.queue or shared
    users: dict[str, list[int]] = {}
    for index, task in enumerate(tasks):
        assert end[index] == start[index] + task.seconds
        assert all(end[need] <= start[index] for need in task.after)
        for resource in (*task.holds, f"queue {task.queue}"):
            users.setdefault(resource, []).append(index)
    for indices in users.values():
        spans = sorted((start[i], end[i]) for i in indices)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))
        # Never shorter than the busiest resource.
        assert max(end) >= sum(tasks[i].seconds for i in indices) - 1e-9


@given(task_lists())
def test_never_shorter_than_the_critical_path_and_always_the_same(tasks: list[Task]) -> None:
    times = run(tasks)
    end = times.end
    longest = [0.0] * len(tasks)
    last: dict[str, int] = {}
    for index, task in enumerate(tasks):
        needs = [*task.after, *([last[task.queue]] if task.queue in last else [])]
        longest[index] = task.seconds + max((longest[need] for need in needs), default=0.0)
        last[task.queue] = index
    assert max(end) >= max(longest) - 1e-9
    assert run(tasks) == times

"""Steps as a trace in Chrome's format: Perfetto opens it, and Holistic Trace Analysis per rank.

A process per virtual GPU and clock, a thread per queue, arrows from every exchange's post to its
wait, memory by category as a counter, counts and rates as arguments of every op.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alexsim.ledger.timeline import memory_timeline
from alexsim.plan.plan import OpKind, Plan
from alexsim.profile.step_profile import StepProfile
from alexsim.report.trace_ops import (
    AHEAD_US,
    arguments_of,
    is_seen,
    kind_of,
    launches,
    profilers_name,
)
from alexsim.strict_json import json_text
from alexsim.trace import Span, Trace
from alexsim.units import MIB

Event = dict[str, Any]

_THREADS = {"host": 1, "compute": 7, "copy_in": 8, "copy_out": 9}
"""Thread of every queue, and its CUDA stream for tools that want a stream."""
_OTHER_THREADS = 10
_FLOW = "exchange"
_TICK_US = 0.001
"""Times are written in whole nanoseconds."""
_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A plan's spans on one clock."""

    name: str
    """``measured``, or ``simulated`` and where."""
    plan: Plan
    trace: Trace
    underlay: Sequence[Event] = ()
    """Complete events of ``torch.profiler``; ``ts`` in microseconds of the spans' clock."""


def both_clocks(profile: StepProfile, underlay: Sequence[Event] = ()) -> list[Clock]:
    """Measured steps, and as many simulated steps."""
    simulated = repeated(profile.simulation.trace, len(profile.trace.bounds()))
    name = f"simulated: {profile.simulation.machine}"
    return [
        Clock(name="measured", plan=profile.plan, trace=profile.trace, underlay=underlay),
        Clock(name=name, plan=profile.plan, trace=simulated),
    ]


def repeated(trace: Trace, steps: int) -> Trace:
    """A step in steady state, ``steps`` times one after another."""
    length = max((span.end_s for span in trace.spans), default=0.0)
    return Trace(
        spans=tuple(
            replace(
                span,
                step=step,
                start_s=span.start_s + step * length,
                end_s=span.end_s + step * length,
            )
            for step in range(steps)
            for span in trace.spans
        )
    )


def chrome_trace(clocks: Iterable[Clock]) -> Event:
    """Everything in one document: what Perfetto and chrome://tracing open."""
    events: list[Event] = []
    base = 1
    for clock in clocks:
        rows = _Rows(clock, base, launches=False)
        events += rows.events()
        base += len(rows.processes)
    return _document(events, rank=0, ranks=1)


def rank_traces(clock: Clock) -> list[Event]:
    """One document per virtual GPU, as distributed profilers write them.

    Of devices that are all alike, the first has a document. A single simulated step is written
    several times, because readers leave out the first step and the last.
    """
    if len(clock.trace.bounds()) == 1:
        clock = replace(clock, trace=repeated(clock.trace, _STEPS))
    names = [device.name for device in clock.plan.devices]
    ranks = len(names) * clock.plan.stands_for
    return [
        _document(_Rows(clock, rank + 1, launches=True, only=name).events(), rank=rank, ranks=ranks)
        for rank, name in enumerate(names)
    ]


def packed(document: Event) -> bytes:
    """The document as gzip'd JSON; the same bytes every time."""
    # A blank after every colon: readers look for `"rank": 0` as text.
    text = json_text(document, separators=(",", ": "))
    return gzip.compress(text.encode(), mtime=0)


def _document(events: list[Event], *, rank: int, ranks: int) -> Event:
    return {
        "schemaVersion": 1,
        "distributedInfo": {"rank": rank, "world_size": ranks, "backend": "alexsim"},
        "displayTimeUnit": "ms",
        "traceEvents": events,
    }


class _Rows:
    """The events of one clock, its processes numbered from ``base``."""

    def __init__(self, clock: Clock, base: int, *, launches: bool, only: str = "") -> None:
        self._clock, self._launches = clock, launches
        self._ops = {op.id: op for op in clock.plan.ops()}
        spans = [span for span in clock.trace.spans if only in ("", span.device)]
        self._bounds, self._shift = clock.trace.bounds(), _shifts(clock.trace)
        self._spans = sorted(spans, key=lambda span: (span.step, span.start_s, span.end_s))
        seen = {span.device for span in spans}
        # A prediction has one device where all are alike.
        devices = dict.fromkeys(
            device.name for device in clock.plan.devices if not seen or device.name in seen
        )
        devices |= dict.fromkeys(span.device for span in spans)
        self.processes = {
            name: base + index
            for index, name in enumerate(name for name in devices if only in ("", name))
        }
        self._threads = dict(_THREADS)
        for queue in dict.fromkeys(span.queue for span in spans):
            self._threads.setdefault(queue, _OTHER_THREADS + len(self._threads))

    def events(self) -> list[Event]:
        ops = list(map(self._op, range(len(self._spans)), self._spans))
        return [
            *self._names(),
            *self._steps(),
            *ops,
            *(self._launched(ops) if self._launches else ()),
            *self._arrows(),
            *self._memory(),
            *self._underlay(),
        ]

    def _names(self) -> Iterable[Event]:
        used = {(span.device, span.queue) for span in self._spans}
        for device, pid in self.processes.items():
            yield _meta("process_name", pid, {"name": f"{device} ({self._clock.name})"})
            yield _meta("process_sort_index", pid, {"sort_index": pid})
            for queue, tid in self._threads.items():
                if queue == "host" or (device, queue) in used:
                    label = queue.replace("_", " ") or device
                    yield _meta("thread_name", pid, {"name": label}, tid)
                    yield _meta("thread_sort_index", pid, {"sort_index": tid}, tid)

    def _steps(self) -> Iterable[Event]:
        """Steps as the host sees them, the same on every device."""
        for step in self._bounds:
            begin, end = self._host_step(step)
            for device, pid in self.processes.items():
                if device in {device_plan.name for device_plan in self._clock.plan.devices}:
                    yield {
                        "ph": "X",
                        "cat": "user_annotation",
                        "name": f"ProfilerStep#{step}",
                        "pid": pid,
                        "tid": self._threads["host"],
                        "ts": begin,
                        "dur": round(end - begin, 3),
                    }

    def _op(self, number: int, span: Span) -> Event:
        op = self._ops.get(span.op_id)
        pid = self.processes[span.device]
        category, name = kind_of(op, span)
        arguments = arguments_of(op, span)
        when = (span.step, span.start_s, span.end_s)
        if not self._launches:
            event = self._complete(name, category, pid, span.queue, when)
            return event | {"args": arguments}
        event = self._complete(profilers_name(span, name), category, pid, span.queue, when)
        if category == "host" or not is_seen(event["ts"], event["ts"] + event["dur"]):
            del event["cat"]  # readers of profiles pass over it
            return event | {"args": arguments}
        if category == "gpu_memcpy":
            arguments["memory bandwidth (GB/s)"] = arguments.get("GB/s", 0.0)
        stream = {"stream": self._threads[span.queue], "device": pid - 1}
        return event | {"args": arguments | {"correlation": number + 1} | stream}

    def _launched(self, ops: Sequence[Event]) -> Iterable[Event]:
        """Every op's launch by the host, and every step as each stream sees it."""
        by_step: dict[int, list[Event]] = {}
        by_stream: dict[tuple[int, int], list[Event]] = {}
        for span, event in zip(self._spans, ops, strict=True):
            if "cat" in event:
                by_step.setdefault(span.step, []).append(event)
                by_stream.setdefault((span.step, event["tid"]), []).append(event)
        for step, events in by_step.items():
            times = launches((event["ts"] for event in events), *self._host_step(step))
            for event, (begin, end) in zip(events, times, strict=True):
                kernel = event["cat"] == "kernel"
                yield event | {
                    "cat": "cuda_runtime",
                    "name": "cudaLaunchKernel" if kernel else "cudaMemcpyAsync",
                    "tid": self._threads["host"],
                    "ts": begin,
                    "dur": round(end - begin, 3),
                    "args": {"correlation": event["args"]["correlation"]},
                }
        for (step, _), events in by_stream.items():
            begin, end = events[0]["ts"], max(event["ts"] + event["dur"] for event in events)
            # Not ProfilerStep#: of two steps of a name, a reader takes the later.
            name = {"cat": "gpu_user_annotation", "name": f"step {step}"}
            yield events[0] | name | {"dur": round(end - begin, 3), "args": {}}

    def _host_step(self, step: int) -> tuple[float, float]:
        """Microseconds of a step as the host sees it, which is ahead where it launches."""
        low, high = (self._us(step, when) for when in self._bounds[step])
        if not self._launches:
            return low, high
        begin = max(0.0, round(low - AHEAD_US, 3))
        return begin, high if step == max(self._bounds) else round(high - AHEAD_US, 3)

    def _arrows(self) -> Iterable[Event]:
        """From every post into its wait."""
        posts: dict[tuple[int, int, str], Span] = {}
        waits: dict[tuple[int, int, str], Span] = {}
        columns = len(self._clock.plan.devices)
        for span in self._spans:
            if span.kind in (OpKind.POST, OpKind.WAIT):
                replica = span.device_index // columns
                ends = posts if span.kind == OpKind.POST else waits
                ends[span.step, replica, span.exchange] = span
        ids = {exchange.name: n for n, exchange in enumerate(self._clock.plan.posted, start=1)}
        for key, post in posts.items():
            wait = waits.get(key)
            if wait is None:
                continue
            step, replica, exchange = key
            place = (step * len(self.processes) + replica) * len(ids) + ids[exchange]
            number = place * 64 + min(self.processes.values())
            begin, end = (self._us(wait.step, when) for when in (wait.start_s, wait.end_s))
            # Before the wait ends: at its end, a reader may take the op that follows.
            last = max(begin, round(end - _TICK_US, 3))
            for phase, span, when in (
                ("s", post, self._us(post.step, post.start_s)),
                ("f", wait, last),
            ):
                event = {
                    "ph": phase,
                    "cat": _FLOW,
                    "name": exchange,
                    "id": number,
                    "pid": self.processes[span.device],
                    "tid": self._threads[span.queue],
                    "ts": when,
                }
                yield event | ({"bp": "e"} if phase == "f" else {})

    def _memory(self) -> Iterable[Event]:
        for device in self._clock.plan.devices:
            pid = self.processes.get(device.name)
            if pid is None:
                continue
            moments = {moment.op_id: moment.by_category for moment in memory_timeline(device)}
            names = sorted({name for held in moments.values() for name in held})
            before: dict[str, int] | None = None
            for span in self._spans:
                held = moments.get(span.op_id)
                # Copies run ahead of their place in the plan; what computes says where it is.
                if span.device != device.name or span.queue != "compute":
                    continue
                if held is None or held == before:
                    continue
                before = held
                yield {
                    "ph": "C",
                    "name": "memory, MiB",
                    "pid": pid,
                    "tid": 0,
                    "ts": self._us(span.step, span.start_s),
                    "args": {name: round(held.get(name, 0) / MIB, 3) for name in names},
                }

    def _underlay(self) -> Iterable[Event]:
        if not self._clock.underlay:
            return
        last = max(span.step for span in self._clock.trace.spans)
        shift = 1e6 * self._shift[last]
        pid = min(self.processes.values())
        tids: dict[Any, int] = {}
        for event in self._clock.underlay:
            tid = tids.setdefault(event.get("tid"), 100 + len(tids))
            yield event | {"pid": pid, "tid": tid, "ts": round(event["ts"] + shift, 3)}
        for tid in tids.values():
            yield _meta("thread_name", pid, {"name": "torch.profiler"}, tid)
            yield _meta("thread_sort_index", pid, {"sort_index": tid}, tid)

    def _complete(
        self, name: str, category: str, pid: int, queue: str, when: tuple[int, float, float]
    ) -> Event:
        step, start, end = when
        begin = self._us(step, start)
        return {
            "ph": "X",
            "cat": category,
            "name": name,
            "pid": pid,
            "tid": self._threads[queue],
            "ts": begin,
            # Rounded ends, so that neighbours meet and never overlap.
            "dur": round(self._us(step, end) - begin, 3),
        }

    def _us(self, step: int, seconds: float) -> float:
        return round(1e6 * (seconds + self._shift[step]), 3)


def _shifts(trace: Trace) -> dict[int, float]:
    """What to add to a step's times so that steps follow one another, whatever lay between."""
    shifts, reached = {}, 0.0
    for step, (low, high) in trace.bounds().items():
        shifts[step] = reached - low
        reached += high - low
    return shifts


def _meta(name: str, pid: int, arguments: Event, tid: int = 0) -> Event:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": arguments}

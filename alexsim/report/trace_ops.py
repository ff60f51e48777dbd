"""Names and arguments of an op's event in a trace, and what readers of distributed profiles need.

Holistic Trace Analysis tells kinds of kernels by their names (``hta/utils/utils.py``), takes an
op's step from its launch, and rounds starts up and ends down to microseconds
(``round_down_time_stamps``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from alexsim.plan.plan import Op, OpKind
from alexsim.trace import Span

AHEAD_US = 2.0
"""The host begins a step's launches so much before the step's first op."""


def kind_of(op: Op | None, span: Span) -> tuple[str, str]:
    """Category and name of an op's event, transfers as CUDA's profilers call them."""
    # An op of no layer lies in its device's row: what it does is name enough.
    name = op.label if op and not op.layer else span.op_id
    match span.activity:
        case "host":
            return "host", span.op_id if span.layer else span.queue
        case "upload":
            return "gpu_memcpy", f"Memcpy HtoD ({name})"
        case "exchange" | "all_reduce":
            return "gpu_memcpy", f"Memcpy PtoP ({name})"
    return "kernel", name


def arguments_of(op: Op | None, span: Span) -> dict[str, Any]:
    """An op's identity, its counts, and its rates."""
    if op is None:
        return {}
    arguments: dict[str, Any] = {"op": op.id, "kind": str(op.kind), "step": span.step}
    if op.layer:
        arguments["layer"] = op.layer
    if op.epilogue:
        arguments["and"] = op.epilogue
    if op.count.mac:
        arguments |= {"mac": op.count.mac, "flop": op.count.flop}
        if span.duration_s:
            arguments["GFLOP/s"] = round(op.count.flop / span.duration_s / 1e9, 1)
    if op.count.elementwise_flop:
        arguments["elementwise_flop"] = op.count.elementwise_flop
    if op.count.moved_bytes:
        arguments["bytes"] = op.count.moved_bytes
        if span.duration_s:
            arguments["GB/s"] = round(op.count.moved_bytes / span.duration_s / 1e9, 2)
    if op.scratch_bytes:
        arguments["scratch_bytes"] = op.scratch_bytes
    return arguments


def profilers_name(span: Span, name: str) -> str:
    """What profilers call an op that communicates or waits; other ops keep their name.

    Transfers between ranks have NCCL's names, the same on both ends. ``Sync`` is neither
    communication nor computation there.
    """
    match span.activity:
        case "exchange":
            return "ncclKernel_SendRecv"
        case "all_reduce":
            return _COLLECTIVES[span.kind]
        case "barrier":
            return f"Sync {name}"
    return name


_COLLECTIVES: dict[str, str] = {
    OpKind.ALL_REDUCE: "ncclKernel_AllReduce",
    OpKind.ALL_GATHER: "ncclKernel_AllGather",
    OpKind.REDUCE_SCATTER: "ncclKernel_ReduceScatter",
}


def is_seen(start_us: float, end_us: float) -> bool:
    """Whether a whole microsecond lies in a slice: once rounded, it else ends before it starts."""
    return math.ceil(start_us) <= math.floor(end_us)


def launches(
    starts_us: Iterable[float], begin_us: float, end_us: float
) -> Iterator[tuple[float, float]]:
    """Start and end of the launches of a step's ops, whose starts are in order.

    The host launches one op after another from the step's begin on, each before its op begins.
    Neither clock has a time for that: a launch lasts to the next whole microsecond and one more,
    so that there is something of it left once it is rounded. A launch takes no time if its op
    begins before the host is free.
    """
    free_us = begin_us
    for start_us in starts_us:
        begin = min(free_us, start_us)
        end = begin if begin < free_us else min(math.ceil(begin) + 1.0, end_us)
        free_us = max(free_us, end)
        yield begin, end

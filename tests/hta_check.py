"""Load ranks' traces into Holistic Trace Analysis, and check every analysis that it offers.

    python tests/hta_check.py FOLDER...

Each FOLDER holds ``rank0.json.gz`` and further ranks of one clock, as ``--trace DIR/`` writes them.
Needs the package HolisticTraceAnalysis (0.5.0 fails on pandas 3, with any trace). Exits with 1 and
a line per error. What cannot apply to these traces, and is not called:

- ``get_aten_op_kernels_and_delay`` and execution traces (``hta.common.execution_trace``): ops are
  the plan's, not ATen's, and no execution trace of PyTorch belongs to them.
- ``get_cupti_counter_data_with_operators`` finds nothing: neither clock reads hardware counters.
- ``MemoryAnalysis`` reads another file, that of ``torch.profiler``'s ``export_memory_timeline``.
- ``get_potential_stragglers`` by default looks at communication of 1 % of a step and more, on two
  ranks: there is none in AlexNet's exchanges, so the threshold is lowered here.

The critical path knows no waits between streams, as there are no events of synchronisation: it
is that of the computing.
"""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
Errors = Iterator[str]
Interval = tuple[int, int]


class Rank:
    """One rank's slices, read as HTA does: starts rounded up, ends down to microseconds."""

    def __init__(self, number: int, path: Path) -> None:
        self.number = number
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        self.slices = [event for event in events if event["ph"] == "X" and "cat" in event]
        self.ops = [event for event in self.slices if "correlation" in event.get("args", {})]
        self.ops = [event for event in self.ops if event["cat"] != "cuda_runtime"]
        self.steps = [event for event in self.slices if event["cat"] == "user_annotation"]

    def spans(self, kind: str = "", step: int | None = None) -> list[Interval]:
        """Of ops of a kind, or of all."""
        return sorted(
            rounded(event)
            for event in self.ops
            if kind in ("", kind_of(event)) and step in (None, event["args"].get("step"))
        )


def rounded(event: Event) -> Interval:
    start, end = round(1000 * event["ts"]), round(1000 * (event["ts"] + event["dur"]))
    return -(-start // 1000), end // 1000


def kind_of(event: Event) -> str:
    """By the plan's kinds, where HTA has names only."""
    kind = event["args"].get("kind", "all_reduce")
    if kind in ("exchange_post", "exchange_wait", "all_reduce"):
        return "COMMUNICATION"
    return {"upload": "MEMORY", "barrier": "OTHER"}.get(kind, "COMPUTATION")


def merged(spans: Iterable[Interval]) -> list[Interval]:
    made: list[Interval] = []
    for start, end in sorted(spans):
        if made and start <= made[-1][1]:
            made[-1] = (made[-1][0], max(made[-1][1], end))
        else:
            made.append((start, end))
    return made


def total(spans: Iterable[Interval]) -> int:
    return sum(end - start for start, end in spans)


def near(what: str, value: float, wanted: float, tolerance: float = 1.0) -> Errors:
    # NaN is near nothing.
    if not abs(value - wanted) <= tolerance:
        yield f"{what} is {value:g}, not {wanted:g}"


def check(folder: Path) -> Errors:
    """What is wrong with the traces of one clock."""
    from hta.trace_analysis import TraceAnalysis

    paths = sorted(folder.glob("rank*.json.gz"))
    if not paths:
        yield "there is no rank0.json.gz"
        return
    ranks = [Rank(number, path) for number, path in enumerate(paths)]
    # By default the last step is left out: it may be cut off in other people's traces.
    analysis = TraceAnalysis(trace_dir=str(folder), include_last_profiler_step=True)
    if sorted(analysis.t.get_all_traces()) != [rank.number for rank in ranks]:
        yield f"ranks are {sorted(analysis.t.get_all_traces())}"
        return
    checks: tuple[Callable[[Any, list[Rank]], Errors], ...] = (
        steps, times, kernels, idle, overlap, bandwidth, queues, launches, annotations, sequences,
        stragglers, counters, critical_path, difference,
    )  # fmt: skip
    for one in checks:
        try:
            yield from (f"{one.__name__}: {error}" for error in one(analysis, ranks))
        except Exception as error:
            yield f"{one.__name__}: {type(error).__name__}: {error}"


def steps(analysis: Any, ranks: list[Rank]) -> Errors:
    wanted = sorted(int(event["name"].partition("#")[2]) for event in ranks[0].steps)
    for found in (analysis.get_profiler_steps(), analysis.t.get_iterations()):
        if sorted(map(int, found)) != wanted or len(wanted) < 2:
            yield f"steps are {found}, not {wanted}"
    for rank in ranks:
        table = analysis.t.get_trace(rank.number)
        for step in wanted:
            ours = len(rank.spans(step=step))
            theirs = int(((table["stream"] >= 0) & (table["iteration"] == step)).sum())
            yield from near(f"rank {rank.number}: ops of step {step}", theirs, ours, 0)


def times(analysis: Any, ranks: list[Rank]) -> Errors:
    found = analysis.get_temporal_breakdown(visualize=False).set_index("rank")
    for rank in ranks:
        row, name = found.loc[rank.number], f"rank {rank.number}:"
        everything, computing = merged(rank.spans()), merged(rank.spans("COMPUTATION"))
        whole = everything[-1][1] - everything[0][0]
        yield from near(f"{name} all", row["kernel_time(us)"], whole)
        yield from near(f"{name} computing", row["compute_time(us)"], total(computing))
        yield from near(f"{name} idle", row["idle_time(us)"], whole - total(everything))
        rest = total(everything) - total(computing)
        yield from near(f"{name} not computing", row["non_compute_time(us)"], rest)


def kernels(analysis: Any, ranks: list[Rank]) -> Errors:
    types, names = analysis.get_gpu_kernel_breakdown(
        visualize=False, duration_ratio=1.0, num_kernels=1000, include_memory_kernels=True
    )
    wanted = {kind_of(event) for rank in ranks for event in rank.ops} - {"OTHER"}
    for kind in wanted:
        if not any(kind in text for text in types["kernel_type"]):
            yield f"no time of {kind}"
    for rank in ranks:
        ours: dict[tuple[str, str], int] = {}
        for event in rank.ops:
            key = kind_of(event), event["name"]
            ours[key] = ours.get(key, 0) + total([rounded(event)])
        mine = names[names["rank"] == rank.number]
        theirs = dict(
            zip(zip(mine["kernel_type"], mine["name"], strict=True), mine["sum (us)"], strict=True)
        )
        for key, duration in ours.items():
            if key[0] != "OTHER":
                yield from near(f"rank {rank.number}: {key}", theirs.get(key, -1), duration)


def idle(analysis: Any, ranks: list[Rank]) -> Errors:
    numbers = [rank.number for rank in ranks]
    found, _ = analysis.get_idle_time_breakdown(numbers, visualize=False)
    for rank in ranks:
        for stream in {event["args"]["stream"] for event in rank.ops}:
            spans = sorted(rounded(e) for e in rank.ops if e["args"]["stream"] == stream)
            gaps = spans[-1][1] - spans[0][0] - total(spans)
            mine = found[(found["rank"] == rank.number) & (found["stream"] == stream)]
            yield from near(f"rank {rank.number}, stream {stream}", mine["idle_time"].sum(), gaps)


def overlap(analysis: Any, ranks: list[Rank]) -> Errors:
    found = analysis.get_comm_comp_overlap(visualize=False).set_index("rank")
    for rank in ranks:
        moving, computing = (merged(rank.spans(k)) for k in ("COMMUNICATION", "COMPUTATION"))
        if moving:
            both = total(moving) + total(computing) - total(merged(moving + computing))
            share = found.loc[rank.number, "comp_comm_overlap_pctg"]
            yield from near(f"rank {rank.number}, %", share, 100 * both / total(moving), 1)


def bandwidth(analysis: Any, ranks: list[Rank]) -> Errors:
    numbers = [rank.number for rank in ranks]
    series = analysis.get_memory_bw_time_series(numbers)
    found = analysis.get_memory_bw_summary(numbers)["memory_bw_gbps"]
    for rank in ranks:
        uploads = [event for event in rank.ops if kind_of(event) == "MEMORY"]
        rates = [event["args"]["bytes"] / event["dur"] / 1e3 for event in uploads]
        row = found.loc[rank.number, "Memcpy HtoD"]
        yield from near(f"rank {rank.number}: uploads", row["count"], len(uploads), 0)
        yield from near(f"rank {rank.number}: GB/s", row["mean"], sum(rates) / len(rates), 0.02)
        last = series[rank.number]["memory_bw_gbps"].iloc[-1]
        yield from near(f"rank {rank.number}: GB/s at the end", last, 0, 0.01)


def queues(analysis: Any, ranks: list[Rank]) -> Errors:
    numbers = [rank.number for rank in ranks]
    series = analysis.get_queue_length_time_series(numbers)
    summary = analysis.get_queue_length_summary_from_time_series(series)["queue_length"]
    if not summary.equals(analysis.get_queue_length_summary(numbers)["queue_length"]):
        yield "two summaries differ"
    for (rank, stream), row in summary.iterrows():
        # What is launched at 0 begins at 0: their order is HTA's.
        mine = series[rank][(series[rank]["stream"] == stream) & (series[rank]["ts"] > 0)]
        if not 0 <= mine["queue_length"].min() <= row["max"]:
            yield f"rank {rank}, stream {stream}: a queue of {mine['queue_length'].min()}"
        yield from near(
            f"rank {rank}, stream {stream} at the end", mine["queue_length"].iloc[-1], 0
        )
    blocked = analysis.get_time_spent_blocked_on_full_queue(series)
    if len(blocked):
        yield f"queues are full: {blocked.to_dict()}"


def launches(analysis: Any, ranks: list[Rank]) -> Errors:
    numbers = [rank.number for rank in ranks]
    found = analysis.get_cuda_kernel_launch_stats(ranks=numbers, visualize=False)
    for rank in ranks:
        table = found[rank.number]
        yield from near(f"rank {rank.number}: launches", len(table), len(rank.ops), 0)
        lowest = table[["cpu_duration", "gpu_duration", "launch_delay"]].min().min()
        if lowest < 0:
            yield f"rank {rank.number}: {lowest} us"
        busy = total(rank.spans())
        yield from near(f"rank {rank.number}: on the GPU", table["gpu_duration"].sum(), busy)


def annotations(analysis: Any, ranks: list[Rank]) -> Errors:
    for rank in ranks:
        table = analysis.get_gpu_kernels_with_user_annotations(rank.number)
        yield from near(f"rank {rank.number}: ops", len(table), len(rank.ops), 0)
        # What takes no whole microsecond lies in the step before and in the one after.
        table = table[table["dur"] > 0]
        wrong = table[table["s_user_annotation"] != "step " + table["iteration"].astype(str)]
        if len(wrong):
            yield f"rank {rank.number}: {wrong['s_name'].iloc[0]} is in another step"
    for on_gpu, category in ((True, "gpu_user_annotation"), (False, "user_annotation")):
        found = analysis.get_gpu_user_annotation_breakdown(
            use_gpu_annotation=on_gpu, visualize=False
        )
        for rank in ranks:
            ours = total(rounded(e) for e in rank.slices if e["cat"] == category)
            theirs = found[found["rank"] == rank.number]["sum (us)"].sum()
            yield from near(f"rank {rank.number}: {category}", theirs, ours)


def sequences(analysis: Any, ranks: list[Rank]) -> Errors:
    """Kernels of a step, by its launches in the call stack: in order, and nothing else."""
    for rank in ranks:
        with tempfile.TemporaryDirectory() as folder:
            found = analysis.get_frequent_cuda_kernel_sequences(
                "ProfilerStep", folder, rank=rank.number, visualize=False
            )
        theirs = {text.split("|")[0]: text.split("|")[1:] for text in found["pattern"]}
        for step in (event["name"] for event in rank.steps):
            number = int(step.partition("#")[2])
            ours = sorted(e["name"] for e in rank.ops if step_of(e, rank) == number)
            if sorted(theirs.get(step, ())) != ours:
                yield f"rank {rank.number}: {step} has {len(theirs.get(step, ()))} kernels"


def step_of(event: Event, rank: Rank) -> int:
    """Of an op, or of a sum over replicas, which is none of the plan's: by the time it begins."""
    begun = [e for e in rank.steps if e["ts"] <= event["ts"]]
    return int(event["args"].get("step", begun[-1]["name"].partition("#")[2]))


def stragglers(analysis: Any, ranks: list[Rank]) -> Errors:
    from hta.analyzers import straggler

    if len(ranks) < 2:
        return

    def any_length(table: Any, symbols: Any, count: int, visualize: bool) -> Any:
        found, metric = straggler._compute_normalized_start_time_of_significant_comm_kernels(
            table, symbols, visualize, 0.0
        )
        return straggler._get_top_k_stragglers_with_metric(found, metric, count, visualize)

    found = analysis.get_potential_stragglers(
        num_candidates=1, straggler_identification_impl=any_length
    )
    if len(found) != 1 or found[0] not in [rank.number for rank in ranks]:
        yield f"ranks {found}"


def counters(analysis: Any, ranks: list[Rank]) -> Errors:
    """The trace once more, with its queues and bandwidths as counters."""
    analysis.generate_trace_with_counters(ranks=[0], output_suffix="_counted")
    for path in Path(analysis.t.trace_path).glob("*_counted*"):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        path.unlink()
        names = {event["name"] for event in events if event["ph"] == "C"}
        if not {"Queue Length", "Memcpy HtoD"} <= {name.partition(" Stream")[0] for name in names}:
            yield f"counters are {sorted(names)}"
        return
    yield "no file"


def critical_path(analysis: Any, ranks: list[Rank]) -> Errors:
    for rank in ranks:
        graph, well = analysis.critical_path_analysis(rank.number, "ProfilerStep", 1)
        if not well:
            yield f"rank {rank.number}: no path"
            continue
        table = graph.get_critical_path_breakdown()
        spans = rank.spans(step=int(rank.steps[1]["name"].partition("#")[2]))
        whole = max(end for _, end in spans) - min(start for start, _ in spans)
        low, high = 0.98 * whole, 1.02 * whole
        if not low <= table["duration"].sum() <= high:
            yield f"rank {rank.number}: {table['duration'].sum()} us of {whole}"
        with tempfile.TemporaryDirectory() as folder:
            path = analysis.overlay_critical_path_analysis(rank.number, graph, folder)
            if not Path(path).is_file():
                yield f"rank {rank.number}: no file"


def difference(analysis: Any, ranks: list[Rank]) -> Errors:
    """A step against the next: of each as many ops as we wrote."""
    from hta.trace_diff import LabeledTrace, TraceDiff

    first, second = (LabeledTrace(label, t=analysis.t) for label in ("first", "second"))
    for rank in ranks:
        one, other = (int(e["name"].partition("#")[2]) for e in rank.steps[:2])
        table = TraceDiff.compare_traces(
            first, second, rank.number, rank.number, one, other, use_short_name=False
        )
        for step, label in ((one, "first"), (other, "second")):
            names = [e["name"] for e in rank.ops if step_of(e, rank) == step]
            for name in set(names):
                counted = table.loc[name, f"{label}_counts"]
                yield from near(f"rank {rank.number}, {name}", counted, names.count(name), 0)


def main() -> int:
    """Check the folders that are named on the command line."""
    if len(sys.argv) < 2:
        print("usage: python tests/hta_check.py FOLDER...", file=sys.stderr)
        return 2
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    wrong = 0
    for given in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder:
            # HTA writes beside what it reads.
            copied = Path(shutil.copytree(given, Path(folder) / "traces"))
            for error in check(copied):
                wrong += 1
                print(f"{given}: {error}", file=sys.stderr)
    if not wrong:
        print("Holistic Trace Analysis agrees with all")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Load what ``--trace DIR/`` wrote into Holistic Trace Analysis, and check what it makes of it.

    python tests/hta_check.py DIR

DIR holds ``measured`` and ``simulated`` of two GPUs, at least two steps each. Needs the package
HolisticTraceAnalysis (0.5.0 fails on pandas 3, with any trace). Exits with 1 and a line per error.
"""

from __future__ import annotations

import gzip
import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

RANKS = [0, 1]
_TYPES = {"kernel": "COMPUTATION", "gpu_memcpy": "MEMORY"}


def check(folder: Path) -> list[str]:
    """What is wrong with the traces of one clock."""
    from hta.trace_analysis import TraceAnalysis

    if not all((folder / f"rank{rank}.json.gz").is_file() for rank in RANKS):
        return [f"{folder} does not hold a file for each of ranks {RANKS}"]
    events = {rank: _events(folder / f"rank{rank}.json.gz") for rank in RANKS}
    # By default the last step is left out: it may be cut off in other people's traces.
    analysis = TraceAnalysis(trace_dir=str(folder), include_last_profiler_step=True)
    errors = []
    ranks = sorted(analysis.t.get_all_traces())
    if ranks != RANKS:
        return [f"ranks are {ranks}, not {RANKS}"]
    steps = sorted(int(event["name"].partition("#")[2]) for event in events[0] if _is_step(event))
    found = sorted(int(step) for step in analysis.t.get_iterations())
    if found != steps or len(steps) < 2:
        errors.append(f"iterations are {found}, not {steps}")
    times = analysis.get_temporal_breakdown(visualize=False).set_index("rank")
    for rank in RANKS:
        errors += _compare(rank, times.loc[rank], events[rank])
    types, kernels = analysis.get_gpu_kernel_breakdown(
        visualize=False, duration_ratio=1.0, num_kernels=1000, include_memory_kernels=True
    )
    # With copies beside the computing there is a third, what overlaps.
    if not set(_TYPES.values()) <= set(types["kernel_type"]):
        errors.append(f"kernels are of types {sorted(types['kernel_type'])}")
    for rank in RANKS:
        errors += _named(rank, kernels[kernels["rank"] == rank], events[rank])
    return errors


def _compare(rank: int, times: Any, events: list[dict[str, Any]]) -> list[str]:
    """Its microseconds of computing and of nothing against sums over our slices."""
    computing = sum(event["dur"] for event in events if event.get("cat") == "kernel")
    copying = sum(event["dur"] for event in events if event.get("cat") == "gpu_memcpy")
    steps = sum(event["dur"] for event in events if _is_step(event))
    idle = steps - computing - copying
    errors = []
    if abs(times["compute_time(us)"] - computing) > 0.01 * computing:
        errors.append(f"rank {rank}: computes {times['compute_time(us)']} us, not {computing:.0f}")
    # It counts from the first kernel to the last; a rank may begin later or end earlier.
    if not -0.01 * steps <= times["idle_time(us)"] <= idle + 0.01 * steps:
        errors.append(f"rank {rank}: idle {times['idle_time(us)']} us of {idle:.0f}")
    whole = sum(times[f"{part}_time(us)"] for part in ("idle", "compute", "non_compute"))
    if abs(whole - times["kernel_time(us)"]) > 1:
        errors.append(f"rank {rank}: parts are {whole} us of {times['kernel_time(us)']}")
    return errors


def _named(rank: int, kernels: Any, events: list[dict[str, Any]]) -> list[str]:
    """Every op under its name, with its time: it rounds starts up and ends down to whole us."""
    ours: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") in _TYPES:
            ours.setdefault((_TYPES[event["cat"]], event["name"]), []).append(event["dur"])
    errors, seen = [], 0
    for kind, name, total in kernels[["kernel_type", "name", "sum (us)"]].itertuples(index=False):
        if name == "others":
            continue
        seen += 1
        durations = ours.get((kind, name), [])
        if abs(total - sum(durations)) > 2 * len(durations):
            errors.append(f"rank {rank}: {kind} {name} takes {total} us, not {sum(durations):.0f}")
    if seen < len(ours) / 2:
        errors.append(f"rank {rank}: {seen} kernels have names, of {len(ours)} ops")
    return errors


def _is_step(event: dict[str, Any]) -> bool:
    return str(event["name"]).startswith("ProfilerStep#")


def _events(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    return found


def main() -> int:
    """Check the folder that is named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python tests/hta_check.py DIR", file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    wrong = 0
    for clock in ("measured", "simulated"):
        errors = check(Path(sys.argv[1]) / clock)
        wrong += len(errors)
        for error in errors:
            print(f"{clock}: {error}", file=sys.stderr)
    if not wrong:
        print("Holistic Trace Analysis agrees with both")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

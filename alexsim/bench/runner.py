"""Runs the benchmarks and judges a run; cases that look slower are measured again first."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata

from alexsim.bench.counted import BATCH, counted, kernel_figures
from alexsim.bench.verdicts import (
    BATCH_SIZE,
    Baseline,
    BenchRun,
    Host,
    Timed,
    Value,
    Verdict,
    judge,
)
from alexsim.editions.load import load_network
from alexsim.machine.cpu import cpu_name
from alexsim.spawn import SPAWN

_REPEATS = 4
"""How often a case that looks slower is measured again, each time in a new process.

On a machine whose memory had been in use for a day, two in five processes ran the pool 8 to 13 %
slower than the others.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What to measure: the network, images per step, and which figures."""

    network: str
    batch_size: int
    counted: bool = True
    timed: bool = True
    kernels: bool = True
    """Compile the Triton kernels too."""
    counted_batch_size: int | None = None
    """Images of the step that is counted; the baseline's, or 128, if not given."""
    slowed: float = 0.0
    """Make our code slower by this share, to see that the gate catches it."""


Progress = Callable[[str, int, int], None]


def run(selection: Selection, progress: Progress = lambda *_: None) -> BenchRun:
    """Count and time what was selected; ``progress`` gets the activity, how many, of how many."""
    figures: dict[str, Value] = {}
    left_out: dict[str, str] = {}
    if selection.counted:
        batch_size = selection.counted_batch_size or BATCH
        figures |= counted(load_network(selection.network), batch_size)
        if not selection.kernels:
            left_out["kernels"] = "--no-kernels"
        elif kernels := kernel_figures(lambda done, ops: progress("compiling kernels", done, ops)):
            figures |= kernels
        else:
            left_out["kernels"] = "Triton is not installed"
    else:
        left_out["counted figures"] = "--only timed"
    timed: tuple[Timed, ...] = ()
    if selection.timed:
        names = case_names(selection)
        timed = _timed(selection, names, progress)
    else:
        left_out["ratios"] = "--only counted"
    return BenchRun(
        network=selection.network, host=host(), counted=figures, timed=timed, left_out=left_out
    )


def repeated(
    selection: Selection, times: int, progress: Progress = lambda *_: None
) -> list[BenchRun]:
    """Count once, first, and time ``times`` times; the last run has the counted figures too."""
    if not selection.timed:
        return [run(selection, progress)]
    measured = []
    for turn in range(times):
        once = selection if turn == 0 else replace(selection, counted=False)
        measured.append(run(once, _naming(progress, f"run {turn + 1} of {times}")))
    measured[-1] = replace(measured[-1], counted=measured[0].counted)
    return measured


def _naming(progress: Progress, turn: str) -> Progress:
    """Progress that says of which turn it is."""
    return lambda what, count, total: progress(f"{turn}: {what}", count, total)


def case_names(selection: Selection) -> tuple[str, ...]:
    """The cases that the network has."""
    from alexsim.bench.timed import cases

    return tuple(case.name for case in cases(load_network(selection.network), selection.batch_size))


def like(selection: Selection, baseline: Baseline | None) -> Selection:
    """Of the same number of images as a baseline's counted figures, unless it says of how many."""
    batch_size = baseline.counted.get(BATCH_SIZE) if baseline else None
    if selection.counted_batch_size or not isinstance(batch_size, int) or batch_size < 1:
        return selection
    return replace(selection, counted_batch_size=batch_size)


def compare(
    selection: Selection,
    baseline: Baseline,
    *,
    tolerance: float,
    progress: Progress = lambda *_: None,
) -> tuple[BenchRun, tuple[Verdict, ...]]:
    """Run and judge. A case counts as slower only if every measurement of it says so."""
    selection = like(selection, baseline)
    measured = run(selection, progress)
    if not selection.counted:
        baseline = replace(baseline, counted={})
    elif "kernels" in measured.left_out:
        kept = {k: v for k, v in baseline.counted.items() if not k.startswith("kernels/")}
        baseline = replace(baseline, counted=kept)
    verdicts = judge(measured, baseline, tolerance=tolerance)
    for turn in range(_REPEATS):
        doubted = tuple(v.name for v in verdicts if v.status == "slower")
        if not doubted:
            break
        told = _naming(progress, f"looks slower, again {turn + 1} of at most {_REPEATS}")
        again = {case.name: case for case in _timed(selection, doubted, told)}
        # The better measurement counts: a case that is really slower is slower every time.
        measured = replace(
            measured,
            timed=tuple(
                min(case, again.get(case.name, case), key=lambda timed: timed.ratio.low)
                for case in measured.timed
            ),
        )
        verdicts = judge(measured, baseline, tolerance=tolerance)
    return measured, verdicts


def _timed(selection: Selection, names: Sequence[str], progress: Progress) -> tuple[Timed, ...]:
    """Time each case in a new process: where its memory lies differs from process to process."""
    timed = []
    for index, name in enumerate(names):
        progress(f"timing {name}", index, len(names))
        with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
            timed.append(pool.submit(time_case, selection, name).result())
    progress("timed", len(names), len(names))
    return tuple(timed)


def time_case(selection: Selection, name: str) -> Timed:
    """Measure one case in this process."""
    from alexsim.bench.timed import cases, measure, slowed

    network = load_network(selection.network)
    case = next(case for case in cases(network, selection.batch_size) if case.name == name)
    return measure(slowed(case, selection.slowed) if selection.slowed else case)


def host() -> Host:
    """This machine, its versions, and the commit of the working directory."""
    return Host(
        # Name and family: both decide how fast code runs.
        cpu=cpu_name(family=True),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        torch=metadata.version("torch"),
        commit=_commit(),
        date=datetime.now(UTC).date().isoformat(),
    )


def _commit() -> str:
    try:
        revision = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return revision.stdout.strip()

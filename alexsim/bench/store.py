"""Baseline files: JSON, read with every key checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from alexsim import typed
from alexsim.bench.verdicts import Baseline, BenchRun, Machine, Stored

_SCHEMA = 1
_DIGITS = 5


def default_path(network: str) -> Path:
    """The baseline that ships with alexsim for an edition."""
    folder = files("alexsim_profiles").joinpath("baselines", "bench")
    return Path(str(folder)) / f"{network}.json"


def load(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        ProfileError: there is none, or it is not one.
    """
    make = "make one with `alexsim check bench update --baseline FILE`"
    return typed.load(Baseline, path, "baseline", schema=_SCHEMA, hint=make)


def document(baseline: Baseline) -> dict[str, Any]:
    """A baseline as JSON."""
    table = {"schema": _SCHEMA} | asdict(baseline)
    for machine in table["machines"].values():
        machine["timed"] = dict(sorted(machine["timed"].items()))
    return table | {key: dict(sorted(table[key].items())) for key in ("counted", "machines")}


def updated(before: Baseline | None, runs: Sequence[BenchRun]) -> Baseline:
    """A baseline with these runs' figures; what they did not measure stays.

    Where no counted figure changed, who counted them stays too: the file is then the same.
    """
    last = runs[-1]
    machines = dict(before.machines) if before else {}
    if last.timed:
        machines[last.host.key] = Machine(host=last.host, timed=_stored(runs))
    counted = dict(last.counted) or (dict(before.counted) if before else {})
    if before and not any(name.startswith("kernels/") for name in counted):
        counted |= {k: v for k, v in before.counted.items() if k.startswith("kernels/")}
    return Baseline(
        network=last.network,
        host=before.host if before and counted == before.counted else last.host,
        counted=counted,
        machines=machines,
    )


def _stored(runs: Sequence[BenchRun]) -> dict[str, Stored]:
    stored = {}
    for case in runs[-1].timed:
        ratios = [c.ratio.median for run in runs for c in run.timed if c.name == case.name]
        stored[case.name] = Stored(
            ratio=_rounded(median(ratios)),
            low=_rounded(min(ratios)),
            high=_rounded(max(ratios)),
            runs=len(ratios),
        )
    return stored


def _rounded(ratio: float) -> float:
    """To digits that a run can tell apart: more would only be read."""
    return float(f"{ratio:.{_DIGITS}g}")

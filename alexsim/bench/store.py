"""Baseline files: JSON, read with every key checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.resources import files
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from alexsim.bench.records import Baseline, BenchRun, Host, Machine, Stored
from alexsim.errors import ProfileError
from alexsim.strict_json import json_value

_SCHEMA = 1


def default_path(network: str) -> Path:
    """The baseline that ships with alexsim for an edition."""
    folder = files("alexsim_profiles").joinpath("baselines", "bench")
    return Path(str(folder)) / f"{network}.json"


def load(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        ProfileError: there is none, or it is not one.
    """
    try:
        document = json_value(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProfileError(
            f"no baseline {path}: make one with `alexsim check bench update --baseline FILE`"
        ) from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"cannot read the baseline {path}: {error}") from error
    try:
        if document["schema"] != _SCHEMA:
            raise ProfileError(f"{path}: schema {document['schema']}, not {_SCHEMA}")
        baseline = Baseline(
            network=document["network"],
            host=Host(**document["host"]),
            counted=dict(document["counted"]),
            machines={
                key: Machine(
                    host=Host(**machine["host"]),
                    timed={name: Stored(**stored) for name, stored in machine["timed"].items()},
                )
                for key, machine in document["machines"].items()
            },
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ProfileError(f"{path} is no baseline of this version: {error}") from error
    for name, value in _numbers(baseline):
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ProfileError(f"{path}: {name} must be a finite number, got {value!r}")
    for key, machine in baseline.machines.items():
        for name, of in machine.timed.items():
            if not 0 < of.low <= of.ratio <= of.high:
                raise ProfileError(
                    f"{path}: {key}: {name} must have 0 < low <= ratio <= high, got {of.low:g},"
                    f" {of.ratio:g}, {of.high:g}"
                )
    return baseline


def _numbers(baseline: Baseline) -> Iterator[tuple[str, object]]:
    """Everything that must be a number, by name; counted figures may be text."""
    yield from ((k, v) for k, v in baseline.counted.items() if not isinstance(v, str))
    for key, machine in baseline.machines.items():
        for name, of in machine.timed.items():
            yield from ((f"{key}: {name}: {k}", v) for k, v in asdict(of).items())


def document(baseline: Baseline) -> dict[str, Any]:
    """A baseline as JSON."""
    return {
        "schema": _SCHEMA,
        "network": baseline.network,
        "host": asdict(baseline.host),
        "counted": dict(sorted(baseline.counted.items())),
        "machines": {
            key: {
                "host": asdict(machine.host),
                "timed": {name: asdict(stored) for name, stored in machine.timed.items()},
            }
            for key, machine in sorted(baseline.machines.items())
        },
    }


def updated(before: Baseline | None, runs: Sequence[BenchRun]) -> Baseline:
    """A baseline with these runs' figures; what they did not measure stays."""
    last = runs[-1]
    machines = dict(before.machines) if before else {}
    if last.timed:
        machines[last.host.key] = Machine(host=last.host, timed=_stored(runs))
    counted = dict(last.counted) or (dict(before.counted) if before else {})
    if before and not any(name.startswith("kernels/") for name in counted):
        counted |= {k: v for k, v in before.counted.items() if k.startswith("kernels/")}
    return Baseline(
        network=last.network,
        host=last.host if last.counted or before is None else before.host,
        counted=counted,
        machines=machines,
    )


def _stored(runs: Sequence[BenchRun]) -> dict[str, Stored]:
    found = {}
    for case in runs[-1].timed:
        ratios = [one.ratio.median for run in runs for one in run.timed if one.name == case.name]
        found[case.name] = Stored(
            ratio=median(ratios), low=min(ratios), high=max(ratios), runs=len(ratios)
        )
    return found

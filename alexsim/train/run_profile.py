"""The profile that every training run leaves: its timed steps, beside another machine's."""

from __future__ import annotations

import json
from pathlib import Path

from alexsim.execute.here import name_of
from alexsim.profile.breakdown import layers_of, rounds_of, transfers_s
from alexsim.profile.profiler import ceilings
from alexsim.profile.step_profile import StepProfile, spread
from alexsim.simulate.simulation import Simulation
from alexsim.train.settings import TrainResult


def rounds_in(path: Path) -> int:
    """Steps that were timed for a profile document; 0 where there is none that can be read."""
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["rounds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def run_profile(
    result: TrainResult, simulation: Simulation, *, at_least: int = 0
) -> StepProfile | None:
    """The profile of a run's timed steps; None where there are none, or fewer than ``at_least``.

    Measures this machine's ceilings: a second or two.
    """
    plan = result.timed_plan
    if plan is None or not (rounds := rounds_of(result.trace, plan)) or len(rounds) < at_least:
        return None
    settings = result.settings
    measured = ceilings(settings.device, plan.spec.backend, plan.spec.products)
    device, backend = name_of(settings.device), plan.spec.backends
    return StepProfile(
        plan=plan,
        where=f"{device}, {backend}, {settings.threads} threads",
        rounds=len(rounds),
        layers=layers_of(plan, rounds, measured, simulation),
        transfers_s=transfers_s(plan, rounds),
        timed=spread(list(result.trace.step_s().values())),
        timing=None,
        ceilings=measured,
        held=(),
        telemetry=None,
        simulation=simulation,
        trace=result.trace,
    )

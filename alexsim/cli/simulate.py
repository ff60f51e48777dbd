"""``alexsim simulate``: a training step on a machine's spec sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from alexsim.cli.simulate_options import SimulateOptions
from alexsim.command import fields
from alexsim.command.answer import Given, give
from alexsim.command.output import write_trace
from alexsim.errors import MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from plotly.graph_objects import Figure
    from rich.console import RenderableType

    from alexsim.cli.simulated import Case
    from alexsim.costs.correction import Correction
    from alexsim.explore.sensitivity import Sensitivity
    from alexsim.machine.machine import Machine
    from alexsim.recipe.stages import StageTimes, Training
    from alexsim.simulate.simulation import Simulation


def simulate(context: typer.Context, options: SimulateOptions) -> None:
    """Predict a step and a whole run on a machine.

    Time, days, memory, what bounds them, and how sure that is. With `--library measured` it is
    this machine that is predicted, from `alexsim check calibrate`. Exit code 3 if it does not fit.

    Example: alexsim simulate --recipe 2012

    Example: alexsim simulate --what-if conv2.grad_weight=2x --what-if link=pcie3-x16

    Example: alexsim simulate --train-only fc8

    Example: alexsim simulate --net resnet50 --machine a100x4 --batch 256

    Example: alexsim simulate --replicas 4 --network 10gbe --batch 512

    Example: alexsim simulate --machine k20x8 --gpus 8 --batch 1024 --net alexnet-owt
    """
    from dataclasses import replace
    from functools import partial

    from alexsim.cli.simulated import before_given, case_of, what_ifs
    from alexsim.command.asked import other_choices
    from alexsim.documents.simulation import simulation_document
    from alexsim.explore.effect import refuse_idle
    from alexsim.recipe.file import as_written, load_recipe
    from alexsim.recipe.stages import stage_times, training_of
    from alexsim.report.simulation import SHOWN, TABLES_ONLY, does_not_fit, simulation_tables
    from alexsim.simulate.simulation import ILSVRC_EPOCHS

    if options.json:
        fields.refuse(context, "is for the tables: --json has all", *TABLES_ONLY)
    recipe = load_recipe(options.recipe) if options.recipe else None
    epochs = options.epochs or (recipe.epochs if recipe else ILSVRC_EPOCHS)
    usual = recipe.optimizer if recipe else "sgd-2012"
    case = case_of(options, usual)
    spec, clock = case.spec, case.timer

    def run(on: Machine, corrected: Correction) -> Simulation:
        return case.simulated(timer=replace(clock, machine=on, correction=corrected))

    def elsewhere(on: Callable[[], Machine]) -> Simulation:
        return run(on(), clock.correction)

    def plain() -> Simulation:
        return case.simulated(replace(spec, precision="fp32"), replace(clock, precision="fp32"))

    def trained(case: Case, step: Simulation) -> Training:
        stages: tuple[StageTimes, ...] = ()
        images = options.images
        if recipe:
            stages = stage_times(recipe, case.spec, case.simulated, images=images, epochs=epochs)
        named = as_written(options.recipe)
        return training_of(step, images=images, epochs=epochs, recipe=named, stages=stages)

    result = case.simulated()
    without: dict[str, Callable[[], Simulation]] = {}
    for option, on in case.others.items():
        without[option] = partial(elsewhere, on)
    for option, other in other_choices(spec, optimizer=usual).items():
        without[option] = partial(case.simulated, other)
    before = before_given(options.given, case, result)
    if options.precision != "fp32":
        without[f"--precision {options.precision}"] = plain
    refuse_idle(result, without)
    training = trained(case, result)
    changes = what_ifs(options, usual, result, trained)
    if options.trace is not None:
        _write_trace(options.trace, case, result)
    tried = _sensitivities(case, run) if options.sensitivity else ()
    also: dict[str, Any] = {"what_ifs": changes, "before": before}
    document = partial(
        simulation_document, result, spec, training, elasticities=options.elasticities,
        sensitivities=tried if options.sensitivity else None, **also,
    )  # fmt: skip
    shown = [name for name in SHOWN if getattr(options, name)]
    policies = {} if result.fits else case.fitting_policies()

    def tables(_: int) -> RenderableType:
        more: dict[str, Any] = {"shown": shown, "sensitivities": tried, "policies": policies}
        return simulation_tables(result, spec, training, **more, **also)

    give(options, Given(document=document, tables=tables, figures=lambda: _figures(case, result)))
    if not result.fits:
        raise MemoryBudgetError(does_not_fit(result, policies))


def _figures(case: Case, result: Simulation) -> dict[str, Figure]:
    from alexsim.page.figures import step_figures
    from alexsim.page.inputs import predicted

    plan, timer = case.planned(whole=True), case.timer
    document = predicted(plan, result, timer.machine.device, timer.best_precision)
    return step_figures(document)


def _write_trace(path: Path, case: Case, result: Simulation) -> None:
    from alexsim.report.chrome_trace import Clock

    plan = case.planned()
    clock = Clock(name=f"simulated: {result.machine}", plan=plan, trace=result.trace)
    write_trace(path, [clock], "the predicted step")


def _sensitivities(
    case: Case, run: Callable[[Machine, Correction], Simulation]
) -> tuple[Sensitivity, ...]:
    from alexsim.explore.sensitivity import sensitivities, traits_of

    there = case.timer.machine
    traits = traits_of(case.timer.library.name, there)
    return sensitivities(run, there, case.timer.correction, traits)

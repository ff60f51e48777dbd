"""``alexsim simulate``: a training step on a machine's spec sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexsim.cli.simulate_options import SimulateOptions
from alexsim.command import options as shared
from alexsim.command.output import print_json, write_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from alexsim.machine.machine import Machine
    from alexsim.plan.spec import PlanSpec
    from alexsim.recipe.stages import StageTimes
    from alexsim.simulate.costs.correction import Correction
    from alexsim.simulate.sensitivity import Sensitivity
    from alexsim.simulate.simulation import Simulation
    from alexsim.simulate.timer import Timer


def simulate(options: SimulateOptions) -> None:
    """Predict a step and a whole run on a machine.

    Time, traffic, idle time, days, and how sure that is. With `--library measured` it is this
    machine that is predicted, from `alexsim check calibrate`.

    Example: alexsim simulate --recipe 2012

    Example: alexsim simulate --train-only fc8

    Example: alexsim simulate --net resnet50 --machine a100x4 --batch 256

    Example: alexsim simulate --replicas 4 --network 10gbe --batch 512

    Example: alexsim simulate --machine k20x8 --gpus 8 --batch 1024 --net alexnet-owt
    """
    from dataclasses import replace
    from functools import partial

    from alexsim.cli.simulated import wanted
    from alexsim.documents.simulation import simulation_document
    from alexsim.plan.asked import other_choices
    from alexsim.recipe.file import as_written, load_recipe
    from alexsim.recipe.stages import stage_times, training_of
    from alexsim.report.simulation import simulation_tables
    from alexsim.simulate.costs.precision import plan_precision
    from alexsim.simulate.effect import refuse_idle
    from alexsim.simulate.simulation import ILSVRC_EPOCHS
    from alexsim.simulate.simulator import planned, simulate_network
    from alexsim.simulate.timer import timer_of

    recipe = load_recipe(options.recipe) if options.recipe else None
    epochs = options.epochs or (recipe.epochs if recipe else ILSVRC_EPOCHS)
    usual = recipe.optimizer if recipe else "sgd-2012"
    spec = options.plan_spec(
        optimizer=options.optimizer or usual, precision=plan_precision(options.precision)
    )
    there, chosen, correction, known, others = wanted(options)

    def step(which: PlanSpec, clock: Timer) -> Simulation:
        return simulate_network(which, clock, data=options.data_path, whole_pipeline=True)

    def run(on: Machine, corrected: Correction) -> Simulation:
        return step(spec, timer_of(chosen, on, corrected, options.precision, known))

    def elsewhere(on: Callable[[], Machine]) -> Simulation:
        return run(on(), correction)

    def plain() -> Simulation:
        return step(replace(spec, precision="fp32"), timer_of(chosen, there, correction))

    clock = timer_of(chosen, there, correction, options.precision, known)
    result = step(spec, clock)
    without: dict[str, Callable[[], Simulation]] = {}
    for option, on in others.items():
        without[option] = partial(elsewhere, on)
    for option, other in other_choices(spec, optimizer=usual).items():
        without[option] = partial(step, other, clock)
    if options.precision != "fp32":
        without[f"--precision {options.precision}"] = plain
    refuse_idle(result, without)
    if options.trace is not None:
        from alexsim.report.chrome_trace import Clock

        plan = planned(spec, there, backend="aten" if known else "")
        shown = Clock(name=f"simulated: {result.machine}", plan=plan, trace=result.trace)
        write_trace(options.trace, [shown])
    tried: tuple[Sensitivity, ...] = ()
    if options.sensitivity:
        from alexsim.simulate.sensitivity import sensitivities, traits_of

        tried = sensitivities(run, there, correction, traits_of(chosen, there))
    stages: tuple[StageTimes, ...] = ()
    images = options.images
    if recipe:
        stages = stage_times(
            recipe, spec, lambda each: step(each, clock), images=images, epochs=epochs
        )
    trained = training_of(
        result, images=images, epochs=epochs, recipe=as_written(options.recipe), stages=stages
    )
    if options.json:
        assumptions = tried if options.sensitivity else None
        print_json(simulation_document(result, spec, trained, assumptions))
        return
    tables = simulation_tables(result, spec, trained, sensitivities=tried)
    shared.console().print(tables)

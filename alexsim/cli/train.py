"""``alexsim train``: the main job."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alexsim.cli.train_options import BESIDE, CHANGEABLE, TrainOptions
from alexsim.command import fields
from alexsim.command.answer import Given, give
from alexsim.command.output import json_text, write_text, write_trace
from alexsim.errors import AlexsimError

if TYPE_CHECKING:
    from alexsim.simulate.simulation import Simulation
    from alexsim.train.settings import TrainResult, TrainSettings


def train(context: typer.Context, options: TrainOptions) -> None:
    """Train a network, with a memory budget per virtual GPU.

    Beside its own rate it shows how long the steps would have taken on --machine.

    Ctrl-C saves and stops; --resume goes on as if nothing had happened.

    Example: alexsim train --mem-cap 3GB --gpus 2

    Example: alexsim train --gpus 2 --processes

    Example: alexsim train --net alexnet-owt --partition hybrid --gpus 2 --processes

    Example: torchrun --nproc-per-node 4 -m alexsim train --gpus 2 --replicas 2 -o runs/a

    Example: alexsim train --recipe 2012 --data DIR --epochs 30

    Example: alexsim train --optimizer adamw --learning-rate 0.001

    Example: alexsim train --init-from runs/a --data DIR --new-head --train-only fc8
    """
    from alexsim.cli.train_resume import restarted, resumed
    from alexsim.cli.train_settings import begin
    from alexsim.cli.train_watch import TerminalWatch
    from alexsim.documents.training import train_document
    from alexsim.page.inputs import run_subject
    from alexsim.processes.world import Place, joined
    from alexsim.report.tables import train_summary
    from alexsim.train.launch import Others, leave_with

    place = Place.from_environment()
    if place is not None and place.launcher:
        leave_with(place.launcher)
    resume = options.resume
    if resume is None:
        _refuse_timeout(context, alone=not (place or options.processes or options.strict))
    with contextlib.ExitStack() as stack:
        quiet = options.json or bool(place and place.rank)
        watch = stack.enter_context(TerminalWatch(quiet=quiet))
        settings: TrainSettings
        if resume is not None:
            _refuse_what_stays(context)
            run_dir = resume
            settings, images = resumed(options, resume, watch.watcher(), place)
            _refuse_timeout(context, alone=not (place or options.processes or settings.strict))
        else:
            settings, run_dir, images = begin(options, watch.watcher(), place)
        # What imports Triton does so after TRITON_INTERPRET is decided.
        from alexsim.train.loop import train as run

        simulated = _simulated(settings, options.machine)
        if (options.processes or settings.strict) and place is None:
            others = Others(settings.gpus * settings.replicas, context.obj)
            place = stack.enter_context(others)
            others.wait()
        hybrid = settings.partition == "hybrid"
        world = joined(place, settings.gpus, options.timeout, hybrid=hybrid)
        stack.callback(world.close)
        again = resume is not None or restarted(settings, run_dir, world)
        watch.begin(settings, run_dir, options.machine, simulated)
        result = run(
            settings, run_dir, resume=again, dataset=images, watch=watch.watcher(), world=world
        )
        if result is None:
            return
        _keep_profile(result, run_dir, simulated)
    # Not wrapped: the run directory is there to be copied.
    give(
        options,
        Given(
            document=lambda: train_document(result, options.machine, simulated),
            tables=lambda _: train_summary(result, options.machine, simulated),
            figures=lambda: run_subject(Path(result.run_dir)).figures(),
        ),
        soft_wrap=True,
    )


def _refuse_timeout(context: typer.Context, *, alone: bool) -> None:
    """Refuse to wait for others where there are none."""
    if alone:
        why = "is for several processes: --processes, --strict, or torchrun"
        fields.refuse(context, why, "timeout")


def _refuse_what_stays(context: typer.Context) -> None:
    """Refuse every option but those named above, whatever its value: nothing is ignored."""

    names = [str(each.name) for each in context.command.params]
    stays = fields.given(context, *(set(names) - {*CHANGEABLE, *BESIDE}))
    if stays:
        may = fields.listed(f"--{name}" for name in CHANGEABLE)
        raise AlexsimError(
            f"--resume goes on with the run's own settings: {fields.listed(stays)} cannot be"
            f" given with it; only {may} may be changed"
        )


def _keep_profile(result: TrainResult, run_dir: Path, simulated: Simulation) -> None:
    """Leave what the timed steps say in the run directory, for `alexsim report` and Perfetto.

    A profile of more steps, which the run left before it was resumed, stays.
    """
    from alexsim.documents.profile import profile_document
    from alexsim.report.chrome_trace import both_clocks
    from alexsim.train.files import PROFILE, TRACE
    from alexsim.train.run_profile import rounds_in, run_profile

    profile = run_profile(result, simulated, at_least=rounds_in(run_dir / PROFILE))
    if profile is None:
        return
    write_text(run_dir / PROFILE, json_text(profile_document(profile)))
    write_trace(run_dir / TRACE, both_clocks(profile))


def _simulated(settings: TrainSettings, machine: str) -> Simulation:
    """The run's step on another machine, with that machine's data path beside it.

    Where it has fewer GPUs than the run, as many machines of its kind are joined.
    """
    from dataclasses import replace

    from alexsim.simulate.simulator import enough_machines, on_machine

    # The machine has a way of its own for exchanges, and kernels of its own.
    stage = settings.recipe.stages[0]
    spec = replace(settings.spec(stage).counted, transport="", fusion="none")
    devices = settings.gpus * settings.replicas
    return on_machine(spec, enough_machines(machine, devices))

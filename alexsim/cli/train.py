"""``alexsim train``: the main job."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options
from alexsim.cli.simulate import MACHINE, MachineName

if TYPE_CHECKING:
    from alexsim.simulate.records import Simulation
    from alexsim.train.records import TrainResult, TrainSettings

_CHANGEABLE = ("steps", "epochs", "threads", "gpus", "partition", "replicas", "processes")
"""Parameters that a run which goes on may have anew."""
_BESIDE = ("resume", "machine", "timeout", "json")
"""And those that are no settings of a run."""


def train(
    context: typer.Context,
    net: Annotated[
        str,
        typer.Option(
            "--net",
            metavar="EDITION",
            callback=options.edition,
            help="Network: see `alexsim network list`; or FILE.py:NAME; variants with +. Default:"
            " alexnet-2012, or that of --init-from.",
        ),
    ] = "",
    batch: options.Batch = 128,
    gpus: options.Gpus = None,
    mem_cap: options.MemCap = None,
    policy: options.Policy = "as-released",
    schedule: options.Schedule = "serial",
    partition: options.Partition = "",
    variable_batch: options.VariableBatch = False,
    fuse: options.RunFuse = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Images as DIR/<class>/*.JPEG, or with train/ and val/ as ILSVRC has them, or as"
            " `alexsim data pack` wrote them. Default: a small built-in set, drawn once.",
        ),
    ] = None,
    order: Annotated[
        str,
        typer.Option(
            "--order",
            metavar="ORDER",
            help="Of training images: `shuffled` anew every epoch; of a packed set also `shards`,"
            " eight mixed at a time, for slow disks, or `file`, as they lie, as in 2012.",
        ),
    ] = "shuffled",
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps",
            metavar="N",
            help="Steps to train. Default: the edition's, as `alexsim network list` has it.",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option("--epochs", metavar="N", help="Passes over the training images, instead."),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="Follow a recipe to its end, stage by stage: one of `alexsim recipe list`, or your"
            " own TOML file. Default: the edition's first stage.",
        ),
    ] = "",
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--init-from",
            metavar="MODEL",
            help="Begin with the weights of a run, or of a .safetensors file.",
        ),
    ] = None,
    new_head: Annotated[
        bool,
        typer.Option(
            "--new-head",
            help="Replace the last projection by a new one, with as many outputs as there are"
            " classes.",
        ),
    ] = False,
    train_only: options.TrainOnly = "",
    optimizer: options.Optimizer = "",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of everything random.")] = 0,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", metavar="RATE", help="Of weights; default: the edition's."),
    ] = None,
    bias_rate: Annotated[
        float | None,
        typer.Option("--bias-rate", metavar="RATE", help="Of biases; default: the edition's."),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            metavar="WAY",
            help="`2012`: one crop per 32 images; `paper`: one per image.",
        ),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise",
            metavar="WAY",
            help="`mean-image`: subtract it, as in 2012; `channels`: mean and deviation per"
            " channel, as articles say.",
        ),
    ] = None,
    colour_noise: Annotated[
        bool | None,
        typer.Option("--colour-noise/--no-colour-noise", help="Along the principal colours."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", help="CPU threads per device. Default: all cores."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", help="Decoding processes. Default: cores, up to 4."),
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", metavar="N", help="Steps between checkpoints.")
    ] = 50,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Run directory. Default: runs/<date>-<time>."
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Go on with a stopped run; only"
            f" {options.listed(f'--{name}' for name in _CHANGEABLE)} may be changed.",
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="DEVICE",
            help="`cpu` or `cuda`: a card per virtual GPU, or all on one where there are fewer.",
        ),
    ] = "cpu",
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            metavar="BACKEND",
            help="Whose kernels: `aten` (PyTorch's, cuDNN on CUDA) or `triton` (ours).",
        ),
    ] = "aten",
    transport: Annotated[
        str,
        typer.Option(
            "--transport",
            metavar="TRANSPORT",
            help="Exchanges on CUDA: `peer`, or `host` through pinned memory. Default: `host` where"
            " virtual GPUs share a card.",
        ),
    ] = "",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help="Of products with --backend triton: fp32, fp32x3, tf32, bf16 or fp16.",
        ),
    ] = "fp32",
    graph: Annotated[
        bool | None,
        typer.Option(
            "--graph/--no-graph",
            help="Replay steps as a CUDA graph; the default on CUDA with --backend triton.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="A process per virtual GPU; on CUDA its allocator enforces the budget too.",
        ),
    ] = False,
    processes: Annotated[
        bool,
        typer.Option(
            "--processes",
            help="A process per GPU on this machine, as torchrun begins them on several; they"
            " exchange over gloo.",
        ),
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option(
            "--replicas",
            metavar="N",
            help="Copies of all GPUs, each on its share of the batch, in processes. Default: 1, or"
            " as many as torchrun began.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", help="How long another process may be silent."
        ),
    ] = 120,
    machine: MachineName = MACHINE,
    json: options.Json = False,
) -> None:
    """Train a network for real, split over virtual GPUs with a memory budget each.

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
    from alexsim.cli.parse import above_zero
    from alexsim.cli.train_resume import restarted, resumed
    from alexsim.cli.train_settings import begin
    from alexsim.cli.train_watch import TerminalWatch
    from alexsim.execute.world import Place, joined
    from alexsim.train.launch import Others, leave_with

    above_zero("--timeout", timeout)
    place = Place.from_environment()
    if place is not None and place.launcher:
        leave_with(place.launcher)
    if resume is None:
        _refuse_timeout(context, alone=not (place or processes or strict))
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(TerminalWatch(quiet=json or bool(place and place.rank)))
        settings: TrainSettings
        if resume is not None:
            _refuse_what_stays(context)
            run_dir = resume
            settings, images = resumed(
                run_dir,
                watch.watcher(),
                steps=steps,
                epochs=epochs,
                threads=threads,
                gpus=gpus,
                partition=partition,
                processes=processes,
                replicas=replicas,
                place=place,
            )
            _refuse_timeout(context, alone=not (place or processes or settings.strict))
        else:
            settings, run_dir, images = begin(
                watch.watcher(),
                net=net,
                batch=batch,
                gpus=gpus,
                mem_cap=mem_cap,
                policy=policy,
                schedule=schedule,
                partition=partition,
                variable_batch=variable_batch,
                fuse=fuse,
                data=data,
                order=order,
                steps=steps,
                epochs=epochs,
                recipe=recipe,
                seed=seed,
                learning_rate=learning_rate,
                bias_rate=bias_rate,
                augment=augment,
                normalise=normalise,
                colour_noise=colour_noise,
                threads=threads,
                workers=min(4, os.cpu_count() or 1) if workers is None else workers,
                checkpoint_every=checkpoint_every,
                output=output,
                device=device,
                backend=backend,
                transport=transport,
                precision=precision,
                graph=graph,
                strict=strict,
                processes=processes,
                replicas=replicas,
                place=place,
                init_from=init_from,
                new_head=new_head,
                train_only=train_only,
                optimizer=optimizer,
            )
        from alexsim.train.loop import train as run

        simulated = _simulated(settings, machine)
        if (processes or settings.strict) and place is None:
            others = Others(settings.gpus * settings.replicas, context.obj)
            place = stack.enter_context(others)
            others.wait()
        world = joined(place, settings.gpus, timeout, hybrid=settings.partition == "hybrid")
        stack.callback(world.close)
        again = resume is not None or restarted(settings, run_dir, world)
        watch.begin(settings, run_dir, machine, simulated)
        result = run(
            settings, run_dir, resume=again, dataset=images, watch=watch.watcher(), world=world
        )
        if result is None:
            return
        _keep_profile(result, run_dir, simulated)
    if json:
        from alexsim.cli.output import print_json
        from alexsim.report.documents.training import train_document

        print_json(train_document(result, machine, simulated))
        return
    from alexsim.report.tables import train_summary

    # Not wrapped: the run directory is there to be copied.
    options.console().print(train_summary(result, machine, simulated), soft_wrap=True)


def _refuse_timeout(context: typer.Context, *, alone: bool) -> None:
    """Refuse to wait for others where there are none."""
    if alone:
        why = "is for several processes: --processes, --strict, or torchrun"
        options.refuse(context, why, "timeout")


def _refuse_what_stays(context: typer.Context) -> None:
    """Refuse every option but those named above, whatever its value: nothing is ignored."""
    from alexsim.errors import AlexsimError

    names = [str(one.name) for one in context.command.params]
    stays = options.given(context, *(set(names) - {*_CHANGEABLE, *_BESIDE}))
    if stays:
        may = options.listed(f"--{name}" for name in _CHANGEABLE)
        raise AlexsimError(
            f"--resume goes on with the run's own settings: {options.listed(stays)} cannot be"
            f" given with it; only {may} may be changed"
        )


def _keep_profile(result: TrainResult, run_dir: Path, simulated: Simulation) -> None:
    """Leave what the timed steps say in the run directory, for `alexsim report` and Perfetto.

    A profile of more steps, which the run left before it was resumed, stays.
    """
    from alexsim.cli.output import json_text, write_text, write_trace
    from alexsim.report.chrome_trace import both_clocks
    from alexsim.report.documents.profile import profile_document
    from alexsim.train.files import PROFILE, TRACE
    from alexsim.train.run_profile import rounds_in, run_profile

    found = run_profile(result, simulated, at_least=rounds_in(run_dir / PROFILE))
    if found is None:
        return
    write_text(run_dir / PROFILE, json_text(profile_document(found)))
    write_trace(run_dir / TRACE, both_clocks(found))


def _simulated(settings: TrainSettings, machine: str) -> Simulation:
    """The run's step on another machine, with that machine's data path beside it.

    Where it has fewer GPUs than the run, as many machines of its kind are joined.
    """
    from dataclasses import replace

    from alexsim.simulate.simulator import enough_machines, on_machine

    # The machine has a way of its own for exchanges, and kernels of its own.
    stage = settings.recipe.stages[0]
    spec = replace(settings.spec(stage), transport="", backend="", fusion="none")
    devices = settings.gpus * settings.replicas
    return on_machine(spec, enough_machines(machine, devices))

"""``alexsim profile``: where a step's time, FLOPs and bytes go, measured and predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options
from alexsim.cli.simulate import MACHINE, MachineName

if TYPE_CHECKING:
    from alexsim.plan.records import Plan
    from alexsim.profile.profiler import Underlay
    from alexsim.profile.records import StepProfile


def profile(
    net: options.Net = "alexnet-2012",
    layer: Annotated[
        str, typer.Option("--layer", metavar="LAYER", help="Only this layer, pass by pass.")
    ] = "",
    batch: options.Batch = 128,
    gpus: options.ColumnGpus = None,
    policy: options.Policy = "as-released",
    schedule: options.Schedule = "serial",
    fuse: options.RunFuse = None,
    train_only: options.TrainOnly = "",
    optimizer: options.PlannedOptimizer = "sgd-2012",
    device: Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="`cpu` or `cuda`.")
    ] = "cpu",
    backend: Annotated[
        str, typer.Option("--backend", metavar="BACKEND", help="Whose kernels: `aten` or `triton`.")
    ] = "aten",
    rounds: Annotated[
        int,
        typer.Option("--rounds", metavar="N", help="Steps with timing, and as many without."),
    ] = 5,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", help="CPU threads. Default: all cores.")
    ] = None,
    trace: options.Trace = None,
    snapshot: Annotated[
        Path | None,
        typer.Option(
            "--snapshot",
            metavar="FILE",
            callback=options.checked_file,
            help="Write the step's memory as a snapshot for pytorch.org/memory_viz (a pickle).",
        ),
    ] = None,
    torch_profiler: Annotated[
        bool,
        typer.Option(
            "--torch-profiler", help="Lay one step of torch.profiler under the trace as well."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            callback=options.checked_file,
            help="Keep the document, for `alexsim report`.",
        ),
    ] = None,
    machine: MachineName = MACHINE,
    json: options.Json = False,
) -> None:
    """Measure every op of a training step here, beside its counts and another machine's time.

    Timing costs time: steps with and without it take turns, and the difference is shown.

    Example: alexsim profile --layer conv1 --machine gtx580x2

    Example: alexsim profile --rounds 10 --trace step.json.gz --snapshot memory.pickle
    """
    import os

    from alexsim.cli.output import print_json
    from alexsim.cli.parse import (
        MOST_AT_ONCE,
        as_optimizer,
        as_policy,
        as_schedule,
        choice,
        fused,
        positive,
        trainable,
    )
    from alexsim.cli.parse import layer as named_layer
    from alexsim.cli.train_settings import ready_for_triton
    from alexsim.errors import AlexsimError
    from alexsim.execute.choices import BACKENDS, DEVICES
    from alexsim.machine.machine import load_machine
    from alexsim.network.editions import load_network
    from alexsim.plan.planner import plan
    from alexsim.plan.spec import PlanSpec
    from alexsim.simulate.simulator import on_machine
    from alexsim.train.records import Watcher

    positive("--rounds", rounds)
    if torch_profiler and trace is None:
        raise AlexsimError("--torch-profiler goes under a trace: give --trace FILE too")
    if threads is not None:
        positive("--threads", threads, most=MOST_AT_ONCE)
        if device == "cuda":
            raise AlexsimError("--threads are a CPU's; with --device cuda none computes")
    network = load_network(net)
    if layer:
        layer = named_layer("--layer", layer, tuple(one.name for one in network.layers))
    where, by = choice("--device", device, DEVICES), choice("--backend", backend, BACKENDS)
    if by == "triton":
        ready_for_triton(where, Watcher(note=lambda text: typer.echo(f"alexsim: {text}", err=True)))
    learns, rule = trainable(train_only, network), as_optimizer(optimizer)
    simulation = on_machine(
        PlanSpec(
            network=network,
            gpus=gpus,
            batch_size=batch,
            schedule=as_schedule(schedule),
            trainable=learns,
            optimizer=rule,
        ),
        load_machine(machine),
    )
    spec = PlanSpec(
        network=network,
        gpus=gpus,
        batch_size=batch,
        policy=as_policy(policy),
        schedule=as_schedule(schedule),
        backend=by,
        trainable=learns,
        optimizer=rule,
    )
    made = plan(fused(fuse, spec))
    _say_who_else(made)
    # torch.profiler's library writes to stderr that it started and stopped.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    import torch

    from alexsim.profile.profiler import Underlay
    from alexsim.profile.profiler import profile as run

    torch.set_num_threads(threads or os.cpu_count() or 1)
    under = Underlay() if torch_profiler else None
    with options.counting("profiling", rounds) as done:
        found = run(made, simulation, device=where, rounds=rounds, underlay=under, done=done)
    _write(found, under, trace=trace, snapshot=snapshot, output=output)
    if json:
        from alexsim.report.documents.profile import profile_document

        print_json(profile_document(found, only=layer))
        return
    from alexsim.report.profile import layer_tables, profile_tables

    console = options.console()
    if layer:
        console.print(layer_tables(found, next(la for la in found.layers if la.name == layer)))
    else:
        console.print(profile_tables(found, width=console.width))


def _say_who_else(made: Plan) -> None:
    """Whose kernels run what the backend has none for."""
    from alexsim.report.tables import lent_text

    if made.lent:
        typer.echo(f"alexsim: {lent_text(made)}", err=True)


def _write(
    found: StepProfile,
    under: Underlay | None,
    *,
    trace: Path | None,
    snapshot: Path | None,
    output: Path | None,
) -> None:
    """The files that were asked for."""
    from alexsim.cli.output import json_text, write_bytes, write_text, write_trace
    from alexsim.report.chrome_trace import both_clocks
    from alexsim.report.documents.profile import profile_document
    from alexsim.report.memory_viz import snapshot_bytes

    if trace is not None:
        write_trace(trace, both_clocks(found, under.events if under else ()))
    if snapshot is not None:
        write_bytes(snapshot, snapshot_bytes(found.plan))
    if output is not None:
        write_text(output, json_text(profile_document(found)))

"""``alexsim profile``: where a step's time, FLOPs and bytes go, measured and predicted."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options
from alexsim.cli.simulate import MACHINE, MachineName


def profile(
    net: options.Net = "alexnet-2012",
    layer: Annotated[
        str, typer.Option("--layer", metavar="LAYER", help="Only this layer, pass by pass.")
    ] = "",
    batch: options.Batch = 128,
    gpus: options.Gpus = None,
    policy: options.Policy = "as-released",
    schedule: options.Schedule = "serial",
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
    machine: MachineName = MACHINE,
    json: options.Json = False,
) -> None:
    """Measure every op of a training step here, beside its counts and another machine's time.

    Timing costs time: steps with and without it take turns, and the difference is shown.

    Example: alexsim profile --layer conv1 --machine gtx580x2
    """
    import os

    from alexsim.cli.output import print_json
    from alexsim.cli.parse import as_policy, as_schedule, choice, positive
    from alexsim.cli.train_settings import ready_for_triton
    from alexsim.errors import AlexsimError
    from alexsim.execute.choices import BACKENDS, DEVICES
    from alexsim.machine.machine import load_machine
    from alexsim.machine.sheet import unknown
    from alexsim.network.editions import load_network
    from alexsim.plan.planner import plan
    from alexsim.simulate.simulator import Configuration, on_machine
    from alexsim.train.records import Watcher

    positive("--rounds", rounds)
    if threads is not None:
        positive("--threads", threads)
    network = load_network(net)
    if layer and layer not in (names := tuple(one.name for one in network.layers)):
        raise AlexsimError(unknown("layer", layer, names))
    where, by = choice("--device", device, DEVICES), choice("--backend", backend, BACKENDS)
    if by == "triton":
        ready_for_triton(where, Watcher(note=lambda text: typer.echo(f"alexsim: {text}", err=True)))
    simulation = on_machine(
        Configuration(network=network, gpus=gpus, batch_size=batch, schedule=as_schedule(schedule)),
        load_machine(machine),
    )
    made = plan(
        network,
        gpus=gpus,
        batch_size=batch,
        policy=as_policy(policy),
        schedule=as_schedule(schedule),
        backend=by,
    )
    import torch

    from alexsim.profile.profiler import profile as run

    torch.set_num_threads(threads or os.cpu_count() or 1)
    with options.counting("profiling", rounds) as done:
        found = run(made, simulation, device=where, rounds=rounds, done=done)
    if json:
        from alexsim.report.documents import profile_document

        print_json(profile_document(found, only=layer))
        return
    from alexsim.report.profile import layer_tables, profile_tables

    console = options.console()
    if layer:
        console.print(layer_tables(found, next(la for la in found.layers if la.name == layer)))
    else:
        console.print(profile_tables(found, width=console.width))

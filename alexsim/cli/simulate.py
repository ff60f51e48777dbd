"""``alexsim simulate``: a training step on a machine's spec sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options
from alexsim.simulate.records import ILSVRC_EPOCHS, ILSVRC_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from alexsim.machine.machine import Machine
    from alexsim.plan.records import Plan
    from alexsim.plan.spec import PlanSpec
    from alexsim.recipe.stages import StageTimes
    from alexsim.simulate.costs.correction import Correction
    from alexsim.simulate.costs.records import Precision
    from alexsim.simulate.records import Simulation
    from alexsim.simulate.sensitivity import Sensitivity
    from alexsim.simulate.tasks import Timer

MACHINE = "gtx580x2"

MachineName = Annotated[
    str,
    typer.Option(
        "--machine",
        metavar="NAME",
        help="Machine, device or TOML file to predict: see `alexsim hardware list`.",
    ),
]
LinkName = Annotated[
    str,
    typer.Option(
        "--link",
        metavar="LINK",
        help="Link of every device to its host, as in pcie3-x16, or a TOML file.",
    ),
]
NetworkName = Annotated[
    str,
    typer.Option(
        "--network",
        metavar="LINK",
        help="Link between machines, as in 10gbe, or a TOML file: then any number of GPUs may be"
        " asked for. A bare device, or --library measured, is then a machine of one GPU each;"
        " without, a bare device's GPUs share one host.",
    ),
]
Epochs = Annotated[int, typer.Option("--epochs", metavar="N", help="Passes over the images.")]
Images = Annotated[int, typer.Option("--images", metavar="N", help="Images in an epoch.")]


def simulate(
    net: options.Net = "alexnet-2012",
    batch: options.Batch = 128,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus",
            metavar="N",
            help="GPUs: 1 or one per column (the default) for `columns`; any number of copies for"
            " `replicas` and `hybrid`, which share the batch.",
        ),
    ] = None,
    machine: Annotated[
        str,
        typer.Option(
            "--machine",
            metavar="NAME",
            help="Machine, device or TOML file of either (see `alexsim hardware list`), or the"
            " .json file of `alexsim calibrate`. Default: gtx580x2.",
        ),
    ] = "",
    link: LinkName = "",
    network: NetworkName = "",
    library: Annotated[
        str,
        typer.Option(
            "--library",
            metavar="LIBRARY",
            help="Whose kernels' speed is modelled: cuda-convnet, cuda-convnet2, im2col-gemm,"
            " cudnn-v1 to cudnn-v8, nervana, fbfft, roofline,"
            " measured (this machine). Default: that of the card's time.",
        ),
    ] = "",
    precision: Annotated[
        str, typer.Option("--precision", metavar="PRECISION", help="`fp32`, `tf32` or `fp16`.")
    ] = "fp32",
    partition: Annotated[
        str,
        typer.Option(
            "--partition",
            metavar="PARTITION",
            help="`columns`; `replicas`: a copy per GPU; `hybrid`: fc layers split over GPUs.",
        ),
    ] = "columns",
    replicas: Annotated[
        int,
        typer.Option(
            "--replicas",
            metavar="N",
            help="With `columns`: copies of all columns, on machines that --network joins, which"
            " share the batch.",
        ),
    ] = 1,
    variable_batch: options.VariableBatch = False,
    schedule: options.Schedule = "serial",
    transport: Annotated[
        str,
        typer.Option(
            "--transport", metavar="TRANSPORT", help="`peer` or `host`. Default: the machine's."
        ),
    ] = "",
    policy: options.Policy = "as-released",
    fuse: options.Fuse = False,
    data_path: Annotated[
        str,
        typer.Option(
            "--data-path",
            metavar="PATH",
            help="`jpeg` reads, decodes and crops beside the step; `none`: images are ready.",
        ),
    ] = "jpeg",
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", help="Passes over the images. Default: 90."),
    ] = None,
    images: Images = ILSVRC_IMAGES,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=NUMBER", help="Change one number, as in device.clock_mhz=1700."
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe",
            metavar="RECIPE",
            help="A whole training run, stage by stage: `2012`, `paper`, `modern` or a TOML file."
            " --epochs defaults to its own.",
        ),
    ] = "",
    train_only: options.TrainOnly = "",
    optimizer: options.Optimizer = "",
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also show which assumptions matter most.")
    ] = False,
    trace: options.Trace = None,
    json: options.Json = False,
) -> None:
    """Predict a training step on a machine: time, traffic, idle time, days, and how sure that is.

    With `--library measured` it is this machine that is predicted, from `alexsim calibrate`.

    Example: alexsim simulate --recipe 2012

    Example: alexsim simulate --train-only fc8

    Example: alexsim simulate --replicas 4 --network 10gbe --batch 512

    Example: alexsim simulate --machine k20x8 --gpus 8 --partition replicas --batch 1024
    --net alexnet-owt
    """
    from functools import partial

    from alexsim.cli.output import print_json
    from alexsim.cli.parse import (
        as_data_path,
        as_optimizer,
        as_precision,
        as_schedule,
        choice,
        fused,
        positive,
        trainable,
    )
    from alexsim.cli.simulated import other_choices, refuse_idle, the_machine, wanted
    from alexsim.network.editions import load_network
    from alexsim.plan.spec import PARTITIONS, POLICIES, PlanSpec
    from alexsim.recipe.file import load_recipe
    from alexsim.recipe.stages import stage_times, training_of
    from alexsim.simulate.costs.libraries import load_library_for
    from alexsim.simulate.simulator import planned, simulate_network
    from alexsim.simulate.tasks import Timer

    followed = load_recipe(recipe) if recipe else None
    if epochs is None:
        epochs = followed.epochs if followed else ILSVRC_EPOCHS
    positive("--epochs", epochs)
    positive("--images", images)
    positive("--replicas", replicas)
    trained = load_network(net)
    usual = followed.optimizer if followed else "sgd-2012"
    in_precision = as_precision(precision)
    there, chosen, correction, known, others = wanted(
        machine,
        library,
        network,
        settings or [],
        the_sheet=lambda network, given: the_machine(machine or MACHINE, link, network, given),
        changes={
            "--link": link,
            "--set": settings,
            "--transport": transport,
            "--precision": precision != "fp32",
            "--sensitivity": sensitivity,
        },
    )
    configuration = fused(
        fuse or None,
        PlanSpec(
            network=trained,
            gpus=gpus,
            partition=choice("--partition", partition, PARTITIONS),
            replicas=replicas,
            variable_batch=variable_batch,
            batch_size=batch,
            schedule=as_schedule(schedule),
            transport=choice("--transport", transport, ("", "peer", "host")),
            policy=choice("--policy", policy, POLICIES),
            trainable=trainable(train_only, trained),
            optimizer=as_optimizer(optimizer or usual),
        ),
    )
    data = as_data_path(data_path)

    def timer(on: Machine, corrected: Correction, computed: Precision = in_precision) -> Timer:
        return Timer(
            machine=on,
            library=load_library_for(chosen, on.device, computed),
            correction=corrected,
            precision=computed,
            calibration=known,
        )

    def step(which: PlanSpec, clock: Timer) -> Simulation:
        return simulate_network(which, clock, data=data, whole_pipeline=True)

    def run(on: Machine, corrected: Correction) -> Simulation:
        return step(configuration, timer(on, corrected))

    def elsewhere(on: Callable[[], Machine]) -> Simulation:
        return run(on(), correction)

    def plain() -> Simulation:
        return step(configuration, timer(there, correction, "fp32"))

    result = run(there, correction)
    clock = timer(there, correction)
    refuse_idle(
        result,
        {option: partial(elsewhere, on) for option, on in others.items()}
        | {
            option: partial(step, other, clock)
            for option, other in other_choices(
                configuration, transport=transport, optimizer=usual
            ).items()
        }
        | ({f"--precision {precision}": plain} if in_precision != "fp32" else {}),
    )
    if trace is not None:
        _write_trace(trace, planned(configuration, there, backend="aten" if known else ""), result)
    tried: tuple[Sensitivity, ...] = ()
    if sensitivity:
        from alexsim.simulate.sensitivity import sensitivities, traits_of

        tried = sensitivities(run, there, correction, traits_of(chosen, there))
    stages: tuple[StageTimes, ...] = ()
    if followed:
        stages = stage_times(
            followed,
            configuration,
            lambda one: step(one, clock),
            images=images,
            epochs=epochs,
        )
    run_of = training_of(result, images=images, epochs=epochs, recipe=recipe, stages=stages)
    if json:
        from alexsim.report.documents.simulation import simulation_document

        print_json(simulation_document(result, run_of, tried if sensitivity else None))
        return
    from alexsim.report.simulation import simulation_tables

    options.console().print(simulation_tables(result, trained, run_of, sensitivities=tried))


def _write_trace(path: Path, planned: Plan, result: Simulation) -> None:
    from alexsim.cli.output import write_trace
    from alexsim.report.chrome_trace import Clock

    name = f"simulated: {result.machine}"
    write_trace(path, [Clock(name=name, plan=planned, trace=result.trace)])

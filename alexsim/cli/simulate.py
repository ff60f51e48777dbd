"""``alexsim simulate``: a training step on a machine's spec sheet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options
from alexsim.simulate.records import ILSVRC_EPOCHS, ILSVRC_IMAGES

if TYPE_CHECKING:
    from alexsim.machine.machine import Machine
    from alexsim.simulate.sensitivity import Sensitivity

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
    str, typer.Option("--link", metavar="LINK", help="Link of every device, as in pcie3-x16.")
]
NetworkName = Annotated[
    str,
    typer.Option(
        "--network",
        metavar="LINK",
        help="Link between nodes, as in 10gbe: then any number of GPUs may be asked for.",
    ),
]
Epochs = Annotated[int, typer.Option("--epochs", metavar="N", help="Passes over the images.")]
Images = Annotated[int, typer.Option("--images", metavar="N", help="Images in an epoch.")]


def simulate(
    net: options.Net = "alexnet-2012",
    batch: options.Batch = 128,
    gpus: options.Gpus = None,
    machine: MachineName = MACHINE,
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
    schedule: options.Schedule = "serial",
    transport: Annotated[
        str,
        typer.Option(
            "--transport", metavar="TRANSPORT", help="`peer` or `host`. Default: the machine's."
        ),
    ] = "",
    policy: options.Policy = "as-released",
    data_path: Annotated[
        str,
        typer.Option(
            "--data-path",
            metavar="PATH",
            help="`jpeg` reads, decodes and crops beside the step; `none`: images are ready.",
        ),
    ] = "jpeg",
    epochs: Epochs = ILSVRC_EPOCHS,
    images: Images = ILSVRC_IMAGES,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=NUMBER", help="Change one number, as in device.clock_mhz=1700."
        ),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also show which assumptions matter most.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="What `--library measured` knows; default: what `alexsim calibrate` left.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Predict a training step on a machine: time, traffic, idle time, days, and how sure that is.

    With `--library measured` it is this machine that is predicted, from `alexsim calibrate`.

    Example: alexsim simulate --machine k20x8 --gpus 8 --partition replicas --batch 1024
    --net alexnet-owt
    """
    from alexsim.cli.output import print_json
    from alexsim.cli.parse import as_data_path, as_precision, as_schedule, choice, positive
    from alexsim.errors import AlexsimError
    from alexsim.network.editions import load_network
    from alexsim.plan.planner import POLICIES
    from alexsim.simulate.correction import UNFITTED, Correction, load_correction
    from alexsim.simulate.costs.libraries import load_library
    from alexsim.simulate.costs.measured import default_path, machine_of, read
    from alexsim.simulate.records import Simulation
    from alexsim.simulate.simulator import (
        PARTITIONS,
        Configuration,
        default_library,
        simulate_network,
    )
    from alexsim.simulate.tasks import Timer

    if calibration is not None and library != "measured":
        raise AlexsimError("--calibration needs --library measured")
    positive("--epochs", epochs)
    positive("--images", images)
    trained = load_network(net)
    wanted, known = the_machine(machine, link, network, settings or []), None
    if library == "measured":
        known = read(str(calibration or default_path()))
        wanted = machine_of(known)
    chosen = library or default_library(wanted)
    correction = UNFITTED if chosen in ("roofline", "measured") else load_correction()

    configuration = Configuration(
        network=trained,
        gpus=gpus,
        partition=choice("--partition", partition, PARTITIONS),
        batch_size=batch,
        schedule=as_schedule(schedule),
        transport=choice("--transport", transport, ("", "peer", "host")),
        policy=choice("--policy", policy, POLICIES),
    )
    in_precision = as_precision(precision)
    data = as_data_path("none" if known else data_path)

    def run(on: Machine, corrected: Correction) -> Simulation:
        timer = Timer(
            machine=on,
            library=load_library(chosen),
            correction=corrected,
            precision=in_precision,
            calibration=known,
        )
        return simulate_network(configuration, timer, data=data, whole_pipeline=True)

    result = run(wanted, correction)
    if json:
        from alexsim.report.documents import simulation_document

        print_json(simulation_document(result, images=images, epochs=epochs))
        return
    from alexsim.report.simulation import simulation_tables

    tried: tuple[Sensitivity, ...] = ()
    if sensitivity:
        from alexsim.simulate.sensitivity import sensitivities, traits_of

        tried = sensitivities(run, wanted, correction, traits_of(chosen, wanted))
    options.console().print(
        simulation_tables(result, trained, images=images, epochs=epochs, sensitivities=tried)
    )


def the_machine(name: str, link: str, network: str, settings: list[str]) -> Machine:
    """The machine that was asked for, with the numbers that were set.

    Raises:
        AlexsimError: the name, the link or a setting is not allowed.
    """
    from alexsim.errors import AlexsimError
    from alexsim.machine.machine import changed, load_machine
    from alexsim.simulate.sweep import number

    numbers = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise AlexsimError(f"--set must be KEY=NUMBER, got {text!r}")
        numbers[key] = number(value)
    return changed(load_machine(name, link, network), numbers)

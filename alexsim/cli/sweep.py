"""``alexsim sweep``: every combination of some choices."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options
from alexsim.cli.simulate import MACHINE, Epochs, Images, MachineName
from alexsim.simulate.records import ILSVRC_EPOCHS, ILSVRC_IMAGES


def sweep(
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            "-a",
            metavar="NAME=V,V,...",
            help="What varies: net, batch, gpus, machine, link, network, library, partition,"
            " schedule, transport, policy, precision, data-path, or a number such as"
            " device.clock_mhz.",
        ),
    ] = None,
    net: options.Net = "alexnet-2012",
    machine: MachineName = MACHINE,
    epochs: Epochs = ILSVRC_EPOCHS,
    images: Images = ILSVRC_IMAGES,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Simulate every combination of the axes' values; a table here, or a CSV file with -o.

    Example: alexsim sweep -a batch=64,128,256 -a link.gb_per_s=4,8,16 -o sweep.csv
    """
    from alexsim.cli.output import print_json, write_text
    from alexsim.cli.parse import positive
    from alexsim.errors import AlexsimError
    from alexsim.simulate.sweep import combinations, parse_axes
    from alexsim.simulate.sweep import sweep as run

    if not axis:
        raise AlexsimError("sweep needs at least one --axis, as in --axis batch=64,128")
    positive("--epochs", epochs)
    positive("--images", images)
    axes = parse_axes(axis)
    if output and output.suffix != ".csv":
        raise AlexsimError(f"-o must name a .csv file, got {output} (--json prints JSON)")
    settings = list(combinations(axes, {"net": net, "machine": machine}))
    with options.counting("simulating", len(settings)) as done:
        points = run(settings, images=images, epochs=epochs, done=done)
    if all(point.error for point in points):
        raise AlexsimError(points[0].error)
    if output:
        from alexsim.report.simulation import sweep_csv

        write_text(output, sweep_csv(points))
    if json:
        from alexsim.report.documents import sweep_document

        print_json(sweep_document(points, epochs=epochs, images=images))
    elif not output:
        from alexsim.report.simulation import sweep_table

        options.console().print(sweep_table(points, list(axes)))

"""``alexsim sweep``: every combination of some choices."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options
from alexsim.cli.simulate import MACHINE, Epochs, Images, MachineName
from alexsim.simulate.records import ILSVRC_EPOCHS, ILSVRC_IMAGES


def sweep(
    context: typer.Context,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            "--axis",
            "-a",
            metavar="NAME=V,V,...",
            help="What varies: net, batch, gpus, machine, link, network, library, partition,"
            " replicas, schedule, transport, policy, optimizer, precision, data-path, or a number"
            " such as device.clock_mhz.",
        ),
    ] = None,
    net: options.Net = "alexnet-2012",
    machine: MachineName = MACHINE,
    epochs: Epochs = ILSVRC_EPOCHS,
    images: Images = ILSVRC_IMAGES,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the configurations; simulate none.")
    ] = False,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Simulate every combination of the axes' values; a table here, or a file with -o.

    The table marks the Pareto set: what fits, and is beaten in time, memory, energy (data-sheet
    power) and, where all have one, launch price by nothing that fits. -o writes .csv, .json or
    .parquet.

    Example: alexsim sweep -a batch=64,128,256 -a machine=gtx580x2,k20x8 -o sweep.parquet
    """
    from alexsim.cli.output import check_rows, print_json, write_rows
    from alexsim.cli.parse import positive
    from alexsim.errors import AlexsimError
    from alexsim.simulate.axes import check_axes, combinations, idle_axis, parse_axes
    from alexsim.simulate.sweep import sweep as run

    if not axis:
        raise AlexsimError("sweep needs at least one --axis, as in --axis batch=64,128")
    positive("--epochs", epochs)
    positive("--images", images)
    axes = parse_axes(axis)
    for option in ("net", "machine"):
        if option in axes and options.given(context, option):
            raise AlexsimError(f"--{option} and --axis {option}: give one of them")
    check_axes(axes, machine)
    if output:
        check_rows("-o", output)
    settings = list(combinations(axes, {"net": net, "machine": machine}))
    if dry_run:
        from alexsim.report.documents.sweep import grid_document
        from alexsim.report.sweep import grid_text

        if json:
            print_json(grid_document(settings))
        else:
            print(grid_text(settings, list(axes)))
        return
    with options.counting("simulating", len(settings)) as done:
        points = run(settings, images=images, epochs=epochs, done=done)
    if all(point.error for point in points):
        raise AlexsimError(points[0].error)
    if idle := idle_axis(points, axes, images=images, epochs=epochs):
        raise AlexsimError(
            f"--axis {idle} changes no figure of these {len(points)} configurations; leave it out"
        )
    if output or json:
        from alexsim.report.documents.sweep import sweep_document
        from alexsim.report.sweep import sweep_rows

        document = sweep_document(points, epochs=epochs, images=images)
        if output:
            write_rows(output, sweep_rows(points), document)
        if json:
            print_json(document)
        return
    from alexsim.report.sweep import sweep_table

    options.console().print(sweep_table(points, list(axes)))

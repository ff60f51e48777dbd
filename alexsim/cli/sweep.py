"""``alexsim sweep``: every combination of some choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from alexsim.cli.simulate_options import ImageOptions
from alexsim.command import complete, fields
from alexsim.command import options as shared
from alexsim.command.answer import Given, give
from alexsim.command.fields import flag, option
from alexsim.command.options import MachineOptions, NetOptions, OutputOptions
from alexsim.command.output import check_rows, write_rows
from alexsim.errors import AlexsimError
from alexsim.simulate.simulation import ILSVRC_EPOCHS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from alexsim.documents.base import Document


@dataclass(frozen=True, kw_only=True)
class SweepOptions(NetOptions, MachineOptions, ImageOptions, OutputOptions):
    """What varies, and what does not."""

    axis: list[str] | None = option(
        "NAME=V,V,...",
        "What varies: net, batch, gpus, machine, link, network, library, partition, replicas,"
        " schedule, transport, policy, optimizer, precision, data-path, or a number such as"
        " device.clock_mhz.",
        names="--axis -a",
        autocompletion=complete.axes,
    )
    epochs: int = option("N", "Passes over the images.", ILSVRC_EPOCHS)
    dry_run: bool = flag("List the configurations; simulate none.")


def sweep(context: typer.Context, options: SweepOptions) -> None:
    """Simulate every combination of some choices.

    A table here, or a file with -o, which writes .csv, .json or .parquet. The table marks the
    Pareto set: what fits, and is beaten in time, memory, energy (data-sheet power) and, where all
    have one, launch price by nothing that fits.

    Example: alexsim sweep -a batch=64,128,256 -a machine=gtx580x2,k20x8 -o sweep.parquet
    """
    from alexsim.explore.axes import check_axes, combinations, fixed_choices, idle_axis, parse_axes
    from alexsim.explore.sweep import sweep as run
    from alexsim.report.sweep import grid_text, sweep_rows, sweep_table, without_result

    epochs, images = options.epochs, options.images
    if not options.axis:
        raise AlexsimError("sweep needs at least one --axis, as in --axis batch=64,128")
    axes = parse_axes(options.axis)
    for name in ("net", "machine"):
        if name in axes and fields.given(context, name):
            raise AlexsimError(f"--{name} and --axis {name}: give one of them")
    check_axes(axes, options.machine)
    if options.output:
        check_rows("-o", options.output)
    fixed = fixed_choices({"net": options.net, "machine": options.machine}, axes)
    settings = list(combinations(axes, fixed))
    if options.dry_run:
        from rich.text import Text

        from alexsim.documents.sweep import grid_document

        listed = Given(
            document=lambda: grid_document(settings),
            tables=lambda _: Text(grid_text(settings, list(axes))),
        )
        give(options, listed, soft_wrap=True)
        return
    with shared.counting("simulating", len(settings)) as done:
        points = run(settings, images=images, epochs=epochs, done=done)
    if all(point.error for point in points):
        raise AlexsimError(points[0].error)
    if idle := idle_axis(points, axes, images=images, epochs=epochs):
        raise AlexsimError(
            f"--axis {idle} changes no figure of these {len(points)} configurations; leave it out"
        )

    def document() -> Document:
        from alexsim.documents.sweep import sweep_document

        return sweep_document(points, epochs=epochs, images=images)

    if options.output:
        write_rows(options.output, sweep_rows(points), document(), without_result(points))
    tables = sweep_table(points, list(axes))

    def figures() -> dict[str, Figure]:
        from alexsim.page.figures.sweep import memory_over_days

        return {"memory-over-days": memory_over_days(points, list(axes))}

    answer = Given(
        document=document,
        tables=lambda _: tables,
        rows=lambda: sweep_rows(points),
        figures=figures,
    )
    give(options, answer, quiet=options.output is not None and not options.json)

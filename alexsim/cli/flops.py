"""``alexsim flops``: FLOPs and parameters per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options

if TYPE_CHECKING:
    from alexsim.counters.comparison import Comparison
    from alexsim.plan.tables import FlopTable


def flops(
    context: typer.Context,
    net: options.Net = "alexnet-2012",
    batch: options.Batch = 128,
    train_only: options.TrainOnly = "",
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Run the FLOP counters that are installed, and explain each of them."
        ),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="With --compare: fail (exit code 4) if a difference is unexplained or an op of"
            " the plan has no formula.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Count multiply-adds, FLOPs and parameters, layer by layer.

    MAC and FLOP are those of convolutions and fully connected layers, per image; everything else
    is counted apart as elementwise. --batch is for the bytes in --json. --compare needs
    PyTorch alone; pip install "alexsim[counters]" adds other people's counters.

    Example: alexsim flops --net alexnet-owt

    Example: alexsim flops --compare --strict
    """
    from alexsim.cli.output import print_json
    from alexsim.cli.parse import trainable
    from alexsim.errors import AlexsimError
    from alexsim.network.editions import load_network
    from alexsim.plan.tables import flop_table

    if strict and not compare:
        raise AlexsimError("--strict needs --compare")
    if not json:
        options.refuse(context, "changes only the bytes that --json has", "batch")
    network = load_network(net)
    if train_only and compare:
        raise AlexsimError("--compare counts whole training steps: leave --train-only out")
    table: FlopTable = flop_table(network, batch, trainable=trainable(train_only, network))
    found = _compared(table) if compare else None
    if json:
        if found:
            from alexsim.report.documents.counters import compared_flops_document

            print_json(compared_flops_document(table, found))
        else:
            from alexsim.report.documents.plan import flops_document

            print_json(flops_document(table))
    else:
        _print(table, found)
    if strict and found and found.complaints:
        from alexsim.errors import GateError

        raise GateError("; ".join(found.complaints))


def _compared(table: FlopTable) -> Comparison:
    from alexsim.counters.comparison import compare
    from alexsim.counters.tools import COUNTERS

    with options.counting("counting", len(COUNTERS), at_once=True) as done:
        return compare(table, COUNTERS, done)


def _print(table: FlopTable, found: Comparison | None) -> None:
    from alexsim.report.tables import flops_tables

    console = options.console()
    console.print(flops_tables(table))
    if found:
        from alexsim.report.counters import counters_tables

        console.print()
        console.print(counters_tables(found), soft_wrap=True)

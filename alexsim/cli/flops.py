"""``alexsim flops``: FLOPs and parameters per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexsim.cli import options

if TYPE_CHECKING:
    from alexsim.plan.tables import FlopTable


def flops(
    net: options.Net = "alexnet-2012",
    batch: options.Batch = 128,
    json: options.Json = False,
) -> None:
    """Count multiply-adds, FLOPs and parameters, layer by layer.

    MAC and FLOP are those of convolutions and fully connected layers, per image; everything else
    is counted apart as elementwise. --batch only matters to the bytes in --json.

    Example: alexsim flops --net alexnet-owt
    """
    from alexsim.cli.output import print_json
    from alexsim.network.editions import load_network
    from alexsim.plan.tables import flop_table

    table: FlopTable = flop_table(load_network(net), batch)
    if json:
        from alexsim.report.documents import flops_document

        print_json(flops_document(table))
        return
    from alexsim.report.tables import flops_tables

    options.console().print(flops_tables(table))

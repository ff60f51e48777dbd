"""``alexsim network``: the editions, their layers and a drawing of their columns or branches."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

app = typer.Typer(help="Networks: list them, show one.")


@app.command("list")
def list_networks(json: options.Json = False) -> None:
    """List the networks that --net takes, and how each is trained here by default.

    Example: alexsim network list
    """
    import os

    from alexsim.cli.memory import DEVICE
    from alexsim.machine.device import load_device
    from alexsim.network.editions import edition_names, load_network
    from alexsim.network.variants import VARIANTS
    from alexsim.recipe.outlook import outlook
    from alexsim.report.documents.networks import networks_document
    from alexsim.report.networks import networks_tables

    budget, cores = int(load_device(DEVICE).memory_bytes.value), os.cpu_count() or 1
    found = [
        outlook(load_network(name), budget_bytes=budget, cores=cores) for name in edition_names()
    ]
    if json:
        from alexsim.cli.output import print_json

        variants = {name: what for name, (what, _) in VARIANTS.items()}
        print_json(networks_document(found, variants, budget_bytes=budget, cores=cores))
        return
    options.console().print(networks_tables(found, budget_bytes=budget, cores=cores))
    print("\nvariants, as in --net alexnet-paper+no-lrn+tanh:")
    for name, (what, _) in VARIANTS.items():
        print(f"+{name:13} {what}")


@app.command("show")
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="One of `network list`, or FILE.py:NAME.")
    ],
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Show a network's layers and draw its columns or branches; chains are drawn beside LeNet-5.

    With -o FILE.svg the drawing is written as a picture.

    Example: alexsim network show alexnet-2012
    """
    from alexsim.cli.output import write_text
    from alexsim.network.diagram import diagram, svg
    from alexsim.network.editions import load_network
    from alexsim.report.tables import network_table, side_by_side

    network = load_network(name)
    alone = name == "lenet-5" or not network.is_chain
    beside = () if alone else (load_network("lenet-5"),)
    if output is not None:
        write_text(output, svg((*beside, network)))
    if json:
        from alexsim.cli.output import print_json
        from alexsim.report.documents.networks import network_document

        print_json(network_document(network))
    if json or output is not None:
        return
    console = options.console()
    console.print(network_table(network))
    console.print(side_by_side([diagram(other) for other in (network, *beside)]))

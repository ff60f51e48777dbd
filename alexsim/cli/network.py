"""``alexsim network``: the editions, their layers and a drawing of their columns."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

app = typer.Typer(help="Networks: list them, show one.")


@app.command("list")
def list_networks(json: options.Json = False) -> None:
    """List the networks that --net takes.

    Example: alexsim network list
    """
    from alexsim.network.editions import edition_names, load_network
    from alexsim.network.variants import VARIANTS

    if json:
        from alexsim.cli.output import print_json
        from alexsim.report.networks import networks_document

        networks = [load_network(name) for name in edition_names()]
        print_json(
            networks_document(networks, {name: what for name, (what, _) in VARIANTS.items()})
        )
        return
    for name in edition_names():
        network = load_network(name)
        print(f"{name:14} {network.parameters:>11,} parameters  {network.title}")
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
    """Show a network's layers and draw its columns; AlexNets are drawn beside LeNet-5.

    With -o FILE.svg the drawing is written as a picture.

    Example: alexsim network show alexnet-2012
    """
    from alexsim.cli.output import write_text
    from alexsim.network.diagram import diagram, svg
    from alexsim.network.editions import load_network
    from alexsim.report.tables import network_table, side_by_side

    network = load_network(name)
    beside = () if name == "lenet-5" else (load_network("lenet-5"),)
    if output is not None:
        write_text(output, svg((*beside, network)))
    if json:
        from alexsim.cli.output import print_json
        from alexsim.report.networks import network_document

        print_json(network_document(network))
    if json or output is not None:
        return
    console = options.console()
    console.print(network_table(network))
    console.print(side_by_side([diagram(other) for other in (network, *beside)]))

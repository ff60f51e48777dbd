"""``alexsim network``: the editions, their layers and a drawing of their columns or branches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alexsim.command import complete
from alexsim.command import options as shared
from alexsim.command.fields import Options, argument
from alexsim.command.options import output_to
from alexsim.command.output import print_json, write_text


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """Of ``network show``."""

    output: Path | None = output_to(".svg")
    name: str = argument(
        "NAME", "One of `network list`, or FILE.py:NAME.", autocompletion=complete.networks
    )


def list_networks(options: Options) -> None:
    """List the networks and variants that --net takes.

    Each with how it is trained here by default.

    Example: alexsim network list
    """
    import os

    from alexsim.documents.networks import networks_document
    from alexsim.editions.load import edition_names, load_network
    from alexsim.editions.variants import VARIANTS
    from alexsim.machine.defaults import DEVICE
    from alexsim.machine.device import load_device
    from alexsim.recipe.defaults import trains_as
    from alexsim.recipe.outlook import outlook
    from alexsim.report.networks import networks_tables

    budget, cores = int(load_device(DEVICE).memory_bytes.value), os.cpu_count() or 1
    networks = [load_network(name) for name in edition_names()]
    # Planning every depth of a family would take half a minute.
    outlooks = {
        network.name: outlook(network, budget_bytes=budget, cores=cores)
        for network in networks
        if not trains_as(network.name)
    }
    variants = {name: what for name, (what, _) in VARIANTS.items()}
    if options.json:
        document = networks_document(networks, outlooks, variants, budget_bytes=budget, cores=cores)
        print_json(document)
        return
    tables = networks_tables(networks, outlooks.values(), budget_bytes=budget, cores=cores)
    shared.console().print(tables)
    print("\nvariants, as in --net alexnet-paper+no-lrn+tanh:")
    for name, what in variants.items():
        print(f"+{name:13} {what}")


def show_network(options: ShowOptions) -> None:
    """Show a network's layers, and draw them.

    Chains are drawn beside LeNet-5. With -o FILE.svg the drawing is written as a picture.

    Example: alexsim network show alexnet-2012
    """
    from alexsim.documents.networks import network_document
    from alexsim.editions.load import load_network
    from alexsim.network.diagram import diagram, svg
    from alexsim.report.tables import network_table, side_by_side

    network = load_network(options.name)
    alone = options.name == "lenet-5" or not network.is_chain
    beside = () if alone else (load_network("lenet-5"),)
    if options.output is not None:
        write_text(options.output, svg((*beside, network)), f"{network.name}, drawn")
    if options.json:
        print_json(network_document(network))
    if options.json or options.output is not None:
        return
    console = shared.console()
    console.print(network_table(network))
    console.print(side_by_side([diagram(other) for other in (network, *beside)]))

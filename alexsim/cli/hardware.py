"""``alexsim hardware``: devices, links and machines that there are."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

app = typer.Typer(
    rich_markup_mode=None,
    help="""Devices, links and machines that can be predicted.

    Example: alexsim hardware show gtx580x2""",
)


@app.command("list")
def list_hardware(json: options.Json = False) -> None:
    """List every machine, device and link, with its main figures.

    Example: alexsim hardware list
    """
    from alexsim.machine.device import device_names, load_device
    from alexsim.machine.machine import link_names, load_link, load_machine, machine_names

    machines = {name: load_machine(name) for name in machine_names()}
    devices = {name: load_device(name) for name in device_names()}
    links = {name: load_link(name) for name in link_names()}
    if json:
        from alexsim.cli.output import print_json
        from alexsim.report.documents.hardware import hardware_document

        print_json(hardware_document(machines, devices, links))
        return
    from alexsim.report.hardware import hardware_tables

    options.console().print(hardware_tables(machines, devices, links))


@app.command("show")
def show_hardware(
    name: Annotated[str, typer.Argument(help="Machine, device or link, or a TOML file of one.")],
    json: options.Json = False,
) -> None:
    """Show one sheet: every number with its unit, its kind and its source.

    Example: alexsim hardware show titan-x-maxwell
    """
    from alexsim.machine.machine import load_sheet

    sheet = load_sheet(name)
    if json:
        from alexsim.cli.output import print_json
        from alexsim.report.documents.hardware import sheet_document

        print_json(sheet_document(sheet))
        return
    from alexsim.report.hardware import sheet_tables

    options.console().print(sheet_tables(sheet))

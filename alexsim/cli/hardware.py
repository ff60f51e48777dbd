"""``alexsim hardware``: devices, links and machines that there are."""

from __future__ import annotations

from dataclasses import dataclass

from alexsim.command import complete
from alexsim.command import options as shared
from alexsim.command.fields import Options, argument
from alexsim.command.output import print_json


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """Of ``hardware show``."""

    name: str = argument(
        "NAME", "Machine, device or link, or a TOML file of one.", autocompletion=complete.sheets
    )


def list_hardware(options: Options) -> None:
    """List every machine, device and link with its main figures.

    Example: alexsim hardware list
    """
    from alexsim.documents.hardware import hardware_document
    from alexsim.machine.device import device_names, load_device
    from alexsim.machine.link import link_names, load_link
    from alexsim.machine.machine import load_machine, machine_names
    from alexsim.report.hardware import hardware_tables

    machines = {name: load_machine(name) for name in machine_names()}
    devices = {name: load_device(name) for name in device_names()}
    links = {name: load_link(name) for name in link_names()}
    if options.json:
        print_json(hardware_document(machines, devices, links))
    else:
        shared.console().print(hardware_tables(machines, devices, links))


def show_hardware(options: ShowOptions) -> None:
    """Show a sheet: each number's unit, kind and source.

    Example: alexsim hardware show titan-x-maxwell
    """
    from alexsim.documents.hardware import sheet_document
    from alexsim.machine.machine import load_sheet
    from alexsim.report.hardware import sheet_tables

    sheet = load_sheet(options.name)
    if options.json:
        print_json(sheet_document(sheet))
    else:
        shared.console().print(sheet_tables(sheet))

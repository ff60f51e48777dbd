"""``alexsim hardware``: devices, links and machines that there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from alexsim.command import complete
from alexsim.command import options as shared
from alexsim.command.fields import Options, argument, flag, option
from alexsim.command.options import output_to
from alexsim.command.output import print_json, write_text
from alexsim.errors import AlexsimError


@dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """Of ``hardware show``."""

    name: str = argument(
        "NAME", "Machine, device or link, or a TOML file of one.", autocompletion=complete.sheets
    )
    toml: bool = flag("Its file, with all that it inherits: what --machine FILE.toml reads.")


@dataclass(frozen=True, kw_only=True)
class NewOptions(Options):
    """Of ``hardware new``."""

    output: Path | None = output_to(".toml")
    like: str = option(
        "NAME",
        "Machine, device or link that has what the sheet does not say. Default: a card, of which"
        " its architecture says the rest.",
        "",
        autocompletion=complete.sheets,
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

    Example: alexsim hardware show a100x4 --toml > mine.toml
    """
    from alexsim.documents.hardware import sheet_document
    from alexsim.machine.machine import load_sheet
    from alexsim.machine.write import sheet_text
    from alexsim.report.hardware import sheet_tables

    sheet = load_sheet(options.name)
    if options.toml and options.json:
        raise AlexsimError("--toml and --json are two forms of a sheet; leave one out")
    if options.toml:
        typer.echo(sheet_text(options.name), nl=False)
        return
    if options.json:
        print_json(sheet_document(sheet))
    else:
        shared.console().print(sheet_tables(sheet))


def new_hardware(options: NewOptions) -> None:
    """Write a sheet of your own, to be changed.

    Example: alexsim hardware new --like a100 -o mine.toml
    """
    from alexsim.documents.hardware import sheet_document
    from alexsim.machine.machine import load_sheet
    from alexsim.machine.write import MODEL, new_text

    text = new_text(options.like)
    if options.output is not None:
        if options.output.is_file():
            raise AlexsimError(f"{options.output} is there already, and is not written over")
        write_text(options.output, text, "a sheet to be changed")
    if options.json:
        print_json(sheet_document(load_sheet(options.like or MODEL)))
    elif options.output is None:
        typer.echo(text, nl=False)

"""What ``alexsim simulate`` predicts: the machine that its options describe, each of use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexsim.errors import AlexsimError
from alexsim.machine.defaults import MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alexsim.cli.simulate_options import SimulateOptions
    from alexsim.machine.machine import Machine
    from alexsim.simulate.costs.correction import Correction
    from alexsim.simulate.costs.measured import Calibration


def wanted(
    options: SimulateOptions,
) -> tuple[Machine, str, Correction, Calibration | None, Mapping[str, Callable[[], Machine]]]:
    """The machine, the library, their correction, the calibration if that is what it is, and the
    machine without each option that changes it.

    Raises:
        AlexsimError: an option is not allowed, or changes nothing.
    """
    from functools import partial

    from alexsim.machine.machine import load_link, number_of
    from alexsim.simulate.costs.correction import correction_of, scatter
    from alexsim.simulate.costs.libraries import load_library
    from alexsim.simulate.costs.measured import default_path, machine_of, read
    from alexsim.simulate.simulator import default_library
    from alexsim.simulate.sweep import machine_with

    machine, library, network = options.machine, options.library, options.network
    settings = options.settings or []
    others: dict[str, Callable[[], Machine]] = {}
    if library != "measured" and not machine.endswith(".json"):
        the_sheet = partial(machine_with, machine or MACHINE, options.link)
        sheet = the_sheet(network, settings)
        chosen = load_library(library).name if library else default_library(sheet)
        if network:
            others[f"--network {network}"] = partial(the_sheet, "", settings)
        for setting in settings:
            left = [other for other in settings if other != setting]
            key = setting.partition("=")[0]
            if number_of(the_sheet(network, left), key) != number_of(sheet, key):
                others[f"--set {setting}"] = partial(the_sheet, network, left)
        return sheet, chosen, correction_of(chosen), None, others
    if library not in ("", "measured"):
        raise AlexsimError(f"{machine} is a calibration: its library is measured, not {library}")
    if machine and not machine.endswith(".json"):
        raise AlexsimError(
            f"--library measured needs the .json file of `alexsim check calibrate`; got {machine}"
        )
    changes = {
        "--link": options.link,
        "--set": settings,
        "--transport": options.transport,
        "--precision": options.precision != "fp32",
        "--sensitivity": options.sensitivity,
    }
    if ignored := [option for option, value in changes.items() if value]:
        raise AlexsimError(
            f"{ignored[0]} changes a data sheet; --library measured has none, only this"
            " machine's own times"
        )
    known = read(machine or str(default_path()))
    if network:
        others[f"--network {network}"] = partial(machine_of, known)
    here = machine_of(known, load_link(network) if network else None)
    return here, "measured", scatter(known.scatter), known, others

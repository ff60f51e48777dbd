"""What ``alexsim simulate`` predicts: the machine that its options describe, each of use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alexsim.errors import AlexsimError
from alexsim.machine.defaults import MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from alexsim.cli.simulate_options import SimulateOptions
    from alexsim.machine.machine import Machine
    from alexsim.network.update_rules import Optimizer
    from alexsim.plan.choices import TransportName
    from alexsim.plan.spec import PlanSpec
    from alexsim.simulate.costs.correction import Correction
    from alexsim.simulate.costs.measured import Calibration
    from alexsim.simulate.simulation import Simulation


def wanted(
    options: SimulateOptions,
) -> tuple[Machine, str, Correction, Calibration | None, Mapping[str, Callable[[], Machine]]]:
    """The machine, the library, their correction, the calibration if that is what it is, and the
    machine without each option that changes it.

    Raises:
        AlexsimError: an option is not allowed, or changes nothing.
    """
    from dataclasses import replace
    from functools import partial

    from alexsim.machine.machine import load_link, number_of
    from alexsim.simulate.costs.correction import correction_of, scatter
    from alexsim.simulate.costs.libraries import load_library
    from alexsim.simulate.costs.measured import default_path, machine_of, read
    from alexsim.simulate.simulator import default_library

    machine, library, network = options.machine, options.library, options.network
    settings = options.settings or []
    others: dict[str, Callable[[], Machine]] = {}
    if library != "measured" and not machine.endswith(".json"):
        the_sheet = partial(_sheet, machine or MACHINE, options.link)
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
    here = machine_of(known)
    if network:
        # Then every device is such a machine, beyond that link.
        others[f"--network {network}"] = partial(replace, here, network=None)
        here = replace(here, network=load_link(network))
    return here, "measured", scatter(known.scatter), known, others


def other_choices(spec: PlanSpec, *, optimizer: Optimizer) -> dict[str, PlanSpec]:
    """The plan with the other choice, for each that was made.

    Args:
        spec: what was asked for.
        optimizer: what is used unless another is given.
    """
    from dataclasses import replace

    from alexsim.cli.plan_options import undone

    others: dict[str, PlanSpec] = {}
    if spec.transport:
        other: TransportName = "peer" if spec.transport == "host" else "host"
        others[f"--transport {spec.transport}"] = replace(spec, transport=other)
    names = ("schedule", "policy", "fusion", "optimizer", "variable_batch")
    return others | undone(spec, *names, optimizer=optimizer)


def refuse_idle(result: Simulation, others: Mapping[str, Callable[[], Simulation]]) -> None:
    """Refuse an option that changes nothing: it was meant to.

    Raises:
        AlexsimError: without one of ``others`` every figure is the same.
    """
    from alexsim.simulate.effect import without_effect

    if idle := without_effect(result, others):
        why = next((why for option, why in _WHY_IDLE.items() if idle.startswith(option)), "")
        raise AlexsimError(f"{idle} changes no figure here{why}; leave it out")


_WHY_IDLE = {
    "--network": ": all GPUs are in one machine",
    "--transport": ": no GPU exchanges anything with another of its machine",
    "--precision pytorch": ": PyTorch's own is float32 on this card, by this library",
    "--set": ": nothing in this step depends on it",
}


def _sheet(name: str, link: str, network: str, settings: list[str]) -> Machine:
    """The machine that was asked for, with the numbers that were set.

    Raises:
        AlexsimError: the name, the link or a setting is not allowed.
    """
    from alexsim.machine.machine import changed, in_si, load_machine
    from alexsim.simulate.sweep import number

    numbers: dict[str, float] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise AlexsimError(f"--set must be KEY=NUMBER, got {text!r}")
        if in_si(key, 1)[0] in {in_si(other, 1)[0] for other in numbers}:
            raise AlexsimError(f"--set {key} is given twice")
        numbers[key] = number(key, value)
    return changed(load_machine(name, link, network), numbers)

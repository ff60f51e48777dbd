"""What ``alexsim simulate`` predicts: the machine that its options describe, each of use; and the
same with one change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from alexsim.errors import AlexsimError
from alexsim.machine.defaults import MACHINE

if TYPE_CHECKING:
    from alexsim.cli.simulate_options import SimulateOptions
    from alexsim.costs.correction import Correction
    from alexsim.costs.measured import Calibration
    from alexsim.explore.what_if import Change, WhatIf
    from alexsim.machine.machine import Machine
    from alexsim.network.update_rules import Optimizer
    from alexsim.plan.choices import Policy
    from alexsim.plan.plan import Plan
    from alexsim.plan.spec import PlanSpec
    from alexsim.recipe.stages import Training
    from alexsim.simulate.simulation import Simulation
    from alexsim.simulate.timer import DataPath, Timer


@dataclass(frozen=True, kw_only=True)
class Case:
    """A step on a machine."""

    spec: PlanSpec
    timer: Timer
    data: DataPath
    others: Mapping[str, Callable[[], Machine]]
    """The machine without each option that changes it."""

    def simulated(self, spec: PlanSpec | None = None, timer: Timer | None = None) -> Simulation:
        """The step, or that of another spec or by another timer."""
        from alexsim.simulate.simulator import simulate_network

        return simulate_network(
            spec or self.spec, timer or self.timer, data=self.data, whole_pipeline=True
        )

    def planned(self, spec: PlanSpec | None = None, *, whole: bool = False) -> Plan:
        """What is simulated; of devices that do the same the first or, if ``whole``, all."""
        from alexsim.simulate.simulator import planned

        clock = self.timer
        chosen = spec or self.spec
        return planned(chosen, clock.machine, calibration=clock.calibration, whole=whole)

    def fitting_policies(self) -> dict[Policy, int]:
        """Other policies by which the step would fit, and the bytes of its fullest device."""
        from alexsim.budget.policies import policies_that_fit

        cards = self.timer.machine.cards(self.spec.all_gpus)
        return policies_that_fit(self.spec, cards, made=self.planned)


def case_of(options: SimulateOptions, usual: Optimizer, change: Change | None = None) -> Case:
    """What is predicted, ``change`` and all; ``usual`` is the update rule if no option names one.

    Raises:
        AlexsimError: an option is not allowed, or changes nothing.
    """
    from alexsim.costs.precision import plan_precision
    from alexsim.simulate.timer import timer_of

    spec = options.plan_spec(
        optimizer=options.optimizer or usual,
        precision=plan_precision(options.precision),
        half_layers=change.half_layers if change else None,
    )
    there, library, correction, known, others = wanted(options)
    timer = timer_of(library, there, correction, options.precision, known)
    if change is not None and change.faster:
        timer = replace(timer, faster=change.faster)
    return Case(spec=spec, timer=timer, data=options.data_path, others=others)


def what_ifs(
    options: SimulateOptions,
    usual: Optimizer,
    plain: Simulation,
    trained: Callable[[Case, Simulation], Training],
) -> tuple[WhatIf, ...]:
    """Every what-if that was asked for, beside the step without it.

    Raises:
        AlexsimError: a change is not allowed, changes nothing, or is given twice.
    """
    if not options.what_if:
        return ()
    from alexsim.editions.load import load_network
    from alexsim.explore.what_if import WhatIf, parse_change, what_if

    network, tried, base = load_network(options.net), dict[str, WhatIf](), case_of(options, usual)
    before = plain, trained(base, plain).days
    for text in options.what_if:
        if text in tried:
            raise AlexsimError(f"--what-if {text} is given twice")
        try:
            change = parse_change(text, network)
            case = case_of(_changed(options, change, base.spec), usual, change)
            after = case.simulated()
        except AlexsimError as error:
            raise AlexsimError(f"--what-if {text}: {error}") from error
        if after == plain:
            raise AlexsimError(f"--what-if {text} changes no figure here; leave it out")
        tried[text] = what_if(text, before, (after, trained(case, after).days), network)
    return tuple(tried.values())


def _changed(options: SimulateOptions, change: Change, spec: PlanSpec) -> SimulateOptions:
    """The options as they would be for that change; on another machine as many GPUs as in ``spec``,
    unless its name counts them."""
    from alexsim.machine.counted import devices_in
    from alexsim.machine.sheet import in_si

    def named(setting: str) -> str:
        return in_si(setting.partition("=")[0], 1)[0]

    if "machine" in change.choices and devices_in(change.choices["machine"]) is None:
        options = replace(options, gpus=spec.gpus, partition=spec.partition)
    if not change.number:
        return replace(options, **change.choices)
    others = [each for each in options.settings or () if named(each) != named(change.number)]
    return replace(options, settings=[*others, change.number])


def wanted(
    options: SimulateOptions,
) -> tuple[Machine, str, Correction, Calibration | None, Mapping[str, Callable[[], Machine]]]:
    """The machine, the library, their correction, the calibration if that is what it is, and the
    machine without each option that changes it.

    Raises:
        AlexsimError: an option is not allowed, or changes nothing.
    """
    from functools import partial

    from alexsim.costs.correction import scatter
    from alexsim.costs.libraries import load_library
    from alexsim.costs.measured import default_path, machine_of, read
    from alexsim.explore.sweep import machine_with
    from alexsim.machine.link import load_link
    from alexsim.machine.machine import number_of
    from alexsim.simulate.simulator import default_library

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
        return sheet, chosen, _correction(chosen, options.given), None, others
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
        "--given": options.given,
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


def _correction(library: str, rows: str) -> Correction:
    """What is shipped for a library, conditioned on the rows of a table if one is named.

    Raises:
        AlexsimError: the table cannot condition it.
    """
    from alexsim.costs.correction import correction_of

    shipped = correction_of(library)
    if not rows:
        return shipped
    if library == "roofline":
        raise AlexsimError("--given conditions a fit; --library roofline has none")
    from alexsim.fidelity.given import given

    return given(rows, shipped).correction


def before_given(rows: str, case: Case, result: Simulation) -> Simulation | None:
    """The step by the shipped fit alone; None where no rows were given.

    Raises:
        AlexsimError: the rows change nothing.
    """
    if not rows:
        return None
    from alexsim.costs.correction import load_correction

    before = case.simulated(timer=replace(case.timer, correction=load_correction()))
    if before.step_s == result.step_s:
        raise AlexsimError(f"--given {rows} changes no figure here; leave it out")
    return before

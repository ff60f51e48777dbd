"""Axes of a sweep: their names and values, every combination, and whether each has an effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial

from alexsim.costs.libraries import library_names, load_library
from alexsim.costs.precision import STEP_PRECISIONS
from alexsim.editions.load import as_written, load_network
from alexsim.errors import AlexsimError, known_as, unknown
from alexsim.explore.pareto import Point
from alexsim.explore.sweep import AXES, number, point_of, whole
from alexsim.machine.counted import as_written as machine_as_written
from alexsim.machine.link import link_names, load_link
from alexsim.machine.machine import (
    NUMBERS,
    changed,
    load_machine,
    number_of,
)
from alexsim.machine.sheet import in_si
from alexsim.network.update_rules import OPTIMIZERS
from alexsim.plan.choices import PARTITIONS, POLICIES, SCHEDULES, TRANSPORTS


def parse_axes(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``batch=64,128`` and so on; an axis may also be any number of the machine.

    Raises:
        AlexsimError: an axis is malformed, unknown or given twice, or one of its values is.
    """
    axes: dict[str, tuple[str, ...]] = {}
    for text in given:
        name, equals, values = text.partition("=")
        listed = tuple(value.strip() for value in values.split(","))
        if not equals or not all(listed):
            raise AlexsimError(f"--axis must be NAME=VALUE,VALUE,...; got {text!r}")
        name = known_as(name, AXES) or name
        if in_si(name, 1)[0] in {in_si(other, 1)[0] for other in axes}:
            raise AlexsimError(f"--axis {name} is given twice")
        if name not in AXES and "." not in name and name not in NUMBERS:
            known = (*AXES, "device.clock_mhz and other numbers of the machine")
            raise AlexsimError(f"--axis: {unknown('axis', name, known)}")
        axes[name] = tuple(_WRITTEN.get(name, str)(value) for value in listed)
    return axes


def choice_of(name: str, text: str) -> int | str:
    """A value of an axis that is no number of the machine: a count, or a word as lists have it.

    Raises:
        AlexsimError: it is not allowed.
    """
    meant = _VALUES[name](text)
    return meant if isinstance(meant, int) else _WRITTEN.get(name, str)(text)


def listed(name: str, given: str) -> tuple[str, ...]:
    """Values of an option between commas, checked; none if nothing was given.

    Raises:
        AlexsimError: one is not allowed, or stands there twice.
    """
    values: list[str] = []
    for text in given.split(",") if given else ():
        try:
            value = str(choice_of(name, text.strip()))
        except AlexsimError as error:
            raise AlexsimError(f"--{name}: {error}") from error
        if value in values:
            raise AlexsimError(f"--{name}: {value} is given twice")
        values.append(value)
    return tuple(values)


def check_axes(axes: Mapping[str, tuple[str, ...]], machine: str) -> None:
    """Check every value before anything is simulated.

    Args:
        axes: names and values, as ``parse_axes`` has them.
        machine: the machine where no axis names any.

    Raises:
        AlexsimError: a value is not allowed, or stands there twice. A number that only some of
            the machines have is refused by the others.
    """
    for name, values in axes.items():
        try:
            if name in AXES:
                meant: list[object] = [_VALUES[name](value) for value in values]
            else:
                meant = [number(name, value) for value in values]
                _settable(name, values, axes, machine)
        except AlexsimError as error:
            raise AlexsimError(f"--axis {name}: {error}") from error
        for earlier, value in itertools.combinations(range(len(values)), 2):
            if meant[earlier] == meant[value]:
                raise AlexsimError(f"--axis {name}: {values[value]} is given twice")


def _settable(
    name: str, values: tuple[str, ...], axes: Mapping[str, tuple[str, ...]], machine: str
) -> None:
    """Whether one of the machines takes these numbers."""
    refused: AlexsimError | None = None
    for each in axes.get("machine", (machine,)):
        for network in axes.get("network", ("",)):
            try:
                for value in values:
                    changed(load_machine(each, "", network), {name: number(name, value)})
            except AlexsimError as error:
                refused = error
            else:
                return
    if refused:
        raise refused


def fixed_choices(choices: Mapping[str, str], axes: Container[str]) -> dict[str, str]:
    """Check the choices that no axis makes.

    Raises:
        AlexsimError: one is not allowed; several between commas are what an axis is for.
    """
    for name, text in choices.items():
        if name in axes:
            continue
        try:
            choice_of(name, text)
        except AlexsimError as error:
            meant = f"--{name} takes one, several are an axis: -a {name}={text}"
            raise AlexsimError(meant if "," in text else f"--{name}: {error}") from error
    return dict(choices)


def combinations(
    axes: Mapping[str, tuple[str, ...]], fixed: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """Every combination of the axes' values, the last axis fastest."""
    for values in itertools.product(*axes.values()):
        yield {**fixed, **dict(zip(axes, values, strict=True))}


def idle_axis(
    points: Sequence[Point], axes: Mapping[str, tuple[str, ...]], *, images: int, epochs: int
) -> str:
    """An axis that changes no figure of any combination; empty if there is none.

    Networks, machines and libraries are what is compared: two may well be alike.
    """
    for axis, values in axes.items():
        if axis in ("net", "machine", "library"):
            continue
        alike: dict[tuple[tuple[str, str], ...], set[str]] = {}
        for point in points:
            rest = tuple((k, v) for k, v in point.settings.items() if k != axis)
            alike.setdefault(rest, set()).add(point.error or point.figures)
        if any(len(figures) > 1 for figures in alike.values()):
            continue
        if len(values) > 1:
            return axis
        others = ((point, _without(axis, dict(point.settings))) for point in points)
        if all(
            other is not None and point_of(other, images, epochs).figures == point.figures
            for point, other in others
        ):
            return axis
    return ""


_ALWAYS = ("batch", "gpus", "link", "partition", "replicas", "data-path")
"""Every step depends on these."""


def _without(axis: str, settings: dict[str, str]) -> dict[str, str] | None:
    """The settings with the axis's other choice or none; None where the choice is the default."""
    given = settings.pop(axis)
    if axis == "transport":
        return settings | {axis: "peer" if given == "host" else "host"}
    if axis in _ALWAYS or given in ("serial", "as-released", "fp32"):
        return None
    if axis not in AXES:
        network = settings.get("network", "")
        machine = load_machine(settings["machine"], settings.get("link", ""), network)
        if number_of(machine, axis) == number(axis, given):
            return None
    return settings


def _one_of(name: str, *allowed: str) -> Callable[[str], str]:
    def check(given: str) -> str:
        if given not in allowed:
            raise AlexsimError(f"{name} must be one of {', '.join(allowed)}; got {given!r}")
        return given

    return check


def _predictable(name: str) -> str:
    library = load_library(name).name
    if library == "measured":
        raise AlexsimError("measured is this machine's own: `alexsim simulate --library measured`")
    return library


def _known_by(names: Callable[[], tuple[str, ...]]) -> Callable[[str], str]:
    return lambda given: known_as(given, names()) or given


_WRITTEN: dict[str, Callable[[str], str]] = {
    "net": as_written,
    "machine": machine_as_written,
    "link": _known_by(link_names),
    "network": _known_by(link_names),
    "library": _known_by(library_names),
}
"""How lists have the values of axes that are names."""
_VALUES: dict[str, Callable[[str], object]] = {
    "net": load_network,
    "batch": partial(whole, "batch"),
    "gpus": partial(whole, "gpus"),
    "machine": load_machine,
    "link": load_link,
    "network": load_link,
    "library": _predictable,
    "partition": _one_of("partition", *PARTITIONS),
    "replicas": partial(whole, "replicas"),
    "schedule": _one_of("schedule", *SCHEDULES),
    "transport": _one_of("transport", *TRANSPORTS),
    "policy": _one_of("policy", *POLICIES),
    "optimizer": _one_of("optimizer", *OPTIMIZERS),
    "precision": _one_of("precision", *STEP_PRECISIONS),
    "data-path": _one_of("data-path", "jpeg", "none"),
}
"""What each axis's values mean; equal values are the same twice."""

"""Many configurations: axes of values, every combination simulated."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import cast

from alexsim.costs.correction import correction_of
from alexsim.costs.libraries import load_library
from alexsim.costs.precision import StepPrecision, plan_precision
from alexsim.editions.load import load_network
from alexsim.errors import AlexsimError
from alexsim.explore.pareto import Point, with_pareto
from alexsim.machine.machine import Machine, changed, load_machine
from alexsim.machine.sheet import in_si, unit_of
from alexsim.network.update_rules import Optimizer
from alexsim.plan.asked import gpus_and_partition
from alexsim.plan.choices import Partition, Policy, Schedule, TransportName
from alexsim.plan.spec import PlanSpec
from alexsim.simulate.simulation import Simulation
from alexsim.simulate.simulator import default_library, simulate_network
from alexsim.simulate.timer import DataPath, Timer, timer_of
from alexsim.spawn import SPAWN, killed_on_error, uninterrupted
from alexsim.units import parse_bytes

AXES = (
    "net", "batch", "gpus", "machine", "link", "network", "library", "partition", "replicas",
    "schedule", "transport", "policy", "optimizer", "precision", "data-path",
)  # fmt: skip
_ALONE = 200
"""Configurations that are simulated faster than a worker starts."""


def sweep(
    settings: Sequence[Mapping[str, str]],
    *,
    images: int,
    epochs: int,
    workers: int | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> tuple[Point, ...]:
    """Simulate every configuration, in order; on several cores where there are many.

    ``done`` gets how many are finished. A configuration that makes no sense has its error in its
    point; the others go on.
    """
    workers = workers or min(len(os.sched_getaffinity(0)), 1 + len(settings) // _ALONE)
    jobs = [(dict(setting), images, epochs) for setting in settings]
    if workers < 2:
        points = []
        for job in jobs:
            points.append(point_of(*job))
            done(len(points))
        return with_pareto(points)
    points = []
    with killed_on_error(ProcessPoolExecutor(workers, mp_context=SPAWN)) as pool:
        with uninterrupted():
            simulated = pool.map(_point, jobs, chunksize=25)
        for point in simulated:
            points.append(point)
            done(len(points))
    return with_pareto(points)


def _point(job: tuple[dict[str, str], int, int]) -> Point:
    return point_of(*job)


def point_of(settings: dict[str, str], images: int, epochs: int) -> Point:
    """One configuration simulated, or why it cannot be."""
    try:
        return _simulated(settings, images, epochs)
    except AlexsimError as error:
        return Point(settings=settings, error=str(error))


@lru_cache(maxsize=512)
def _machine(name: str, link: str, network: str, numbers: tuple[tuple[str, str], ...]) -> Machine:
    return changed(
        load_machine(name, link, network), {key: number(key, text) for key, text in numbers}
    )


def machine_with(name: str, link: str, network: str, settings: list[str]) -> Machine:
    """A machine with numbers that were set, each as ``--set`` has it: ``device.clock_mhz=1700``.

    Raises:
        AlexsimError: the name, the link or a setting is not allowed.
    """
    numbers: dict[str, float] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise AlexsimError(f"--set must be KEY=NUMBER, got {text!r}")
        if in_si(key, 1)[0] in {in_si(other, 1)[0] for other in numbers}:
            raise AlexsimError(f"--set {key} is given twice")
        numbers[key] = number(key, value)
    return changed(load_machine(name, link, network), numbers)


def configuration_of(settings: Mapping[str, str]) -> tuple[PlanSpec, Timer]:
    """What a configuration plans, and what times it.

    Raises:
        AlexsimError: two of its choices do not go together.
    """
    numbers = tuple((key, text) for key, text in settings.items() if key not in AXES)
    machine = _machine(
        settings["machine"], settings.get("link", ""), settings.get("network", ""), numbers
    )
    named = settings.get("library")
    library = load_library(named).name if named else default_library(machine)
    precision = cast("StepPrecision", settings.get("precision", "fp32"))
    network = load_network(settings["net"])
    gpus, replicas = settings.get("gpus"), whole("replicas", settings.get("replicas", "1"))
    # Planning refuses words that are not among these types' values.
    devices, partition = gpus_and_partition(
        network,
        gpus=whole("gpus", gpus) if gpus else None,
        partition=cast("Partition | None", settings.get("partition")),
        replicas=replicas,
        machine=settings["machine"],
    )
    spec = PlanSpec(
        network=network,
        gpus=devices,
        partition=partition,
        replicas=replicas,
        batch_size=whole("batch", settings.get("batch", "128")),
        schedule=cast("Schedule", settings.get("schedule", "serial")),
        transport=cast("TransportName", settings.get("transport", "")),
        policy=cast("Policy", settings.get("policy", "as-released")),
        optimizer=cast("Optimizer", settings.get("optimizer", "sgd-2012")),
        precision=plan_precision(precision),
    )
    return spec, timer_of(library, machine, correction_of(library), precision)


def _simulated(settings: dict[str, str], images: int, epochs: int) -> Point:
    spec, timer = configuration_of(settings)
    data = cast("DataPath", settings.get("data-path", "jpeg"))
    simulation = simulate_network(spec, timer, data=data)
    memory_bytes = max(device.memory_bytes for device in simulation.devices)
    days = simulation.training_days(images, epochs)
    return Point(
        settings=settings,
        gpus=simulation.devices_count,
        partition=simulation.partition,
        step_s=simulation.step_s,
        low_s=simulation.step_interval.low,
        high_s=simulation.step_interval.high,
        images_per_s=simulation.images_per_s,
        training_days=days,
        utilisation=simulation.utilisation,
        utilisation_counts=simulation.utilisation_counts,
        memory_bytes=memory_bytes,
        device_memory_bytes=simulation.device_memory_bytes,
        fits=simulation.fits,
        energy_kwh=days * 24 * simulation.power_w / 1e3,
        price_usd=simulation.price_usd,
        figures=_figures(simulation),
    )


def _figures(simulation: Simulation) -> str:
    """Digest of all figures that a choice can change, the same in every process."""
    figures = [getattr(simulation, name) for name in _DIGESTED]
    return hashlib.sha1(repr(figures).encode(), usedforsecurity=False).hexdigest()


_DIGESTED = (
    "step_interval", "step_without_data_s", "data_path", "all_reduce_s", "devices", "exchanges",
    "layers", "partition", "device_memory_bytes", "power_w", "price_usd",
)  # fmt: skip


def number(key: str, text: str) -> float:
    """A number of a machine: plain, in the unit that its key names; of bytes also ``3GB``.

    Raises:
        AlexsimError: it is neither, or it is not finite or negative.
    """
    try:
        value = float(text)
    except ValueError:
        value = _size(key, text)
    if not 0 <= value < float("inf"):
        raise AlexsimError(f"{key} must be finite and not negative, got {text}")
    return value


def _size(key: str, text: str) -> float:
    """A size with its unit, for numbers of bytes."""
    unit = unit_of(key)
    if unit != "bytes":
        of_unit = f" of {unit}" if unit else ""
        raise AlexsimError(f"{key} takes a plain number{of_unit}, without a unit; got {text!r}")
    try:
        return float(parse_bytes(text))
    except AlexsimError as error:
        raise AlexsimError(f"{key}: {error}") from error


def whole(name: str, text: str) -> int:
    """A positive whole number.

    Raises:
        AlexsimError: it is not.
    """
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise AlexsimError(f"{name} must be a positive whole number, got {text!r}")
    return int(text)

"""From what a user typed to the choices that the plan knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from alexsim.errors import AlexsimError, known_as, unknown

if TYPE_CHECKING:
    from alexsim.data.augmentation import Augmentation, Normalisation
    from alexsim.network.network import Network
    from alexsim.network.update_rules import Optimizer
    from alexsim.plan.spec import Partition, PlanSpec, Policy, Schedule
    from alexsim.simulate.costs.records import Precision
    from alexsim.simulate.tasks import DataPath

_Choice = TypeVar("_Choice", bound=str)


def choice(option: str, given: str, allowed: tuple[_Choice, ...]) -> _Choice:
    """The allowed word that was given.

    Raises:
        AlexsimError: it is none of them.
    """
    for word in allowed:
        if word == given:
            return word
    raise AlexsimError(f"{option} must be one of {', '.join(filter(None, allowed))}; got {given!r}")


def as_policy(given: str) -> Policy:
    """A memory policy."""
    from alexsim.plan.spec import POLICIES

    return choice("--policy", given, POLICIES)


def as_schedule(given: str) -> Schedule:
    """A schedule."""
    from alexsim.plan.spec import SCHEDULES

    return choice("--schedule", given, SCHEDULES)


def as_optimizer(given: str) -> Optimizer:
    """An update rule."""
    from alexsim.network.update_rules import OPTIMIZERS

    return choice("--optimizer", given, OPTIMIZERS)


def as_partition(given: str) -> Partition:
    """A partition that can be run; replicas of it have an option of their own."""
    allowed: tuple[Partition, ...] = ("columns", "hybrid")
    return choice("--partition", given, allowed)


def fused(given: bool | None, spec: PlanSpec) -> PlanSpec:
    """The spec with its layers fused, if that was asked for, or is usual with its other choices.

    Raises:
        AlexsimError: it was asked for, and there is nothing to fuse; or not to, and nothing is.
    """
    from dataclasses import replace

    from alexsim.plan.planner import plan

    usual = spec.backend == "triton" and spec.policy == "reuse"
    if given is False and not usual:
        raise AlexsimError(
            "--no-fuse is for --backend triton with --policy reuse: elsewhere no layers are fused"
        )
    if given and not any(op.epilogue for op in plan(replace(spec, fusion="kernels")).ops()):
        kernels = f"of backend {spec.backend} " if spec.backend else ""
        raise AlexsimError(f"--fuse: no kernel {kernels}does two layers of {spec.network.name}")
    return replace(spec, fusion="kernels") if given or (usual and given is None) else spec


def undone(spec: PlanSpec, *names: str, **usual: str) -> dict[str, PlanSpec]:
    """By option, the spec without each of these choices that was made.

    Args:
        spec: what was asked for.
        names: the choices.
        usual: what is used unless an option says so, where that is not the spec's default.
    """
    from dataclasses import fields, replace

    defaults = {field.name: field.default for field in fields(spec)} | usual
    found = {}
    for name in names:
        given = getattr(spec, name)
        if given != defaults[name]:
            option = "--fuse" if name == "fusion" else f"--{name.replace('_', '-')}"
            value = f" {given}" if isinstance(given, str) and name != "fusion" else ""
            found[option + value] = replace(spec, **{name: defaults[name]})  # type: ignore[arg-type]
    return found


def budget_of(mem_cap: str | None, usable: float) -> int:
    """Bytes of a GPU's memory: those given, or what is usable of the device.

    Raises:
        AlexsimError: it is no size.
    """
    from alexsim.units import parse_bytes

    if mem_cap is None:
        return int(usable)
    try:
        return parse_bytes(mem_cap)
    except AlexsimError as error:
        raise AlexsimError(f"--mem-cap: {error}") from error


def as_precision(given: str) -> Precision:
    """A precision of products."""
    from alexsim.simulate.costs.records import PRECISIONS

    return choice("--precision", given, PRECISIONS)


def as_data_path(given: str) -> DataPath:
    """Whether images are read and decoded beside the step."""
    allowed: tuple[DataPath, ...] = ("jpeg", "none")
    return choice("--data-path", given, allowed)


def as_augmentation(given: str) -> Augmentation:
    """A way to crop, mirror and colour."""
    allowed: tuple[Augmentation, ...] = ("2012", "paper")
    return choice("--augment", given, allowed)


def as_normalisation(given: str) -> Normalisation:
    """A way to normalise pixels."""
    allowed: tuple[Normalisation, ...] = ("mean-image", "channels")
    return choice("--normalise", given, allowed)


def trainable(train_only: str, network: Network) -> frozenset[str] | None:
    """Layers that learn, from ``fc7,fc8``; None, which is all, from nothing.

    Raises:
        AlexsimError: no layer with weights is named so.
    """
    if not train_only:
        return None
    return frozenset(
        layer("--train-only", name, network.weighted_layers) for name in train_only.split(",")
    )


def layer(option: str, given: str, names: tuple[str, ...]) -> str:
    """The layer of that name, in whatever case it was given.

    Raises:
        AlexsimError: there is none.
    """
    if (written := known_as(given, names)) is None:
        raise AlexsimError(f"{option}: {unknown('layer', given, names)}")
    return written


MOST_AT_ONCE = 1024
"""Threads and processes that may be asked for."""


def positive(option: str, value: float, *, most: float = 2**53) -> None:
    """Refuse a number below 1 or above ``most``, or one that is none.

    Raises:
        AlexsimError: it is.
    """
    if not value >= 1:
        raise AlexsimError(f"{option} must be at least 1, got {value}")
    if value > most:
        raise AlexsimError(f"{option} must be at most {most:,}, got {value}")


def whole_numbers(option: str, given: str) -> list[int]:
    """Positive whole numbers between commas, each once.

    Raises:
        AlexsimError: one of them is none.
    """
    from alexsim.simulate.sweep import whole

    return list(dict.fromkeys(whole(option, text.strip()) for text in given.split(",")))


def above_zero(option: str, value: float) -> None:
    """Refuse what is no finite positive number.

    Raises:
        AlexsimError: it is none.
    """
    if not 0 < value < float("inf"):
        raise AlexsimError(f"{option} must be positive, got {value:g}")

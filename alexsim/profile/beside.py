"""PyTorch's step of the same module and minibatch, beside ours. No torch in here.

Times are compared by group: a module that was called, and of ours the layers named after it. What
a module computes outside its children (``layer1.0.add``) is the module's; what stands in no module
that was called is the whole's, whose name is empty.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alexsim.errors import AlexsimError
from alexsim.network.network import Network
from alexsim.plan.plan import Plan
from alexsim.profile.step_profile import (
    EagerStep,
    LayerProfile,
    ModuleTimes,
    PassTimes,
    StepProfile,
)

_AGAIN = re.compile(r"(:\d+)?'*$")
"""Of a layer's name: which call of several it is, or that it shows another's output again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A module beside the layers named after it."""

    name: str
    layers: tuple[str, ...]
    eager: PassTimes
    ours: PassTimes | None
    """None where no layer is named after it."""

    @property
    def ratio(self) -> float | None:
        """Eager's time over ours."""
        return self.eager.all_s / self.ours.all_s if self.ours and self.ours.all_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two steps by group. Groups, cost, update and rest add up to each."""

    groups: tuple[Group, ...]
    loss: tuple[float, float]
    """Seconds of ours, and of eager PyTorch's."""
    update: tuple[float, float]
    rest: tuple[float, float]
    """Of ours, transfers and what lies between ops; of eager's, containers that only call others,
    and what medians of parts leave of the median step."""
    step: tuple[float, float]
    """Timed."""


def is_wanted(network: Network, name: str, *, without: bool, note: Callable[[str], None]) -> bool:
    """Whether a network is measured beside the PyTorch module that it was made of.

    Args:
        network: of that name.
        name: as it was given.
        without: it was asked not to be.
        note: gets a line where there is a module, but it computes something else.

    Raises:
        AlexsimError: that was asked for, and there is no module anyway.
    """
    if network.module is None:
        if without:
            raise AlexsimError(f"--no-beside: {network.name} was made of no PyTorch module")
        return False
    if "+" in name.rpartition(".py:")[2]:
        note(f"not beside PyTorch: {network.name} is not what its module computes")
        return False
    return not without


def group_of(layer: str, modules: Mapping[str, str]) -> str:
    """The innermost module after which a layer is named.

    Args:
        layer: ``layer1.0.conv1``, ``layer1.0.relu:2``, ``layer1.0.add``.
        modules: by each name of those that were called, the first.
    """
    name = _AGAIN.sub("", layer)
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return modules.get(name, "")


def groups_of(plan: Plan, eager: EagerStep) -> dict[str, str]:
    """By layer, its group: of layers that are one op, the first's, and so of their modules."""
    modules = {alias: module.name for module in eager.modules for alias in module.aliases}
    costs = {head.name for head in plan.network.heads}
    groups = {
        layer.name: group_of(layer.name, modules)
        for layer in plan.network.layers
        if layer.name not in costs
    }
    for op in plan.ops():
        if op.epilogue and groups[op.epilogue] != groups[op.layer]:
            joined, kept = groups[op.epilogue], groups[op.layer]
            groups = {name: kept if group == joined else group for name, group in groups.items()}
    return groups


def compared(profile: StepProfile) -> Comparison | None:
    """Every layer and every module in one group, the cost, the update, and the rest.

    None where no PyTorch module was measured.
    """
    if profile.beside is None:
        return None
    plan, layers, eager = profile.plan, profile.layers, profile.beside.eager
    group_by_layer = groups_of(plan, eager)
    modules = {alias: module.name for module in eager.modules for alias in module.aliases}
    # A module all of whose layers went to another's group goes there too.
    group_by_module = {module.name: module.name for module in eager.modules}
    for layer, group in group_by_layer.items():
        group_by_module[group_of(layer, modules)] = group
    ours: dict[str, list[LayerProfile]] = {}
    for layer_profile in layers:
        if layer_profile.name in group_by_layer:
            ours.setdefault(group_by_layer[layer_profile.name], []).append(layer_profile)
    theirs: dict[str, list[ModuleTimes]] = {}
    for module in eager.modules:
        if module.works or group_by_module[module.name] in ours:
            theirs.setdefault(group_by_module[module.name], []).append(module)
    groups = tuple(
        Group(
            name=name,
            layers=tuple(layer.name for layer in ours.get(name, ())),
            eager=PassTimes(
                forward_s=sum(module.eager.forward_s for module in theirs.get(name, ())),
                backward_s=sum(module.eager.backward_s for module in theirs.get(name, ())),
            ),
            ours=PassTimes(
                forward_s=_seconds(ours[name], "forward"),
                backward_s=_seconds(ours[name], "grad_input", "grad_weight"),
            )
            if name in ours
            else None,
        )
        for name in dict.fromkeys((*theirs, *ours))
    )
    heads = {head.name for head in plan.network.heads}
    costs = [layer for layer in layers if layer.name in heads]
    loss = (_seconds(costs, "forward", "grad_input", "grad_weight"), eager.loss_s)
    update = (_seconds(layers, "update"), eager.update_s)
    step = (profile.timed.median_s, eager.timed.median_s)
    sums = (
        sum(group.ours.all_s for group in groups if group.ours),
        sum(group.eager.all_s for group in groups),
    )
    return Comparison(
        groups=groups,
        loss=loss,
        update=update,
        rest=(
            step[0] - sums[0] - loss[0] - update[0],
            step[1] - sums[1] - loss[1] - update[1],
        ),
        step=step,
    )


def _seconds(layers: Sequence[LayerProfile], *names: str) -> float:
    """Medians of these passes."""
    return sum(
        pass_.measured.median_s for layer in layers for pass_ in layer.passes if pass_.name in names
    )

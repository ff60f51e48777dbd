"""Weights, biases and an update rule's state as checkpoints know them, and what holds them.

Several buffers are copies of one tensor, or, where it is split, its rows one after another. So a
hybrid plan's checkpoint is that of the network before it was split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alexsim.network.network import Network
from alexsim.network.part import Part, letter
from alexsim.network.update_rules import RULES, UPDATES
from alexsim.plan.placement import parameter
from alexsim.plan.plan import DevicePlan, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A buffer that holds a tensor, or rows of it from ``first`` on."""

    device: str
    index: int
    """Place of the device among the plan's."""
    buffer: str
    shape: tuple[int, ...]
    first: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A tensor, and where it is held."""

    shape: tuple[int, ...]
    places: tuple[Held, ...]

    @property
    def needed(self) -> tuple[Held, ...]:
        """Places that together hold all of it: of copies, the first."""
        return self.places[:1] if self.places[0].shape == self.shape else self.places

    def joined(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """All of it, out of the tensors of its buffers; a view where one buffer is enough, else on
        the CPU: the buffers may be of several cards, or have come from another process."""
        parts = [tensors[held.buffer] for held in self.needed]
        return torch.cat([part.cpu() for part in parts]) if len(parts) > 1 else parts[0]

    def spread(self, whole: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy it into those of its buffers that are among ``tensors``."""
        for held in self.places:
            if held.buffer in tensors:
                rows = whole[held.first : held.first + held.shape[0]]
                tensors[held.buffer].copy_(rows)


def stored_parameters(plan: Plan) -> dict[str, Stored]:
    """By saved name: ``conv1.a.weight``, ``conv1.a.weight.momentum`` ..."""
    rule = RULES[plan.spec.optimizer]
    device_of = {column: device for device in plan.devices for column in device.columns}
    stored = {}
    for parts in plan.network.parts:
        if not parts[0].parameters_by_name:
            continue
        layer = parts[0].layer.name
        names = {name: name for name in parts[0].parameters_by_name}
        if layer in plan.spec.trained:
            names |= {f"{p.name}.{kept}": p.name for p in parts[0].trained for kept in rule.state}
            if rule.counts_updates and parts[0].trained:
                names[UPDATES] = ""
        # Columns have separate weights, unless they are parts of a network of one column.
        for columns in [parts] if plan.spec.partition == "hybrid" else [(part,) for part in parts]:
            for name, parameter_name in names.items():
                stored[f"{layer}.{letter(columns[0].column)}.{name}"] = _stored(
                    columns, name, parameter_name, plan.network, device_of
                )
    return stored


def _stored(
    parts: tuple[Part, ...],
    name: str,
    parameter_name: str,
    network: Network,
    device_of: Mapping[int, DevicePlan],
) -> Stored:
    places = []
    for part in parts:
        device = device_of[part.column]
        shape = part.parameters_by_name[parameter_name].shape if parameter_name else (1,)
        places.append(
            Held(
                device=device.name,
                index=device.index,
                buffer=parameter(device.index, part, name),
                shape=shape,
                first=rows_before(network, part) if parameter_name else 0,
            )
        )
    # Where a layer is split, its parts' counts of updates are copies all the same.
    alike = parts[0].copied or not parameter_name
    rows = places[0].shape[0] if alike else sum(held.shape[0] for held in places)
    return Stored(shape=(rows, *places[0].shape[1:]), places=tuple(places))


def rows_before(network: Network, part: Part) -> int:
    """Units of a hybrid network's split layer that columns before this part's have."""
    if not network.copied or part.copied:
        return 0
    parts = network.parts_of(part.layer.name)
    return sum(p.output_shape[0] for p in parts if p.column < part.column)

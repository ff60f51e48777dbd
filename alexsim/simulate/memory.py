"""What a device's memory holds: its plan, its context, and what a hybrid partition changes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from alexsim.network.hybrid import first_split
from alexsim.network.layers import FullyConnected, SoftmaxCrossEntropy
from alexsim.plan.buffers import LABEL_BYTES
from alexsim.plan.records import Buffer, Category
from alexsim.simulate.tasks import TaskList

_SPLIT_BY_UNITS = (
    Category.WEIGHT, Category.MOMENTUM, Category.WEIGHT_GRAD, Category.ACTIVATION,
    Category.ACTIVATION_GRAD, Category.MASK,
)  # fmt: skip
_READ = (Category.ACTIVATION, Category.ACTIVATION_GRAD)


def memory_bytes(listed: TaskList, index: int) -> int:
    """Bytes that one device needs."""
    context = int(listed.timer.machine.device.context_bytes.value)
    split = sum(_split(listed)) if listed.slices > 1 else 0
    return listed.plan.devices[index].total_bytes + context + split


def _split(listed: TaskList) -> Iterator[int]:
    """What a hybrid partition changes for the first device, buffer by buffer.

    From the first fully connected layer on it has a share of the units. What these layers read it
    has of all devices: the features of all in their turns, and the others' outputs.
    """
    plan, slices = listed.plan, listed.slices
    layers = [parts[0] for parts in plan.network.parts]
    first = first_split(plan.network)
    split = {part.layer.name for part in layers[first:-1]}
    read = {
        part.reads[0].layer
        for part in layers[first + 1 :]
        if isinstance(part.layer, FullyConnected | SoftmaxCrossEntropy)
    }
    features = layers[first].reads[0].layer
    yield (slices - 1) * plan.batch_size * LABEL_BYTES
    (device,) = plan.devices
    for buffer in device.buffers:
        if buffer.name not in device.resident:
            continue
        if buffer.layer == features and buffer.category in _READ:
            # Packed by lifetime, the features of one turn lie where those of the last one did.
            yield buffer.size_bytes * (1 if plan.policy == "reuse" else slices - 1)
        if buffer.layer in split and buffer.category in _SPLIT_BY_UNITS:
            others = _others_bytes(buffer, slices)
            yield -others
            if buffer.layer in read and buffer.category in _READ:
                yield others


def _others_bytes(buffer: Buffer, slices: int) -> int:
    """The part of a buffer that belongs to other devices' units."""
    in_rows = buffer.category not in (*_READ, Category.MASK)
    units = buffer.shape[0] if in_rows else buffer.shape[1]
    own = math.ceil(units / slices)
    return buffer.size_bytes * (units - own) // units

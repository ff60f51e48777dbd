"""What a device's memory holds: its plan, its context, and what copies of the plan change."""

from __future__ import annotations

import math

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import FullyConnected
from alexsim.network.network import Part
from alexsim.simulate.tasks import TaskList


def memory_bytes(listed: TaskList, index: int) -> int:
    """Bytes that one device needs."""
    context = int(listed.timer.machine.device.context_bytes.value)
    split = _split(listed) if listed.slices > 1 else 0
    return listed.plan.devices[index].total_bytes + context + split


def _fully_connected(listed: TaskList) -> list[Part]:
    return [
        part
        for parts in listed.plan.network.parts
        for part in parts
        if isinstance(part.layer, FullyConnected)
    ]


def _split(listed: TaskList) -> int:
    """What changes where every device has a slice of the units, for the images of all.

    Weights and momentum shrink to the slice. Outputs stay as large: fewer units, more images. The
    inputs of all images are gathered and kept for the weight gradient; their gradients too, before
    they are summed and sent home, in one buffer that the layers share.
    """
    copies, batch = listed.slices, listed.plan.batch_size
    parts = _fully_connected(listed)
    weights = sum(2 * (p.parameters - math.ceil(p.parameters / copies)) for p in parts)
    others = [(copies - 1) * batch * math.prod(p.input_shape) for p in parts]
    return FLOAT_BYTES * (sum(others) + max(others, default=0) - weights)

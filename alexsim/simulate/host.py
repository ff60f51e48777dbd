"""The data path of a host: files of the size that the network needs are read, decoded, cropped."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from alexsim.machine.machine import Machine
from alexsim.network.part import square_side
from alexsim.plan.plan import Op, Plan
from alexsim.simulate.simulation import ILSVRC_IMAGES, DataPathTimes
from alexsim.trace import Activity, Span

_SIDE = 256
JPEG_BYTES = 27 * 1000**3 / ILSVRC_IMAGES
"""A 256 x 256 JPEG of the 27 GB set."""
HEADER_BYTES = 620
"""JFIF, quantisation and Huffman tables, frame and scan headers (ITU T.81, annexes B and K)."""
DECODE_PER_FILE, CROP_PER_IMAGE = 0.18, 0.07
"""Shares of the cost of a 256 x 256 JPEG, and of its 224 x 224 crop, that any picture costs; the
rest goes with its pixels. Measured: docs/data.md, "By size"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    """A task that is no op: a stage of a host's data path, the host's work to issue an op to its
    device, or a message on its way."""

    id: str
    device: str
    activity: Activity
    exchange: str = ""
    issues: Op | None = None

    def span(self, **when: Any) -> Span:
        """As ``Op.span``."""
        return Span(
            op_id=self.id,
            activity=self.activity,
            exchange=self.exchange,
            layer=self.issues.layer if self.issues else "",
            device=self.device,
            **when,
        )


def data_path_times(machine: Machine, plan: Plan) -> DataPathTimes:
    """Seconds that each stage takes for a batch; every node reads the images of its devices.

    Args:
        machine: its rates are those of crops of ``rates_for`` pixels.
        plan: its devices, and the number and size of a step's images.
    """
    devices = len(plan.devices) * plan.stands_for
    nodes = math.ceil(devices / machine.devices_per_node.value)
    if plan.spec.partition == "columns":
        # Columns work on the same images, in whichever node they are.
        nodes = min(nodes, plan.replicas)
    images = math.ceil(plan.images / nodes)
    crop = plan.network.input_shape[1]
    side, rated = square_side(crop), square_side(machine.rates_for)
    decode = _cost(side, _SIDE, DECODE_PER_FILE) / _cost(rated, _SIDE, DECODE_PER_FILE)
    cropping = _cost(crop, 224, CROP_PER_IMAGE) / _cost(machine.rates_for, 224, CROP_PER_IMAGE)
    file_bytes = HEADER_BYTES + (JPEG_BYTES - HEADER_BYTES) * (side / _SIDE) ** 2
    decoders = machine.decode_workers.value * machine.decode_images_per_s.value
    croppers = machine.crop_workers.value * machine.crop_images_per_s.value
    return DataPathTimes(
        side=side,
        images=plan.images,
        disk_s=images * file_bytes / machine.disk_bytes_per_s.value,
        decode_s=images * decode / decoders,
        crop_s=images * cropping / croppers,
    )


def _cost(side: int, whole_side: int, fixed: float) -> float:
    """Cost of a square image, where an image of ``whole_side`` costs 1."""
    return fixed + (1 - fixed) * (side / whole_side) ** 2

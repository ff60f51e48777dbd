"""What cuDNN may take beside a step's tensors while a convolution runs: an upper end, no figure.

PyTorch takes the first engine that cuDNN's heuristics name and gives it the workspace it asks for,
without a limit (``aten/src/ATen/native/cudnn/Conv_v8.cpp``). Which one that is depends on card and
version, so the bytes are an interval. Its lower end is 0: an implicit product needs next to
nothing. Its upper end is what the hungriest of the algorithms that ``costs/cudnn.py``
models writes to memory, at stride 1 without groups and dilation:

3 x 3       Winograd's F(4x4) "nonfused": 36 values per tile of 4 x 4 outputs and channel, of
            inputs, filters and outputs (Lavin & Gray 2015)
larger      transforms in tiles of 32 x 32: 32 x 17 complex values per tile and channel, of
            the same three (Mathieu et al. 2013)

Both gradients transform tensors of the same sizes.
"""

from __future__ import annotations

from alexsim.ledger.timeline import memory_timeline
from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import Convolution, pair
from alexsim.network.part import Part
from alexsim.plan.plan import PASS_OF, DevicePlan, Plan

_WINOGRAD_OUTPUTS, _WINOGRAD_VALUES = 4, 36
_FFT_SIDE = 32
_FFT_BYTES = 2 * FLOAT_BYTES * _FFT_SIDE * (_FFT_SIDE // 2 + 1)


def workspace_bytes(plan: Plan) -> int:
    """The most by which workspace can raise a device's fullest moment; 0 without convolutions."""
    return max(_of_device(plan, device) for device in plan.devices)


def convolution_bytes(part: Part, images: int) -> int:
    """Upper end for one convolution of that many images."""
    layer = part.layer
    if not isinstance(layer, Convolution):
        return 0
    size = max(pair(layer.size))
    if size == 1 or layer.groups > 1 or {*pair(layer.stride), *pair(layer.dilation)} != {1}:
        return 0
    inputs, (filters, *extents) = part.input_shape[0], part.output_shape
    winograd = pair(layer.size) == (3, 3)
    useful = _WINOGRAD_OUTPUTS if winograd else _FFT_SIDE - size + 1
    if useful < 1:
        return 0
    tiles = images
    for extent in extents:
        tiles *= -(-extent // useful)
    planes = tiles * (inputs + filters) + inputs * filters
    return planes * (_WINOGRAD_VALUES * FLOAT_BYTES if winograd else _FFT_BYTES)


def _of_device(plan: Plan, device: DevicePlan) -> int:
    fullest = with_workspace = 0
    for op, moment in zip(device.ops, memory_timeline(device), strict=True):
        computes = op.kind in PASS_OF and PASS_OF[op.kind] != "update" and op.layer
        taken = convolution_bytes(plan.part(op), plan.batch_size) if computes else 0
        fullest = max(fullest, moment.total_bytes)
        with_workspace = max(with_workspace, moment.total_bytes + taken)
    return with_workspace - fullest

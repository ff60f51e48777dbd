"""The call that a row of a measured kernel timed, in our terms.

A row whose call cannot be predicted has its reason; rules read its conditions, never its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alexsim.costs import im2col
from alexsim.costs.cost import ConvolutionShape, Learned, Precision, launch_s
from alexsim.costs.cudnn import candidates
from alexsim.costs.features import (
    ALGORITHMS,
    STEP,
    convolution_features,
    memory_features,
    product_features,
    product_s,
)
from alexsim.costs.gemm import peak_flop_per_s
from alexsim.fidelity.kernel_fields import (
    Unlike,
    amount,
    device_of,
    extra_of,
    number_of,
    pad_ends,
    precision_of,
    version_of,
)
from alexsim.fidelity.kernel_rows import KernelRow
from alexsim.fidelity.rows import SLOW_IN_HALF, device_named
from alexsim.machine.device import Device
from alexsim.network.counts import FLOAT_BYTES
from alexsim.plan.plan import OpKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a row timed: its mechanism's seconds, what its timer adds, the least time at the peaks,
    and what the trees look at. ``roofline_s`` is the time at the peaks and the launch."""

    row: KernelRow
    device: str
    """Of the sheet."""
    generation: str
    flop: float
    """Of its multiply-adds, two each; 0 where it has none."""
    base_s: float
    overhead_s: float
    least_s: float
    roofline_s: float
    learned: Learned
    reduced: bool
    """Whether precision is less than float32."""


_PASS = {
    "forward": OpKind.FORWARD,
    "grad_input": OpKind.GRAD_INPUT,
    "grad_weight": OpKind.GRAD_WEIGHT,
    "train-step": STEP,
}
_PASSES = (OpKind.FORWARD, OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT)
_STATED = {
    "IMPLICIT_PRECOMP_GEMM": "precomputed", "LICIT_PRECOMP_GEMM": "precomputed",
    "IMPLICIT_GEMM": "implicit", "GEMM": "gemm", "FFT": "fft", "FFT_TILING": "fft-tiled",
    "WINOGRAD": "winograd-2", "WINOGRAD_NONFUSED": "winograd-4", "im2col+GEMM": "im2col",
    "libDNN (fused implicit GEMM)": "libdnn", "DIRECT CONV": "implicit",
    "ConvolutionFwdAlgoDirect": "implicit", "ConvolutionFwdAlgoGEMM": "gemm",
    "ConvolutionFwdAlgoWinograd": "winograd-2", "ConvolutionFwdAlgoFFT": "fft",
    "Intel's own": "implicit", "WINOGRAD F(6x6,3x3)": "winograd-4", "FFT 8x8": "fft-tiled",
    "FFT 16x16": "fft-tiled",
}  # fmt: skip
"""Algorithms as sources name them; a kernel's name may follow behind a colon."""
OVERHEADS: Mapping[str, Mapping[str, float]] = {
    "sitar-lab/NeuSight": {"": 22e-6},
    "CDECatapult/ml-performance-prediction": {"": 150e-6, STEP: 280e-6},
    "ck-caffe": {"conv": 8e-6, "linear": 8e-6, "lrn": 8e-6},
}
"""Seconds that a harness adds to each call, by source (part of its name) and op or pass: its
shortest calls (1st and 2nd percentile, median over its cards) less a launch. Others time loops of
pipelined launches or subtract what they add."""
_UPDATE_PASSES = {"sgd": 3, "momentum": 5, "adagrad": 5, "rmsprop": 5, "adam": 7, "adadelta": 7}
"""Times that an optimizer reads or writes the size of what it updates."""


def call_of(row: KernelRow, *, as_stated: str | None = None) -> Call:
    """The call that a row timed.

    Args:
        row: as printed.
        as_stated: which algorithm ran, of ``STATED``; by default that which the row names.

    Raises:
        Unlike: it cannot be predicted; says why.
    """
    entry = row.entry
    device = device_of(row.device, entry["device_clock_notes"])
    extra = extra_of(entry["extra"])
    if row.precision == "fp16" and device.slow_in_half:
        raise Unlike(f"{SLOW_IN_HALF}: {row.device}")
    made = _MAKERS.get(row.op)
    if made is None:
        raise Unlike(f"no model of the op: {row.op}")
    base_s, least_s, flop, learned = made(row, device, extra, as_stated)
    overhead_s = next(
        (
            seconds.get(row.op, seconds.get(row.passes, seconds.get("", 0.0)))
            if row.passes != "train-step"
            else seconds.get(STEP, seconds.get("", 0.0))
            for source, seconds in OVERHEADS.items()
            if source in row.source
        ),
        0.0,
    )
    return Call(
        row=row,
        device=device_named(row.device),
        generation=device.architecture.generation,
        flop=flop,
        base_s=base_s,
        overhead_s=overhead_s,
        least_s=least_s,
        roofline_s=max(least_s, launch_s(device)),
        learned=learned,
        reduced=precision_of(row) != "fp32",
    )


_Made = tuple[float, float, float, Learned]


def _convolution(
    row: KernelRow, device: Device, extra: dict[str, Any], as_stated: str | None
) -> _Made:
    if row.passes not in _PASS:
        raise Unlike(f"no model of the pass: conv, {row.passes}")
    batch, channels, filters = (number_of(row, c) for c in ("batch", "in_channels", "out_channels"))
    height, width = number_of(row, "height"), number_of(row, "width")
    high, wide = number_of(row, "kernel_h"), number_of(row, "kernel_w")
    groups = number_of(row, "groups") if row.entry["groups"] else 1
    strides = [number_of(row, c) for c in ("stride_h", "stride_w")]
    pads = [number_of(row, c) for c in ("pad_h", "pad_w")]
    if not min(batch, channels, filters, groups, height, width, high, wide, *strides):
        raise Unlike("the filter, its stride or a tensor is empty")
    ends = pad_ends(extra)
    out = [
        (side + 2 * pad + more - size) // stride + 1
        for side, pad, more, size, stride in zip(
            (height, width), pads, ends, (high, wide), strides, strict=True
        )
    ]
    if min(out) < 1:
        raise Unlike("the filter is larger than the padded image")
    shape = ConvolutionShape(
        batch_size=batch,
        groups=groups,
        channels=max(1, channels // groups),
        filters=max(1, filters // groups),
        taps=high * wide,
        size=max(high, wide),
        stride=max(strides),
        inputs=height * width,
        outputs=out[0] * out[1],
        height=height,
        extent=height + 2 * pads[0],
        out_extent=out[0],
    )
    stated = _STATED.get(row.algorithm.partition(":")[0], "")
    if as_stated is not None and stated not in ("im2col", "libdnn"):
        stated = as_stated
    precision, rate = precision_of(row), device.memory_bytes_per_s.value
    least_s, base_s = 0.0, 0.0
    passes = _PASSES if row.passes == "train-step" else (OpKind(_PASS[row.passes]),)
    for kind in passes:
        base_s += _way_s(device, kind, shape, stated, precision)
    item = 2 if precision == "fp16" else FLOAT_BYTES
    weights = shape.groups * shape.filters * shape.depth
    tensors = (shape.input_bytes + shape.output_bytes) / FLOAT_BYTES + weights
    flop = 2.0 * batch * groups * shape.filters * shape.outputs * shape.depth
    if stated in ("", "advised"):
        compute_s = flop / peak_flop_per_s(device, precision)
        least_s = len(passes) * item * tensors / rate
        fast = shape.size > 1 and shape.stride == 1
        least_s = max(least_s, len(passes) * compute_s / (4 if fast else 1))
    if row.passes == "train-step":
        # Its input and target are variables too: they get gradients and updates.
        updated = _UPDATE_PASSES.get(extra.get("opt", ""), 3) + 2
        base_s += updated * FLOAT_BYTES * tensors / rate + 4 * launch_s(device)
    channels_last = row.entry["layout"] == "NHWC" and precision == "fp32"
    if channels_last:
        both = shape.input_bytes + shape.output_bytes
        base_s += len(passes) * (2 * both / rate + 2 * launch_s(device))
    epilogue = (1.0 if extra.get("bias") else 0.0) + (2.0 if extra.get("act") else 0.0)
    if epilogue:
        base_s += 2 * shape.output_bytes / rate + launch_s(device)
    learned = convolution_features(
        device, _PASS[row.passes], shape, (high, wide), base_s=base_s, algorithm=stated,
        version=version_of(row), channels_last=channels_last, epilogue=epilogue,
        precision=precision,
    )  # fmt: skip
    return base_s, least_s, len(passes) * flop, learned


def _way_s(
    device: Device, kind: OpKind, shape: ConvolutionShape, stated: str, precision: Precision
) -> float:
    """Seconds of the stated algorithm's mechanism, or of the fastest where none is."""
    if stated == "im2col":
        return im2col.whole_s(device, kind, shape)
    ways = candidates(device, kind, shape, frozenset(ALGORITHMS), precision)
    name = {"precomputed": "implicit", "libdnn": "implicit", "advised": ""}.get(stated, stated)
    if name and name not in ways:
        # A source's name for what this shape cannot be done by here.
        name = "implicit"
    return ways[name].seconds if name else min(way.seconds for way in ways.values())


def _product(row: KernelRow, device: Device, extra: dict[str, Any], _: str | None) -> _Made:
    precision = precision_of(row)
    if "flops" in extra and not row.entry["m"]:
        # A rate alone, of sizes that are not stated: a large product.
        side = 4096
        base_s = product_s(device, (side, side, side), 1, precision)
        learned = product_features(
            device, OpKind.FORWARD, (side, side, side), op="gemm", base_s=base_s,
            version=version_of(row), precision=precision,
        )  # fmt: skip
        flop = amount(extra, "flops")
        least_s = flop / peak_flop_per_s(device, precision)
        return base_s * flop / (2 * side**3), least_s, flop, learned
    batches = number_of(row, "batch") if row.op == "bmm" else 1
    m, n, k = (number_of(row, column) for column in ("m", "n", "k"))
    if not min(m, n, k, batches):
        raise Unlike("a product without rows, columns or depth")
    # A linear layer's rows are the batch; as BLAS sees it they are the columns.
    forward = (n, m, k) if row.op == "linear" else (m, n, k)
    rows, columns, depth = forward
    sides = {
        "forward": [forward],
        "grad_weight": [(rows, depth, columns)],
        "grad_input": [(depth, columns, rows)],
        "train-step": [forward, (depth, columns, rows), (rows, depth, columns)],
    }.get(row.passes)
    if sides is None:
        raise Unlike(f"no model of the pass: {row.op}, {row.passes}")
    base_s = sum(product_s(device, each, batches, precision) for each in sides)
    rate = device.memory_bytes_per_s.value
    item = 2 if precision == "fp16" else FLOAT_BYTES
    tensors = batches * (rows * depth + depth * columns + rows * columns)
    flop = 2.0 * batches * rows * columns * depth
    peak_s = flop / peak_flop_per_s(device, precision)
    least_s = len(sides) * max(item * tensors / rate, peak_s)
    if row.passes == "train-step":
        updated = _UPDATE_PASSES.get(extra.get("opt", ""), 3) + 2
        base_s += updated * FLOAT_BYTES * tensors / rate + 4 * launch_s(device)
    epilogue = (1.0 if extra.get("bias") else 0.0) + (2.0 if extra.get("act") else 0.0)
    if extra.get("act") or (extra.get("bias") and row.passes == "forward"):
        base_s += 2 * item * rows * columns / rate
    learned = product_features(
        device, _PASS[row.passes], forward if len(sides) > 1 else sides[0], batches, op=row.op,
        base_s=base_s, version=version_of(row), epilogue=epilogue, precision=precision,
    )  # fmt: skip
    return base_s, least_s, len(sides) * flop, learned


_ELEMENTWISE = {
    "relu": ("relu", 2), "clipped_relu": ("relu", 2), "add": ("add", 3), "mul": ("add", 3),
    "div": ("add", 3), "pow": ("transcendental", 3), "div scalar": ("scalar", 2),
    "mul scalar": ("scalar", 2), "add scalar": ("scalar", 2), "pow scalar": ("transcendental", 2),
    "gelu": ("transcendental", 2), "tanh": ("transcendental", 2),
}  # fmt: skip
"""Our op, and times that the tensor is read or written."""
_PASSES_OVER: Mapping[str, Callable[[KernelRow], float]] = {
    "softmax": lambda _: 2,
    "layernorm": lambda _: 2,
    "bias": lambda _: 2,
    "dropout": lambda _: 3,
    "lrn": lambda row: 3 if row.passes == "forward" else 6,
    "batchnorm": lambda row: 3 if "training" in row.passes else 2,
}


def _memory(row: KernelRow, device: Device, _extra: dict[str, Any], _: str | None) -> _Made:
    precision = precision_of(row)
    item = 2 if precision == "fp16" else FLOAT_BYTES
    backward = {"forward": 0.0, "backward": 1.0, "forward (training)": 2.0, "copy": 0.0}
    if row.passes not in backward:
        raise Unlike(f"no model of the pass: {row.op}, {row.passes}")
    batch, channels = number_of(row, "batch"), number_of(row, "in_channels")
    pixels = number_of(row, "height") * number_of(row, "width")
    values, window = batch * channels * pixels, 1.0
    if not values:
        raise Unlike("a tensor without values")
    op, outputs = row.op, values
    if row.op == "elementwise":
        named = _ELEMENTWISE.get(row.algorithm)
        if named is None:
            raise Unlike(f"no model of the op: {row.op} {row.algorithm}")
        op, times = named
        moved = float(times) * values
    elif row.op == "pool":
        size, stride = number_of(row, "kernel_h"), max(1, number_of(row, "stride_h"))
        outputs = max(1, values // stride**2)
        window, moved = float(size * size), float(values + outputs)
        if backward[row.passes]:
            moved = 2.0 * values + outputs
    else:
        moved = values * _PASSES_OVER[row.op](row)
    learned = memory_features(
        device, op, item * moved, float(item * outputs), batch * pixels, channels,
        backward=backward[row.passes], window=window, precision=precision,
    )  # fmt: skip
    return _moved(device, item * moved, learned)


def _moved(device: Device, moved_bytes: float, learned: Learned) -> _Made:
    moved_s = moved_bytes / device.memory_bytes_per_s.value
    # What fits the second-level cache need not cross memory.
    least_s = moved_s if moved_bytes > 4 * device.l2_bytes.value else 0.0
    return max(moved_s, launch_s(device)), least_s, 0.0, learned


def _copy(_row: KernelRow, device: Device, extra: dict[str, Any], _: str | None) -> _Made:
    """Copies within the card's memory, whole arrays at a time."""
    what = str(extra.get("what", "device copy"))
    if not what.startswith("device ") or "host" in what:
        raise Unlike(f"a transfer, not a kernel: {what.partition(',')[0]}")
    moved = amount(extra, "bytes")
    learned = memory_features(device, "copy", moved, moved / 2, moved / FLOAT_BYTES / 1024, 1024)
    return _moved(device, moved, learned)


_MAKERS: Mapping[str, Callable[[KernelRow, Device, dict[str, Any], str | None], _Made]] = {
    "conv": _convolution,
    **dict.fromkeys(("gemm", "linear", "bmm", "gemv"), _product),
    **dict.fromkeys(("elementwise", "pool", *_PASSES_OVER), _memory),
    **dict.fromkeys(("stream", "memcpy"), _copy),
}

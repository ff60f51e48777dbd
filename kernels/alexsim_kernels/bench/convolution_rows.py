"""The passes of a convolution: checked against float64, timed against cuDNN's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from alexsim_kernels import convolution, convolution_weight, reference, tuning
from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.shapes import Convolution
from alexsim_kernels.bench.timing import CARD, Ceilings, distance, images, milliseconds
from alexsim_kernels.common import Config, Precision

LIMITS = {"fp32": 1e-5, "fp32x3": 1e-5, "tf32": 2e-3, "bf16": 2e-2}


def convolution_rows(
    name: str,
    shape: Convolution,
    precision: Precision,
    batch: int,
    peaks: Ceilings | None,
    *,
    tune: bool,
) -> list[Row]:
    """The passes of a convolution; the input gradient of an image's colours is left out."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, dy = images(batch, shape.channels, *shape.extent, dtype=dtype), None
    weight = images(shape.filters, shape.channels // shape.groups, *shape.taps, dtype=dtype)
    bias = torch.randn(shape.filters, device=CARD)
    dy = images(batch, shape.filters, *shape.out, dtype=dtype)
    y, dx = torch.full_like(dy, math.nan), torch.full_like(x, math.nan)
    dweight, dbias = torch.full_like(weight, math.nan).float(), torch.full_like(bias, math.nan)
    options: dict[str, Any] = {
        "stride": shape.stride, "padding": (shape.padding, shape.padding),
        "groups": shape.groups,
    }  # fmt: skip
    window = dict(options)
    options["precision"] = precision
    passes: dict[str, Callable[[Config | None], object]] = {
        "forward": lambda c: convolution.forward(x, weight, bias, y, config=c, **options),
        "grad_weight": lambda c: convolution_weight.grad_weight(
            x, dy, dweight, dbias, config=c, **options
        ),
    }
    if not shape.images_alone:
        passes["grad_input"] = lambda c: convolution.grad_input(dy, weight, dx, config=c, **options)
    if tune:
        for run in passes.values():
            _tune(run, x)
    for run in passes.values():
        run(None)
    checked = min(batch, 8)
    exact = [t.double().requires_grad_() for t in (x[:checked], weight, bias)]
    y_exact = reference.convolution(*exact, size=shape.out, **window)
    y_exact.backward(dy[:checked].double())
    dweight_part, dbias_part = torch.empty_like(dweight), torch.empty_like(dbias)
    convolution_weight.grad_weight(x[:checked], dy[:checked], dweight_part, dbias_part, **options)
    errors = {
        "forward": distance(y[:checked], y_exact.detach()),
        "grad_input": distance(dx[:checked], exact[0].grad) if "grad_input" in passes else 0.0,
        "grad_weight": distance(dweight_part, exact[1].grad),
    }
    assert not any(t.isnan().any() for t in (y, dweight, dbias)), name
    for pass_ in passes:
        assert errors[pass_] < LIMITS[precision], (name, pass_, precision, errors[pass_])
    if peaks is None:
        return [
            Row(op=f"{name} {pass_}", precision=precision, batch=batch, error=errors[pass_])
            for pass_ in passes
        ]
    flop = 2 * shape.multiply_adds(batch)
    others = _cudnn(x, weight, bias, dy, shape, precision)
    rows = []
    for pass_, run in passes.items():
        moved = sum(t.numel() * t.element_size() for t in (x, y, weight))
        floor = max(flop / peaks.flop_per_s[precision], moved / peaks.bytes_per_s)
        median, low, high = milliseconds(lambda run=run: run(None))
        other, other_ms = min(others[pass_].items(), key=lambda item: item[1])
        rows.append(
            Row(
                op=f"{name} {pass_}", precision=precision, batch=batch, error=errors[pass_],
                ours_ms=median, ours_20_ms=low, ours_80_ms=high, other=other,
                other_ms=other_ms, floor_ms=1e3 * floor,
            )
        )  # fmt: skip
    return rows


def _tune(run: Callable[[Config | None], object], like: torch.Tensor) -> None:
    """Time tiles for each product for which the launch calls ``choose``."""
    keys: list[tuning.Key] = []
    original = tuning.choose

    def recording(key: tuning.Key, tensor: torch.Tensor) -> Config:
        keys.append(key)
        return original(key, tensor)

    # Each module has a name of its own for it.
    modules: list[Any] = [convolution, convolution_weight]
    for module in modules:
        module.choose = recording
    try:
        run(None)
    finally:
        for module in modules:
            module.choose = original
    for key in keys:
        tuning.measure(key, like, run, most=6)


def _cudnn(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    dy: torch.Tensor,
    shape: Convolution,
    precision: Precision,
) -> dict[str, dict[str, float]]:
    """PyTorch's convolution at equal precision, in both layouts, cuDNN choosing its algorithm."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    seconds: dict[str, dict[str, float]] = {"forward": {}, "grad_input": {}, "grad_weight": {}}
    (down, across), stride, padding = shape.overhang, shape.stride, shape.padding
    for layout, form in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        # Windows that hang over the edge need a padded copy, which is not timed.
        inputs = F.pad(x, (0, across, 0, down)).contiguous(memory_format=form)
        w, g = weight.contiguous(memory_format=form), dy.contiguous(memory_format=form)
        b = bias.to(x.dtype)

        def backward(*wanted: bool, inputs=inputs, w=w, g=g) -> object:
            return torch.ops.aten.convolution_backward(
                g, inputs, w, [w.shape[0]], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0],
                shape.groups, list(wanted),
            )  # fmt: skip

        runs: dict[str, Callable[[], object]] = {
            "forward": lambda inputs=inputs, w=w, b=b: F.conv2d(
                inputs, w, b, stride, padding, groups=shape.groups
            ),
            "grad_input": lambda backward=backward: backward(True, False, False),
            "grad_weight": lambda backward=backward: backward(False, True, True),
        }
        for pass_, run in runs.items():
            seconds[pass_][f"cuDNN {layout}"] = milliseconds(run)[0]
    return seconds

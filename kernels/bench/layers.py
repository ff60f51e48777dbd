"""Checks, then times, every kernel against PyTorch's, layer by layer: needs a CUDA card.

    python kernels/bench/layers.py --tune --out layers.json

Every figure is a median with the 20 % and 80 % quantiles, beside the floor that arithmetic and
memory set on this card, as measured here. ``--tune`` times tiles first and keeps the best in the
user's cache; ``--check`` compares with float64 and times nothing (also on a CPU, interpreted).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

# First: without a card it has Triton interpret kernels, before Triton is imported.
from card import CARD, PRECISIONS, Ceilings, Row, ceilings, distance, images, milliseconds, where
from torch.nn import functional as F

from alexsim_kernels import (
    convolution,
    convolution_weight,
    norm,
    norm_pool,
    pool,
    reference,
    tuning,
)
from alexsim_kernels.common import Config, Precision

# One column of AlexNet: channels, extent, filters, taps, stride, padding, output extent.
CONVOLUTIONS = {
    "conv1": (3, 224, 48, 11, 4, 0, 55),
    "conv2": (48, 27, 128, 5, 1, 2, 27),
    "conv3": (256, 13, 192, 3, 1, 1, 13),
    "conv4": (192, 13, 192, 3, 1, 1, 13),
    "conv5": (192, 13, 128, 3, 1, 1, 13),
}
LIMITS = {"fp32": 1e-5, "fp32x3": 1e-5, "tf32": 2e-3, "bf16": 2e-2}


def convolution_rows(
    name: str, precision: Precision, batch: int, peaks: Ceilings | None, *, tune: bool
) -> list[Row]:
    """The three passes of a convolution."""
    channels, extent, filters, taps, stride, padding, out = CONVOLUTIONS[name]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    x, dy = images(batch, channels, extent, extent, dtype=dtype), None
    weight = images(filters, channels, taps, taps, dtype=dtype)
    bias = torch.randn(filters, device=CARD)
    dy = images(batch, filters, out, out, dtype=dtype)
    y, dx = torch.full_like(dy, math.nan), torch.full_like(x, math.nan)
    dweight, dbias = torch.full_like(weight, math.nan).float(), torch.full_like(bias, math.nan)
    options: dict[str, Any] = {
        "stride": stride, "padding": (padding, padding), "precision": precision,
    }  # fmt: skip
    passes: dict[str, Callable[[Config | None], object]] = {
        "forward": lambda c: convolution.forward(x, weight, bias, y, config=c, **options),
        "grad_weight": lambda c: convolution_weight.grad_weight(
            x, dy, dweight, dbias, config=c, **options
        ),
    }
    if name != "conv1":
        passes["grad_input"] = lambda c: convolution.grad_input(dy, weight, dx, config=c, **options)
    if tune:
        for run in passes.values():
            _tune(run, x)
    for run in passes.values():
        run(None)
    checked = min(batch, 8)
    exact = [t.double().requires_grad_() for t in (x[:checked], weight, bias)]
    y_exact = reference.convolution(
        *exact, stride=stride, padding=(padding, padding), size=(out, out)
    )
    y_exact.backward(dy[:checked].double())
    dweight_part, dbias_part = torch.empty_like(dweight), torch.empty_like(dbias)
    convolution_weight.grad_weight(x[:checked], dy[:checked], dweight_part, dbias_part, **options)
    errors = {
        "forward": distance(y[:checked], y_exact.detach()),
        "grad_input": distance(dx[:checked], exact[0].grad) if name != "conv1" else 0.0,
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
    flop = 2 * y.numel() * channels * taps * taps
    others = _cudnn(x, weight, bias, dy, (stride, padding, out, extent), precision)
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

    convolution.choose = recording
    try:
        run(None)
    finally:
        convolution.choose = original
    for key in keys:
        tuning.measure(key, like, run, most=6)


def _cudnn(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    dy: torch.Tensor,
    window: tuple[int, int, int, int],
    precision: Precision,
) -> dict[str, dict[str, float]]:
    """PyTorch's convolution at equal precision, in both layouts, cuDNN choosing its algorithm."""
    stride, padding, out, extent = window
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    seconds: dict[str, dict[str, float]] = {"forward": {}, "grad_input": {}, "grad_weight": {}}
    overhang = max(0, (out - 1) * stride + weight.shape[2] - extent - 2 * padding)
    for layout, form in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        # Windows that hang over the edge need a padded copy, which is not timed.
        inputs = F.pad(x, (0, overhang, 0, overhang)).contiguous(memory_format=form)
        w, g = weight.contiguous(memory_format=form), dy.contiguous(memory_format=form)
        b = bias.to(x.dtype)

        def backward(*wanted: bool, inputs=inputs, w=w, g=g) -> object:
            return torch.ops.aten.convolution_backward(
                g, inputs, w, [w.shape[0]], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1,
                list(wanted),
            )  # fmt: skip

        runs: dict[str, Callable[[], object]] = {
            "forward": lambda inputs=inputs, w=w, b=b: F.conv2d(inputs, w, b, stride, padding),
            "grad_input": lambda backward=backward: backward(True, False, False),
            "grad_weight": lambda backward=backward: backward(False, True, True),
        }
        for pass_, run in runs.items():
            seconds[pass_][f"cuDNN {layout}"] = milliseconds(run)[0]
    return seconds


def layer_rows(batch: int, peaks: Ceilings | None) -> list[Row]:
    """Pools and norms in float32."""
    x, dy = images(batch, 48, 55, 55), images(batch, 48, 27, 27)
    y, dx, d = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(x)
    normed, dnormed = torch.empty_like(x), images(batch, 48, 55, 55)
    bits = norm_pool.winners_like(dy, 3)
    window = {"size": 3, "stride": 2}
    constants = {"size": 5, "k": 2.0, "alpha": 2e-5, "beta": 0.75}
    pooling = {"window": 3, "stride": 2}
    x_bytes, y_bytes = x.numel() * 4, dy.numel() * 4
    ours: dict[str, tuple[Callable[[], object], float]] = {
        "pool1 forward": (lambda: pool.forward(x, y, **window), x_bytes + y_bytes),
        "pool1 backward": (
            lambda: pool.backward(x, y, dy, dx, ties="first", **window), 2 * x_bytes + 2 * y_bytes,
        ),
        "norm1 forward": (
            lambda: norm.across_channels_forward(x, normed, d, **constants), 3 * x_bytes,
        ),
        "norm1 backward": (
            lambda: norm.across_channels_backward(x, d, dnormed, dx, **constants), 4 * x_bytes,
        ),
        "norm1 + pool1 forward": (
            lambda: norm_pool.forward(x, y, bits, ties="first", **constants, **pooling),
            x_bytes + 1.5 * y_bytes,
        ),
        "norm1 + pool1 backward": (
            lambda: norm_pool.backward(x, bits, dy, dx, **constants, **pooling),
            2 * x_bytes + 1.5 * y_bytes,
        ),
    }  # fmt: skip
    for run, _ in ours.values():
        run()
    errors = _layer_errors(x, dy, dnormed, (y, normed, d, dx, bits), window, constants)
    if peaks is None:
        return [Row(op=op, precision="fp32", batch=batch, error=errors[op]) for op in ours]
    others = _theirs(x, dy, dnormed)
    rows = []
    for op, (run, moved) in ours.items():
        median, low, high = milliseconds(run)
        other, other_ms = min(others[op].items(), key=lambda item: item[1])
        rows.append(
            Row(
                op=op, precision="fp32", batch=batch, error=errors[op], ours_ms=median,
                ours_20_ms=low, ours_80_ms=high, other=other, other_ms=other_ms,
                floor_ms=1e3 * moved / peaks.bytes_per_s,
            )
        )  # fmt: skip
    return rows


def _layer_errors(
    x: torch.Tensor,
    dy: torch.Tensor,
    dnormed: torch.Tensor,
    results: tuple[torch.Tensor, ...],
    window: dict[str, Any],
    constants: dict[str, Any],
) -> dict[str, float]:
    """Against float64, on the first images of the batch; every result poisoned before."""
    y, normed, d, dx, bits = results
    checked = slice(0, min(len(x), 4))
    leaf = x[checked].double().requires_grad_()
    lrn = reference.norm_across_channels(leaf, **constants)
    pooling = {"window": 3, "stride": 2}
    errors = {}

    def run(op: str, launch: Callable[[], object], into: torch.Tensor, exact: torch.Tensor) -> None:
        into.fill_(math.nan)
        launch()
        errors[op] = distance(into[checked], exact)
        assert errors[op] < 1e-5, (op, errors[op])

    plain = x[checked].double()
    run(
        "pool1 forward",
        lambda: pool.forward(x, y, **window),
        y,
        reference.max_pool(plain, size=(27, 27), **pooling),
    )
    run(
        "pool1 backward",
        lambda: pool.backward(x, y, dy, dx, ties="first", **window),
        dx,
        reference.max_pool_gradient(plain, dy[checked].double(), ties="first", **pooling),
    )
    run(
        "norm1 forward",
        lambda: norm.across_channels_forward(x, normed, d, **constants),
        normed,
        lrn.detach(),
    )
    (exact,) = torch.autograd.grad(lrn, leaf, dnormed[checked].double(), retain_graph=True)
    run(
        "norm1 backward",
        lambda: norm.across_channels_backward(x, d, dnormed, dx, **constants),
        dx,
        exact,
    )
    pooled = reference.max_pool(lrn, size=(27, 27), **pooling)
    run(
        "norm1 + pool1 forward",
        lambda: norm_pool.forward(x, y, bits, ties="first", **constants, **pooling),
        y,
        pooled.detach(),
    )
    (exact,) = torch.autograd.grad(pooled, leaf, dy[checked].double())
    run(
        "norm1 + pool1 backward",
        lambda: norm_pool.backward(x, bits, dy, dx, **constants, **pooling),
        dx,
        exact,
    )
    return errors


def _theirs(
    x: torch.Tensor, dy: torch.Tensor, dnormed: torch.Tensor
) -> dict[str, dict[str, float]]:
    def lrn(t: torch.Tensor) -> torch.Tensor:
        return F.local_response_norm(t, 5, 1e-4, 0.75, 2.0)

    def norm_and_pool(t: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(lrn(t), 3, 2)

    times: dict[str, dict[str, float]] = {}
    for op, function, gradient in (
        ("pool1", lambda t: F.max_pool2d(t, 3, 2), dy),
        ("norm1", lrn, dnormed),
        ("norm1 + pool1", norm_and_pool, dy),
    ):
        forward: dict[str, float] = {}
        backward: dict[str, float] = {}
        torch._dynamo.reset()
        compiled = torch.compile(function, dynamic=False)
        for name, call in (("torch", function), ("compiled", compiled)):
            leaf = x.detach().requires_grad_()
            # As in training: what the backward pass needs is kept.
            forward[name] = milliseconds(lambda call=call, leaf=leaf: call(leaf))[0]
            out = call(leaf)
            backward[name] = milliseconds(
                lambda out=out, leaf=leaf, g=gradient: torch.autograd.grad(
                    out, leaf, g, retain_graph=True
                )
            )[0]
        times[f"{op} forward"], times[f"{op} backward"] = forward, backward
    return times


def main() -> None:
    """Check and time; write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--only", action="append", help="names of convolutions")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    peaks = None if arguments.check else ceilings()
    document = where() | {"ceilings": asdict(peaks) if peaks else None, "rows": []}
    rows: list[Row] = []
    precisions = PRECISIONS if CARD == "cuda" else ("fp32",)

    def keep(more: list[Row]) -> None:
        rows.extend(more)
        document["rows"] += [asdict(row) for row in more]
        if arguments.out:
            arguments.out.write_text(
                json.dumps(document, indent=1, allow_nan=False), encoding="utf-8"
            )
        for row in more:
            print(row.line(timed=peaks is not None), flush=True)

    for batch in arguments.batch or [128, 1024]:
        for name, precision in itertools.product(arguments.only or CONVOLUTIONS, precisions):
            keep(convolution_rows(name, precision, batch, peaks, tune=arguments.tune))
        keep(layer_rows(batch, peaks))
    for precision in precisions if peaks else ():
        ratios = [
            r.other_ms / r.ours_ms for r in rows if r.precision == precision and "conv" in r.op
        ]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        print(f"convolutions, {precision}: {mean:.2f} x cuDNN in geometric mean")


if __name__ == "__main__":
    main()

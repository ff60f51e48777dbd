"""Pools and response norms: checked against float64, timed against PyTorch's and Inductor's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from alexsim_kernels import norm, norm_pool, pool, reference
from alexsim_kernels.bench.row import Row
from alexsim_kernels.bench.timing import Ceilings, distance, images, milliseconds


def layer_rows(batch: int, peaks: Ceilings | None) -> list[Row]:
    """Pools and norms in float32."""
    x, dy = images(batch, 48, 55, 55), images(batch, 48, 27, 27)
    y, dx, d = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(x)
    normed, dnormed = torch.empty_like(x), images(batch, 48, 55, 55)
    bits = norm_pool.winners_like(dy, 3)
    window: dict[str, Any] = {"size": 3, "stride": 2}
    constants: dict[str, Any] = {"size": 5, "k": 2.0, "alpha": 2e-5, "beta": 0.75}
    pooling: dict[str, Any] = {"window": 3, "stride": 2}
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
    pooling: dict[str, Any] = {"window": 3, "stride": 2}
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

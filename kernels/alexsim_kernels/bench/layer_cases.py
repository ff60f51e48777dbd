"""Pools, response norms, fully connected layers, loss, update and dropout, beside PyTorch's.

Sizes are those of one column of AlexNet, or a fraction of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from alexsim_kernels import (
    dropout,
    linear,
    loss,
    norm,
    norm_pool,
    op_names,
    pool,
    reference,
    update,
)
from alexsim_kernels.bench.cases import CHECKED, Case, Run, poisoned, worst
from alexsim_kernels.bench.timing import CARD, compiled, images
from alexsim_kernels.common import Precision

Tensor = torch.Tensor
_Exact = Callable[[], tuple[Tensor, ...]]
_CONSTANTS: dict[str, Any] = {"size": 5, "k": 2.0, "alpha": 2e-5, "beta": 0.75}
_WINDOW, _STRIDE = 3, 2
_POOLING: dict[str, Any] = {"window": _WINDOW, "stride": _STRIDE}
_RATES = (0.9, 5e-4, 1e-2)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the layers are: channels and pixels of images, inputs and units of two layers."""

    channels: int = 48
    extent: int = 55
    linear: tuple[tuple[str, int, int], ...] = (("fc6", 9216, 2048), ("fc8", 4096, 1000))
    classes: int = 1000
    place: str = CARD
    """Where tensors lie; on ``meta`` they have no memory, and kernels are compiled for them."""


SMALL = Sizes(channels=16, extent=9, linear=(("fc6", 40, 24), ("fc8", 24, 10)), classes=10)
"""For an interpreter."""


def _bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def pools_and_norms(batch: int, sizes: Sizes) -> Iterator[Case]:
    """In float32; ``compiled`` is PyTorch's function through Inductor."""
    extent = sizes.extent
    out = (extent - _WINDOW) // _STRIDE + 1
    x, dnormed = (
        images(batch, sizes.channels, extent, extent, place=sizes.place) for _ in range(2)
    )
    dy = images(batch, sizes.channels, out, out, place=sizes.place)
    y, dx, d, normed = (torch.empty_like(t) for t in (dy, x, x, x))
    bits = norm_pool.winners_like(dy, _WINDOW)
    few = slice(0, CHECKED)
    leaf = x[few].double().requires_grad_()
    lrn = reference.norm_across_channels(leaf, **_CONSTANTS)
    pooled = reference.max_pool(lrn, size=(out, out), **_POOLING)
    plain = x[few].double()

    def gradient(of: Tensor, dy: Tensor) -> Tensor:
        return torch.autograd.grad(of, leaf, dy[few].double(), retain_graph=True)[0]

    def check(run: Run, into: Tensor, exact: Callable[[], Tensor]) -> float:
        poisoned(into)
        run()
        if into.isnan().any():
            return float("nan")
        return worst((into[few], exact()))

    def pool_forward() -> None:
        pool.forward(x, y, size=_WINDOW, stride=_STRIDE)

    def pool_backward() -> None:
        pool.backward(x, y, dy, dx, size=_WINDOW, stride=_STRIDE, ties="first")

    def norm_forward() -> None:
        norm.across_channels_forward(x, normed, d, **_CONSTANTS)

    def norm_backward() -> None:
        norm.across_channels_backward(x, d, dnormed, dx, **_CONSTANTS)

    def both_forward() -> None:
        norm_pool.forward(x, y, bits, ties="first", **_CONSTANTS, **_POOLING)

    def both_backward() -> None:
        norm_pool.backward(x, bits, dy, dx, **_CONSTANTS, **_POOLING)

    functions: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
        "pool1": (_pool, dy), "norm1": (_norm, dnormed), "norm1+pool1": (_norm_and_pool, dy),
    }  # fmt: skip
    both = "norm1+pool1"
    size: int = _CONSTANTS["size"]
    of: dict[str, Any] = {"channels": sizes.channels, "extent": (extent, extent)}
    names: dict[str, Callable[[op_names.Pass], str]] = {
        "pool1": lambda p: op_names.pool(p, **of, size=_WINDOW, stride=_STRIDE),
        "norm1": lambda p: op_names.norm(p, window="across", **of, size=size),
        both: lambda p: op_names.norm_pool(p, **of, size=size, window=_WINDOW, stride=_STRIDE),
    }
    for op, pass_, run, into, exact, moved in (
        ("pool1", "forward", pool_forward, y,
         lambda: reference.max_pool(plain, size=(out, out), **_POOLING), _bytes(x, y)),
        ("pool1", "backward", pool_backward, dx,
         lambda: reference.max_pool_gradient(plain, dy[few].double(), ties="first", **_POOLING),
         _bytes(x, y, dy, dx)),
        ("norm1", "forward", norm_forward, normed, lrn.detach, _bytes(x, normed, d)),
        ("norm1", "backward", norm_backward, dx, lambda: gradient(lrn, dnormed),
         _bytes(x, d, dnormed, dx)),
        (both, "forward", both_forward, y, pooled.detach, _bytes(x, y, bits)),
        (both, "backward", both_backward, dx, lambda: gradient(pooled, dy),
         _bytes(x, bits, dy, dx)),
    ):  # fmt: skip
        function, dresult = functions[op]
        named = names[op]("forward" if pass_ == "forward" else "grad_input")
        yield Case(
            name=op_names.row(named, batch),
            op=f"{op} {pass_}", precision="fp32", batch=batch, run=run,
            check=partial(check, run, into, exact), moved_bytes=moved,
            others=partial(_autograd, function, x, dresult, pass_),
        )  # fmt: skip


def _pool(t: Tensor) -> Tensor:
    return F.max_pool2d(t, _WINDOW, _STRIDE)


def _norm(t: Tensor) -> Tensor:
    size = _CONSTANTS["size"]
    return F.local_response_norm(
        t, size, size * _CONSTANTS["alpha"], _CONSTANTS["beta"], _CONSTANTS["k"]
    )


def _norm_and_pool(t: Tensor) -> Tensor:
    return _pool(_norm(t))


def _autograd(
    function: Callable[[Tensor], Tensor], x: Tensor, dy: Tensor, pass_: str
) -> dict[str, Run]:
    """PyTorch's function and what Inductor makes of it; in training, so what backward needs is
    kept."""
    runs: dict[str, Run] = {}
    for name, call in (("PyTorch", function), ("compiled", compiled(function))):
        leaf = x.detach().requires_grad_()
        if pass_ == "forward":
            runs[name] = partial(call, leaf)
        else:
            runs[name] = partial(torch.autograd.grad, call(leaf), leaf, dy, retain_graph=True)
    return runs


def products(batch: int, precision: Precision, sizes: Sizes) -> Iterator[Case]:
    """Fully connected layers, each pass; cuBLAS does the same."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    for name, inputs, units in sizes.linear:
        x, dy, weight = (
            torch.randn(shape, device=sizes.place).to(dtype)
            for shape in ((batch, inputs), (batch, units), (units, inputs))
        )
        bias = torch.randn(units, device=sizes.place)
        y, dx = torch.empty_like(dy), torch.empty_like(x)
        dweight, dbias = torch.empty_like(weight, dtype=torch.float32), torch.empty_like(bias)
        exact_x, exact_dy, exact_weight = (t.double() for t in (x, dy, weight))
        options: dict[str, Any] = {"precision": precision}
        runs: dict[op_names.Pass, tuple[Run, tuple[Tensor, ...], _Exact, Run]] = {
            "forward": (
                partial(linear.forward, x, weight, bias, y, **options), (y,),
                lambda x=exact_x, w=exact_weight, b=bias: (F.linear(x, w, b.double()),),
                partial(F.linear, x, weight, bias.to(dtype)),
            ),
            "grad_input": (
                partial(linear.grad_input, dy, weight, dx, **options), (dx,),
                lambda dy=exact_dy, w=exact_weight: (dy @ w,), partial(torch.mm, dy, weight),
            ),
            "grad_weight": (
                partial(linear.grad_weight, x, dy, dweight, dbias, **options), (dweight, dbias),
                lambda x=exact_x, dy=exact_dy: (dy.t() @ x, dy.sum(0)),
                partial(torch.mm, dy.t(), x),
            ),
        }  # fmt: skip
        for pass_, (run, results, exact, other) in runs.items():
            named = op_names.linear(pass_, inputs=inputs, units=units, precision=precision)
            yield Case(
                name=op_names.row(named, batch), aten="cuBLAS",
                op=f"{name} {pass_}", precision=precision, batch=batch, run=run,
                check=partial(_check, run, results, exact),
                others=partial(_cublas, other, precision),
                flop=2 * batch * inputs * units, moved_bytes=_bytes(x, dy, weight),
            )  # fmt: skip


def _check(run: Run, results: tuple[Tensor, ...], exact: Callable[[], tuple[Tensor, ...]]) -> float:
    poisoned(*results)
    run()
    return worst(*zip(results, exact(), strict=True))


def _cublas(run: Run, precision: Precision) -> dict[str, Run]:
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return {"cuBLAS": run}


def others(batch: int, sizes: Sizes) -> Iterator[Case]:
    """Loss, update and dropout in float32."""
    scores, p, dx = (torch.randn(batch, sizes.classes, device=sizes.place) for _ in range(3))
    labels = torch.randint(sizes.classes, (batch,), device=sizes.place)
    losses, top1, top5 = (torch.empty(batch, device=sizes.place) for _ in range(3))

    def softmax() -> None:
        loss.softmax(scores, p)

    def cross_entropy() -> None:
        loss.cross_entropy(p, labels, losses, top1, top5)

    def backward() -> None:
        loss.backward(p, labels, dx)

    leaf = scores.detach().requires_grad_()

    def exact_gradient() -> tuple[Tensor, ...]:
        exact = scores.double().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(exact, labels), exact)

    def errors() -> tuple[Tensor, ...]:
        exact = scores.double().softmax(1)
        return -exact.gather(1, labels[:, None])[:, 0].log(), *(
            reference.errors(p, labels, best).double() for best in (1, 5)
        )

    softmax()
    rows: tuple[tuple[str, Run, tuple[Tensor, ...], Any, Run, int], ...] = (
        ("softmax", softmax, (p,), lambda: (scores.double().softmax(1),),
         partial(torch.softmax, scores, 1), _bytes(scores, p)),
        ("cross-entropy", cross_entropy, (losses, top1, top5), errors,
         partial(F.cross_entropy, scores, labels, reduction="none"), _bytes(p)),
        ("softmax backward", backward, (dx,), exact_gradient,
         partial(torch.autograd.grad, F.cross_entropy(leaf, labels), leaf, retain_graph=True),
         _bytes(p, dx)),
    )  # fmt: skip
    names = {
        "softmax": op_names.softmax("forward", classes=sizes.classes),
        "cross-entropy": op_names.loss(classes=sizes.classes),
        "softmax backward": op_names.softmax("grad_input", classes=sizes.classes),
    }
    for op, run, results, exact, other, moved in rows:
        yield Case(
            name=op_names.row(names[op], batch),
            op=op, precision="fp32", batch=batch, run=run, moved_bytes=moved,
            check=partial(_check, run, results, exact), others=partial(_named, other),
        )  # fmt: skip
    yield _update(batch, sizes)
    yield _dropout(batch, sizes)


def _named(run: Run) -> dict[str, Run]:
    return {"PyTorch": run}


def _update(batch: int, sizes: Sizes) -> Case:
    _, inputs, units = sizes.linear[0]
    weight, speed, gradient = (torch.randn(units, inputs, device=sizes.place) for _ in range(3))
    constants = torch.tensor(_RATES, device=sizes.place)
    momentum, decay, rate = _RATES

    def run() -> None:
        update.sgd(weight, speed, gradient, constants)

    def check() -> float:
        w, v, g = (t.double() for t in (weight, speed, gradient))
        exact = momentum * v - rate * (decay * w + g)
        run()
        return worst((speed, exact), (weight, w + exact))

    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = gradient
    fused = True if sizes.place == "cuda" else None
    optimiser = torch.optim.SGD([parameter], rate, momentum, weight_decay=decay, fused=fused)
    return Case(
        name=op_names.update(weights=weight.numel()), op="update", precision="fp32",
        batch=batch, run=run, check=check,
        others=partial(_named, optimiser.step), moved_bytes=5 * _bytes(weight),
    )  # fmt: skip


def _dropout(batch: int, sizes: Sizes) -> Case:
    """Its bits are those of Philox by another program: words of NumPy's would be of another
    counter, so they are worked out here."""
    units = sizes.linear[0][2]
    mask, step = (
        torch.empty(batch, units, device=sizes.place),
        torch.tensor([3], device=sizes.place),
    )
    key, rate = (0x1234ABCD, 0x77665544), 0.5

    def run() -> None:
        dropout.keep(mask, step, key, first_unit=0, rate=rate)

    def check() -> float:
        poisoned(mask)
        run()
        exact = reference.dropout_keep(batch, units, step=3, key=key, rate=rate)
        return worst((mask, exact.to(mask.device)))

    return Case(
        name=op_names.row(op_names.dropout(units=units), batch), op="dropout",
        precision="fp32", batch=batch, run=run, check=check,
        others=partial(_named, partial(mask.bernoulli_, rate)), moved_bytes=_bytes(mask),
    )  # fmt: skip

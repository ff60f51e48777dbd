"""What ``cpu.py`` times of AlexNet: every kernel, and what PyTorch has instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn import functional as F

from alexsim_kernels.cpu import convolution, linear, sizes
from alexsim_kernels.cpu.algorithm import PASSES, choose, multiply_adds
from alexsim_kernels.cpu.build import bf16_available
from alexsim_kernels.cpu.sizes import PRECISIONS, Precision
from alexsim_kernels.cpu.tensors import new_scratch
from alexsim_kernels.shapes import ALEXNET, Convolution

Tensor = torch.Tensor
Run = Callable[[], object]

PRODUCTS = {"fc6": (9216, 2048), "fc7": (4096, 2048), "fc8": (4096, 1000)}
CHECKED = 4
"""Images that errors are taken of."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is timed, against what, and the results to compare."""

    op: str
    pass_: str
    ours: Run
    other: Run
    check: Callable[[], float]
    flop: int = 0
    multiplied: int = 0
    algorithm: str = ""
    precision: Precision = "fp32"
    in_float32: Run | None = None
    """The same in float32, where ``ours`` is of bfloat16."""


def images(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def distance(computed: Tensor, exact: Tensor | None) -> float:
    """Norm of the error over that of the exact result; a gradient, say, must be there."""
    assert exact is not None
    return float((computed.double() - exact).norm() / exact.norm())


def convolutions(
    batch: int, layers: dict[str, Convolution] = ALEXNET, *, biased: bool = True
) -> list[Case]:
    cases = []
    for name, layer in layers.items():
        x = images(batch, layer.channels, *layer.extent)
        dy = images(batch, layer.filters, *layer.out)
        weight = images(layer.filters, layer.channels // layer.groups, *layer.taps) * 0.05
        bias = torch.randn(layer.filters) if biased else None
        y, dx, dw = (torch.empty_like(t) for t in (dy, x, weight))
        db = torch.empty(layer.filters) if biased else None
        given: dict[str, Any] = {
            "stride": (layer.stride,) * 2, "padding": (layer.padding,) * 2, "groups": layer.groups,
        }  # fmt: skip
        shape = convolution.shape_of(x, weight, y, **given)
        scratch = {
            p: new_scratch(sizes.convolution(shape, p, threads=torch.get_num_threads()).bytes(4))
            for p in PASSES
            if p != "grad_input" or not layer.images_alone
        }
        down, across = layer.overhang
        wide = F.pad(x, (0, across, 0, down)).contiguous(memory_format=torch.channels_last)
        n = CHECKED

        def exact(
            x: Tensor = x, weight: Tensor = weight, bias: Tensor | None = bias, dy: Tensor = dy,
            layer: Convolution = layer,
        ) -> list[Tensor]:  # fmt: skip
            down, across = layer.overhang
            given = [x[:CHECKED], weight, *([] if bias is None else [bias])]
            inputs = [t.double().requires_grad_() for t in given]
            wide = F.pad(inputs[0], (0, across, 0, down))
            result = F.conv2d(
                wide, inputs[1], inputs[2] if biased else None, stride=layer.stride,
                padding=layer.padding, groups=layer.groups,
            )  # fmt: skip
            result.backward(dy[:CHECKED].double())
            return [result.detach(), *(t.grad for t in inputs if t.grad is not None)]

        def backward(
            which: list[bool], wide: Tensor = wide, weight: Tensor = weight, dy: Tensor = dy,
            layer: Convolution = layer,
        ) -> object:  # fmt: skip
            return torch.ops.aten.convolution_backward(
                dy, wide, weight, [layer.filters] if which[2] else None, [layer.stride] * 2,
                [layer.padding] * 2, [1, 1], False, [0, 0], layer.groups, which,
            )  # fmt: skip

        def check_forward(exact=exact, x=x, w=weight, b=bias, y=y, given=given, n=n) -> float:
            convolution.forward(x[:n], w, b, y[:n], **given)
            return distance(y[:n], exact()[0])

        def check_input(exact=exact, dy=dy, w=weight, dx=dx, given=given, n=n) -> float:
            convolution.grad_input(dy[:n], w, dx[:n], **given)
            return distance(dx[:n], exact()[1])

        def check_weight(exact=exact, x=x, dy=dy, dw=dw, db=db, given=given, n=n) -> float:
            convolution.grad_weight(x[:n], dy[:n], dw, db, **given)
            sums = [dw] if db is None else [dw, db]
            return max(map(distance, sums, exact()[2:]))

        runs: dict[str, tuple[Run, Run, Callable[[], float]]] = {
            "forward": (
                lambda x=x, w=weight, b=bias, y=y, given=given, s=scratch: convolution.forward(
                    x, w, b, y, scratch=s["forward"], **given
                ),
                lambda x=wide, w=weight, b=bias, layer=layer: F.conv2d(
                    x, w, b, layer.stride, layer.padding, groups=layer.groups
                ),
                check_forward,
            ),
            "grad_input": (
                lambda dy=dy, w=weight, dx=dx, given=given, s=scratch: convolution.grad_input(
                    dy, w, dx, scratch=s["grad_input"], **given
                ),
                lambda backward=backward: backward([True, False, False]),
                check_input,
            ),
            "grad_weight": (
                lambda x=x, dy=dy, w=dw, b=db, given=given, s=scratch: convolution.grad_weight(
                    x, dy, w, b, scratch=s["grad_weight"], **given
                ),
                lambda backward=backward: backward([False, True, biased]),
                check_weight,
            ),
        }
        flop = 2 * layer.multiply_adds(batch)
        algorithms = {p: choose(shape, p) for p in scratch}
        cases += [
            Case(
                name, p, *runs[p], flop=flop, multiplied=multiply_adds(shape, chosen),
                algorithm=chosen.name,
            )
            for p, chosen in algorithms.items()
        ]  # fmt: skip
    return cases


def products(batch: int) -> list[Case]:
    """Of float32, and of bfloat16 where there are such products."""
    precisions = PRECISIONS[:1] if bf16_available() else PRECISIONS
    return [
        case
        for name, (inputs, units) in PRODUCTS.items()
        for precision in precisions
        for case in fully_connected(name, batch, inputs, units, precision)
    ]


def fully_connected(
    name: str, batch: int, inputs: int, units: int, precision: Precision
) -> list[Case]:
    x, dy = torch.randn(batch, inputs), torch.randn(batch, units)
    weight, bias = torch.randn(units, inputs), torch.randn(units)
    y, dx, dw, inc = (torch.empty_like(t) for t in (dy, x, weight, weight))
    inc.zero_()
    rule = linear.Update(0.9, 5e-4, 0.01, apply=False)
    half = precision == "bf16"

    def seen(*operands: Tensor) -> list[Tensor]:
        """What a product sees, in float64."""
        return [(t.bfloat16() if half else t).double() for t in operands]

    def momentum() -> Tensor:
        return rule.momentum * inc.double() - rule.decay * rule.rate * weight.double()

    # Each: ours, PyTorch's way, where results are, and the exact ones.
    ours = {
        "forward": lambda precision: linear.forward(x, weight, bias, y, precision=precision),
        "grad_input": lambda precision: linear.grad_input(dy, weight, dx, precision=precision),
        "grad_weight": lambda precision: linear.grad_weight(x, dy, dw, None, precision=precision),
        "update": lambda precision: linear.update_weight(
            x, dy, weight, inc, None, rule, precision=precision
        ),
    }
    others = {
        "forward": lambda: torch.addmm(bias, x, weight.t(), out=y),
        "grad_input": lambda: torch.mm(dy, weight, out=dx),
        "grad_weight": lambda: torch.mm(dy.t(), x, out=dw),
        "update": lambda: (
            inc.mul_(rule.momentum)
            .add_(weight, alpha=-rule.decay * rule.rate)
            .addmm_(dy.t(), x, alpha=-rule.rate)
        ),
    }
    if half:  # masters are float32, as ours are: operands are rounded for each product
        others = {
            "forward": lambda: y.copy_(x.bfloat16() @ weight.bfloat16().t()).add_(bias),
            "grad_input": lambda: dx.copy_(dy.bfloat16() @ weight.bfloat16()),
            "grad_weight": lambda: dw.copy_(dy.bfloat16().t() @ x.bfloat16()),
            "update": lambda: (
                inc.mul_(rule.momentum)
                .add_(weight, alpha=-rule.decay * rule.rate)
                .add_(dy.bfloat16().t() @ x.bfloat16(), alpha=-rule.rate)
            ),
        }
    results = {"forward": y, "grad_input": dx, "grad_weight": dw, "update": inc}
    x64, w64, dy64 = seen(x, weight, dy)
    exact = {
        "forward": lambda: x64 @ w64.t() + bias.double(),
        "grad_input": lambda: dy64 @ w64,
        "grad_weight": lambda: dy64.t() @ x64,
        "update": lambda: momentum() - rule.rate * dy64.t() @ x64,
    }
    flop = 2 * batch * inputs * units

    def case(pass_: str) -> Case:
        def check() -> float:
            wanted = exact[pass_]()
            ours[pass_](precision)
            return distance(results[pass_], wanted)

        return Case(
            name, pass_, partial(ours[pass_], precision), others[pass_], check, flop=flop,
            multiplied=flop // 2, precision=precision,
            in_float32=partial(ours[pass_], "fp32") if half else None,
        )  # fmt: skip

    return [case(pass_) for pass_ in ours]

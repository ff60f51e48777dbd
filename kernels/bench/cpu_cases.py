"""What ``cpu.py`` times of AlexNet: every kernel, and what PyTorch has instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

from alexsim_kernels import reference
from alexsim_kernels.cpu import convolution, linear, norm, pool, relu, sizes
from alexsim_kernels.cpu.algorithm import PASSES, choose, multiply_adds
from alexsim_kernels.cpu.build import bf16_available
from alexsim_kernels.cpu.sizes import PRECISIONS, Precision
from alexsim_kernels.cpu.tensors import new_scratch
from alexsim_kernels.cpu.windows import sliding

Tensor = torch.Tensor
Run = Callable[[], object]

Layer = tuple[int, int, int, int, int, int, int]

# One column: channels, extent, filters, taps, stride, padding, output extent.
CONVOLUTIONS: dict[str, Layer] = {
    "conv1": (3, 224, 48, 11, 4, 0, 55),
    "conv2": (48, 27, 128, 5, 1, 2, 27),
    "conv3": (256, 13, 192, 3, 1, 1, 13),
    "conv4": (192, 13, 192, 3, 1, 1, 13),
    "conv5": (192, 13, 128, 3, 1, 1, 13),
}
NORMS = {"norm1": ("across", 48, 55), "norm2": ("across", 128, 27), "spatial": ("over", 128, 27)}
RELUS = {"relu1": (48, 27), "relu2": (128, 27), "relu3": (192, 13)}
POOLS = {"pool1": (48, 55, 27), "pool2": (128, 27, 13)}
PRODUCTS = {"fc6": (9216, 2048), "fc7": (4096, 2048), "fc8": (4096, 1000)}
_CHECKED = 4
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


def distance(computed: Tensor, exact: Tensor) -> float:
    return float((computed.double() - exact).norm() / exact.norm())


def convolutions(
    batch: int, layers: dict[str, Layer] = CONVOLUTIONS, *, biased: bool = True
) -> list[Case]:
    cases = []
    for name, (channels, extent, filters, taps, stride, padding, out) in layers.items():
        # The last windows hang over the edge by so much.
        last = max(0, (out - 1) * stride + taps - extent - 2 * padding)
        x, dy = images(batch, channels, extent, extent), images(batch, filters, out, out)
        weight = images(filters, channels, taps, taps) * 0.05
        bias = torch.randn(filters) if biased else None
        y, dx, dw = (torch.empty_like(t) for t in (dy, x, weight))
        db = torch.empty(filters) if biased else None
        given = {"stride": (stride, stride), "padding": (padding, padding)}
        shape = convolution.shape_of(x, weight, y, **given)
        scratch = {
            p: new_scratch(sizes.convolution(shape, p, threads=torch.get_num_threads()).bytes(4))
            for p in PASSES
            if channels > 3 or p != "grad_input"
        }
        wide = F.pad(x, (0, last, 0, last)).contiguous(memory_format=torch.channels_last)
        n = _CHECKED

        def exact(
            x: Tensor = x, weight: Tensor = weight, bias: Tensor | None = bias, dy: Tensor = dy,
            last: int = last, stride: int = stride, padding: int = padding,
        ) -> list[Tensor]:  # fmt: skip
            given = [x[:_CHECKED], weight, *([] if bias is None else [bias])]
            inputs = [t.double().requires_grad_() for t in given]
            wide, *filters = F.pad(inputs[0], (0, last, 0, last)), *inputs[1:]
            result = F.conv2d(wide, *filters, stride=stride, padding=padding)
            result.backward(dy[:_CHECKED].double())
            return [result.detach(), *(t.grad for t in inputs)]

        def backward(
            which: list[bool], wide: Tensor = wide, weight: Tensor = weight, dy: Tensor = dy,
            stride: int = stride, padding: int = padding, filters: int = filters,
        ) -> object:  # fmt: skip
            return torch.ops.aten.convolution_backward(
                dy, wide, weight, [filters] if which[2] else None, [stride] * 2, [padding] * 2,
                [1, 1], False, [0, 0], 1, which,
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

        runs = {
            "forward": (
                lambda x=x, w=weight, b=bias, y=y, given=given, s=scratch: convolution.forward(
                    x, w, b, y, scratch=s["forward"], **given
                ),
                lambda x=wide, w=weight, b=bias, s=stride, p=padding: F.conv2d(x, w, b, s, p),
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
        flop = 2 * y.numel() * channels * taps * taps
        algorithms = {p: choose(shape, p) for p in scratch}
        cases += [
            Case(
                name, p, *runs[p], flop=flop, multiplied=multiply_adds(shape, chosen),
                algorithm=chosen.name,
            )
            for p, chosen in algorithms.items()
        ]  # fmt: skip
    return cases


def composed_norm(x: Tensor, window: str) -> Tensor:
    """PyTorch's shortest way: means of squares by a pool."""
    if window == "across":
        return F.local_response_norm(x, 5, 5e-4, 0.75, 2.0)
    return x * (1 + 1e-3 * F.avg_pool2d(x * x, 5, 1, 2)).pow(-0.75)


def norms(batch: int) -> list[Case]:
    cases = []
    for name, (window, channels, extent) in NORMS.items():
        x = images(batch, channels, extent, extent)
        y, d, dx = (torch.empty_like(x) for _ in range(3))
        constants = norm.Constants(5, 2.0, 1e-4, 0.75)
        if window == "over":
            constants = norm.Constants(5, 1.0, 4e-5, 0.75)
        leaf = x.clone().requires_grad_()
        graph = composed_norm(leaf, window)

        def forward(x=x, y=y, d=d, constants=constants, window=window) -> None:
            norm.forward(x, y, d, constants, window=window)

        def backward(x=x, y=y, d=d, dx=dx, constants=constants, window=window) -> None:
            norm.backward(x, d, y, dx, constants, window=window)

        def check(
            backwards: bool, x=x, y=y, dx=dx, window=window, run=(forward, backward)
        ) -> float:
            run[0]()
            exact = x[:_CHECKED].double().requires_grad_()
            result = composed_norm(exact, window)
            if not backwards:
                return distance(y[:_CHECKED], result.detach())
            run[1]()
            result.backward(y[:_CHECKED].double())
            return distance(dx[:_CHECKED], exact.grad)

        cases += [
            Case(
                name, "forward", forward, lambda x=x, w=window: composed_norm(x, w),
                lambda check=check: check(False),
            ),
            Case(
                name, "grad_input", backward,
                lambda leaf=leaf, graph=graph, y=y: torch.autograd.grad(
                    graph, leaf, y, retain_graph=True
                ),
                lambda check=check: check(True),
            ),
        ]  # fmt: skip
    return cases


def pools(batch: int) -> list[Case]:
    cases = []
    for name, (channels, extent, out) in POOLS.items():
        x, dy = images(batch, channels, extent, extent), images(batch, channels, out, out)
        y, dx = torch.empty_like(dy), torch.empty_like(x)
        windows = sliding((extent, extent), (out, out), size=(3, 3), stride=(2, 2))
        leaf = x.clone().requires_grad_()
        graph = F.max_pool2d(leaf, 3, 2)

        def forward(x=x, y=y, windows=windows) -> None:
            pool.max_forward(x, y, windows)

        def check(y=y, graph=graph, forward=forward) -> float:
            forward()
            return distance(y, graph.detach().double())

        cases.append(Case(name, "forward", forward, lambda x=x: F.max_pool2d(x, 3, 2), check))
        for ties in ("first", "all"):

            def backward(x=x, y=y, dy=dy, dx=dx, windows=windows, ties=ties) -> None:
                pool.max_backward(x, y, dy, dx, windows, ties=ties)

            def other(leaf=leaf, graph=graph, dy=dy) -> Tensor:
                return torch.autograd.grad(graph, leaf, dy, retain_graph=True)[0]

            def check_backward(
                forward=forward, backward=backward, x=x, dy=dy, dx=dx, ties=ties
            ) -> float:
                forward()
                backward()
                few = (x[:_CHECKED].double(), dy[:_CHECKED].double())
                wanted = reference.max_pool_gradient(*few, window=3, stride=2, ties=ties)
                return distance(dx[:_CHECKED], wanted)

            cases.append(Case(name, f"grad, {ties}", backward, other, check_backward))
    return cases


def relus(batch: int) -> list[Case]:
    cases = []
    for name, (channels, extent) in RELUS.items():
        x, dy = (images(batch, channels, extent, extent) for _ in range(2))
        y, dx, other = (torch.empty_like(x) for _ in range(3))
        backward = torch.ops.aten.threshold_backward

        def check_forward(x=x, y=y) -> float:
            relu.forward(x, y)
            return distance(y[:_CHECKED], x[:_CHECKED].double().relu())

        def check_input(x=x, y=y, dy=dy, dx=dx, backward=backward) -> float:
            relu.forward(x, y)
            relu.backward(y, dy, dx)
            exact = backward(dy[:_CHECKED].double(), x[:_CHECKED].double(), 0)
            return distance(dx[:_CHECKED], exact)

        cases += [
            Case(
                name, "forward", partial(relu.forward, x, y),
                partial(torch.clamp_min, x, 0, out=other), check_forward,
            ),
            Case(
                name, "grad_input", partial(relu.backward, y, dy, dx),
                partial(backward.grad_input, dy, y, 0, grad_input=other), check_input,
            ),
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

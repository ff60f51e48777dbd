"""What ``cpu.py`` times of AlexNet beside products: response norms, ReLUs, pools."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from alexsim_kernels import reference
from alexsim_kernels.bench.cpu_cases import CHECKED, Case, Tensor, distance, images
from alexsim_kernels.cpu import norm, pool, relu
from alexsim_kernels.cpu.windows import sliding

NORMS = {"norm1": ("across", 48, 55), "norm2": ("across", 128, 27), "spatial": ("over", 128, 27)}
RELUS = {"relu1": (48, 27), "relu2": (128, 27), "relu3": (192, 13)}
POOLS = {"pool1": (48, 55, 27), "pool2": (128, 27, 13)}


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
            exact = x[:CHECKED].double().requires_grad_()
            result = composed_norm(exact, window)
            if not backwards:
                return distance(y[:CHECKED], result.detach())
            run[1]()
            result.backward(y[:CHECKED].double())
            return distance(dx[:CHECKED], exact.grad)

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
                few = (x[:CHECKED].double(), dy[:CHECKED].double())
                wanted = reference.max_pool_gradient(*few, window=3, stride=2, ties=ties)
                return distance(dx[:CHECKED], wanted)

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
            return distance(y[:CHECKED], x[:CHECKED].double().relu())

        def check_input(x=x, y=y, dy=dy, dx=dx, backward=backward) -> float:
            relu.forward(x, y)
            relu.backward(y, dy, dx)
            exact = backward(dy[:CHECKED].double(), x[:CHECKED].double(), 0)
            return distance(dx[:CHECKED], exact)

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

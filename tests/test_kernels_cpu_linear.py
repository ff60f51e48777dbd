"""Fully connected layers of the CPU kernels: float32, float64, and products of bfloat16."""

import pytest
import torch
from cpu_cases import LIMITS, NAN, TYPES, distance, poisoned_scratch, same_for_two_threads

from alexsim_kernels.cpu import build, linear, product, sizes
from alexsim_kernels.cpu.algorithm import PASSES
from alexsim_kernels.cpu.sizes import Precision

pytestmark = pytest.mark.usefixtures("cpu_kernels")
Tensor = torch.Tensor
INF = float("inf")
bf16 = pytest.param(
    torch.float32, "bf16", id="bf16",
    marks=pytest.mark.skipif(bool(build.bf16_available()), reason=build.bf16_available() or "-"),
)  # fmt: skip
KINDS = [*(pytest.param(dtype, "fp32", id=str(dtype)) for dtype in TYPES), bf16]


def rows(count: int, width: int, dtype: torch.dtype) -> Tensor:
    """A slice of wider rows; beside it stands NaN."""
    block = torch.full((count, width + 5), NAN, dtype=dtype)
    block[:, 2 : 2 + width] = torch.randn(count, width, dtype=dtype)
    return block[:, 2 : 2 + width]


def multiplied(precision: Precision, *tensors: Tensor) -> list[Tensor]:
    """What the products see, as float64."""
    return [(t.bfloat16() if precision == "bf16" else t).double() for t in tensors]


@pytest.mark.parametrize(("dtype", "precision"), KINDS)
@pytest.mark.parametrize(
    ("images", "inputs", "units"),
    [(1, 7, 5), (3, 100, 130), (128, 520, 100), (70, 1030, 49), (201, 65, 301), (1, 1, 1)],
)
def test_fully_connected(
    images: int, inputs: int, units: int, dtype: torch.dtype, precision: Precision
) -> None:
    torch.manual_seed(0)
    x, dy = rows(images, inputs, dtype), rows(images, units, dtype)
    weight, inc0 = rows(units, inputs, dtype), torch.randn(units, inputs, dtype=dtype)
    bias = torch.randn(units, dtype=dtype)
    y0, dx0 = rows(images, units, dtype), rows(images, inputs, dtype)
    kind = {"precision": precision}

    def run(threads: int) -> list[Tensor]:
        y, dx = y0.clone(), dx0.clone()
        dweight, dbias = rows(units, inputs, dtype), torch.full_like(bias, NAN)
        forward, grad_input, grad_weight = (
            poisoned_scratch(
                sizes.linear(p, images, inputs, units, threads=threads, **kind).bytes(
                    x.element_size()
                )
            )
            for p in PASSES
        )
        linear.forward(x, weight, bias, y, relu=True, scratch=forward, **kind)
        linear.grad_input(dy, weight, dx, scratch=grad_input, **kind)
        linear.grad_weight(x, dy, dweight, dbias, scratch=grad_weight, **kind)
        assert all((s[-192:] == 255).all() for s in (forward, grad_input, grad_weight))
        y_sum, dx_sum, dweight_sum = y0.clone(), dx0.clone(), torch.ones_like(dweight)
        linear.forward(x, weight, None, y_sum, add=True, **kind)
        linear.grad_input(dy, weight, dx_sum, add=True, **kind)
        linear.grad_weight(x, dy, dweight_sum, None, add=True, **kind)
        inc, moved = inc0.clone(), weight.clone()
        rule = linear.Update(0.9, 5e-4, 0.01, apply=True)
        linear.update_weight(x, dy, moved, inc, None, rule, **kind)
        kept, same = inc0.clone(), weight.clone()
        linear.update_weight(x, dy, same, kept, None, rule._replace(apply=False), **kind)
        assert torch.equal(kept, inc)
        assert torch.equal(same, weight)
        return [y, dx, dweight, dbias, y_sum - y0, dx_sum - dx0, dweight_sum - 1, inc, moved]

    x64, w64, dy64 = multiplied(precision, x, weight, dy)
    product_, dx, dweight = x64 @ w64.t(), dy64 @ w64, dy64.t() @ x64
    # Weights, bias and momentum keep all their bits.
    inc = 0.9 * inc0.double() - 5e-4 * 0.01 * weight.double() - 0.01 * dweight
    wanted = [(product_ + bias.double()).relu(), dx, dweight, dy.double().sum(0)]
    wanted += [product_, dx, dweight, inc, weight.double() + inc]
    results = same_for_two_threads(run) if images == 70 else run(1)
    for computed, exact in zip(results, wanted, strict=True):
        assert distance(computed, exact) < LIMITS[dtype]

"""Fully connected layers of the CPU kernels: float32, float64, and products of bfloat16."""

import pytest
import torch
from cpu_cases import LIMITS, NAN, distance, poisoned_scratch, same_for_threads

from alexsim_kernels.cpu import build, linear, product, sizes
from alexsim_kernels.cpu.algorithm import PASSES
from alexsim_kernels.cpu.sizes import Precision

pytestmark = pytest.mark.usefixtures("cpu_kernels")
Tensor = torch.Tensor
INF = float("inf")
KINDS = [(torch.float32, "fp32"), (torch.float64, "fp32"), (torch.float32, "bf16")]


@pytest.fixture
def bf16() -> None:
    if why_not := build.bf16_available():
        pytest.skip(why_not)


@pytest.fixture(params=KINDS, ids=["float32", "float64", "bf16"])
def kind(request: pytest.FixtureRequest) -> tuple[torch.dtype, Precision]:
    """Of tensors and of products."""
    if request.param[1] == "bf16":
        request.getfixturevalue("bf16")
    return request.param


def rows(count: int, width: int, dtype: torch.dtype) -> Tensor:
    """A slice of wider rows; beside it stands NaN."""
    block = torch.full((count, width + 5), NAN, dtype=dtype)
    block[:, 2 : 2 + width] = torch.randn(count, width, dtype=dtype)
    return block[:, 2 : 2 + width]


def multiplied(precision: Precision, *tensors: Tensor) -> list[Tensor]:
    """What the products see, as float64."""
    return [(t.bfloat16() if precision == "bf16" else t).double() for t in tensors]


@pytest.mark.parametrize(
    ("images", "inputs", "units"),
    [(1, 7, 5), (3, 100, 130), (128, 520, 100), (70, 1031, 49), (201, 65, 301), (1, 1, 1)],
)
def test_fully_connected(
    images: int, inputs: int, units: int, kind: tuple[torch.dtype, Precision]
) -> None:
    torch.manual_seed(0)
    dtype, precision = kind
    how = {"precision": precision}
    x, dy = rows(images, inputs, dtype), rows(images, units, dtype)
    weight, inc0 = rows(units, inputs, dtype), torch.randn(units, inputs, dtype=dtype)
    bias = torch.randn(units, dtype=dtype)
    y0, dx0 = rows(images, units, dtype), rows(images, inputs, dtype)

    def run(threads: int) -> list[Tensor]:
        y, dx = y0.clone(), dx0.clone()
        dweight, dbias = rows(units, inputs, dtype), torch.full_like(bias, NAN)
        forward, grad_input, grad_weight = (
            poisoned_scratch(
                sizes.linear(p, images, inputs, units, threads=threads, **how).bytes(
                    x.element_size()
                )
            )
            for p in PASSES
        )
        linear.forward(x, weight, bias, y, relu=True, scratch=forward, **how)
        linear.grad_input(dy, weight, dx, scratch=grad_input, **how)
        linear.grad_weight(x, dy, dweight, dbias, scratch=grad_weight, **how)
        assert all((s[-192:] == 255).all() for s in (forward, grad_input, grad_weight))
        y_sum, dx_sum, dweight_sum = y0.clone(), dx0.clone(), torch.ones_like(dweight)
        linear.forward(x, weight, None, y_sum, add=True, **how)
        linear.grad_input(dy, weight, dx_sum, add=True, **how)
        linear.grad_weight(x, dy, dweight_sum, None, add=True, **how)
        inc, moved = inc0.clone(), weight.clone()
        rule = linear.Update(0.9, 5e-4, 0.01, apply=True)
        linear.update_weight(x, dy, moved, inc, None, rule, **how)
        kept, same = inc0.clone(), weight.clone()
        linear.update_weight(x, dy, same, kept, None, rule._replace(apply=False), **how)
        assert torch.equal(kept, inc)
        assert torch.equal(same, weight)
        return [y, dx, dweight, dbias, y_sum - y0, dx_sum - dx0, dweight_sum - 1, inc, moved]

    x64, w64, dy64 = multiplied(precision, x, weight, dy)
    product_, dx, dweight = x64 @ w64.t(), dy64 @ w64, dy64.t() @ x64
    # Weights, bias and momentum keep all their bits.
    inc = 0.9 * inc0.double() - 5e-4 * 0.01 * weight.double() - 0.01 * dweight
    wanted = [(product_ + bias.double()).relu(), dx, dweight, dy.double().sum(0)]
    wanted += [product_, dx, dweight, inc, weight.double() + inc]
    results = same_for_threads(run) if images == 70 else run(1)
    for computed, exact in zip(results, wanted, strict=True):
        assert distance(computed, exact) < LIMITS[dtype]


def test_what_is_no_number_travels(kind: tuple[torch.dtype, Precision]) -> None:
    torch.manual_seed(0)
    dtype, precision = kind
    x, weight, dy = (torch.randn(*s, dtype=dtype) for s in ((5, 33), (7, 33), (5, 7)))
    x[1, 4], x[2, 32], weight[3, 0], dy[4, 6] = NAN, INF, -INF, NAN
    y, dx, dweight = torch.zeros_like(dy), torch.zeros_like(x), torch.zeros_like(weight)
    linear.forward(x, weight, None, y, precision=precision)
    linear.grad_input(dy, weight, dx, precision=precision)
    linear.grad_weight(x, dy, dweight, None, precision=precision)
    x, weight, dy = multiplied(precision, x, weight, dy)
    for computed, exact in ((y, x @ weight.t()), (dx, dy @ weight), (dweight, dy.t() @ x)):
        assert torch.equal(computed.isfinite(), exact.isfinite())
        assert torch.allclose(computed.double(), exact, atol=1e-4, equal_nan=True)
    y[1] = 0
    linear.forward(x[1:2].to(dtype), weight.to(dtype), None, y[1:2], relu=True, precision=precision)
    assert y[1].isnan().all()


@pytest.mark.usefixtures("bf16")
def test_every_operand_is_rounded_to_nearest_even() -> None:
    """A product with a single one shows an operand: every sign and exponent, at and beside ties."""
    upper = torch.arange(1 << 16, dtype=torch.int32)[::3] << 16
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    values = (upper[:, None] | lower).flatten().view(torch.float32)
    rounded = values.bfloat16().float()
    rounded[values.abs() < 2.0**-126] = 0
    row, column, single = values[None], values[:, None], torch.ones(1, 1)
    for give, like in (
        (lambda out: linear.forward(column, single, None, out, precision="bf16"), column),
        (lambda out: linear.forward(single, column, None, out, precision="bf16"), row),
        (lambda out: linear.grad_input(single, row, out, precision="bf16"), row),
        (lambda out: linear.grad_input(column, single, out, precision="bf16"), column),
        (lambda out: linear.grad_weight(row, single, out, None, precision="bf16"), row),
        (lambda out: linear.grad_weight(single, row, out, None, precision="bf16"), column),
    ):
        out = torch.empty_like(like)
        give(out)
        assert torch.allclose(out.flatten(), rounded, rtol=0, atol=0, equal_nan=True)


def test_scratch_of_bf16_holds_no_copy_of_the_weights() -> None:
    for pass_ in PASSES:
        need = sizes.linear(pass_, 128, 9216, 2048, threads=2, precision="bf16").bytes(4)
        assert need < 3 << 20  # the weights would take 36 MiB
    with pytest.raises(ValueError, match="precision must be one of fp32, bf16, got 'fp8'"):
        sizes.linear("forward", 1, 1, 1, threads=1, precision="fp8")  # type: ignore[arg-type]


@pytest.mark.usefixtures("bf16")
def test_bf16_is_for_float32() -> None:
    x = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"bf16 is for float32 tensors, got torch\.float64"):
        linear.forward(x, x, None, x, precision="bf16")
    with pytest.raises(ValueError, match=r"bf16 is for float32 tensors, got torch\.float64"):
        product.ceiling(torch.float64, precision="bf16")


def test_where_there_is_no_bf16_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "FLAGS", ("-std=c++17",))  # of any processor
    build._knows_bf16.cache_clear()
    x = torch.ones(2, 2)
    with pytest.raises(build.BuildError, match=r"^bf16 needs a processor with AVX512_BF16"):
        linear.forward(x, x, None, x, precision="bf16")
    build._knows_bf16.cache_clear()
    monkeypatch.setattr(build, "available", lambda: "no compiler")
    assert build.bf16_available() == "no compiler"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ceiling_counts_what_is_multiplied(
    precision: Precision, request: pytest.FixtureRequest
) -> None:
    if precision == "bf16":
        request.getfixturevalue("bf16")
    seconds = iter((0.0, 2.0, 5.0, 6.0))
    rate = product.ceiling(precision=precision, repeats=3, rounds=2, clock=lambda: next(seconds))
    products = 48 * 256 * 64 * 3 * (2 if precision == "bf16" else 1)
    assert rate == pytest.approx(2 * products / 1e9)

"""Batch norm of the CPU kernels: values, gradients and running statistics against float64."""

from functools import partial

import pytest
import torch
from cpu_cases import (
    LIMITS,
    NAN,
    TYPES,
    beside,
    distance,
    pitched,
    poisoned_scratch,
    same_for_threads,
)

from alexsim_kernels.cpu import batch_norm, sizes
from alexsim_kernels.cpu.batch_norm import Running, Statistics

pytestmark = pytest.mark.usefixtures("cpu_kernels")
Tensor = torch.Tensor
EPSILON, MOMENTUM = 1e-5, 0.1
SHAPES = {
    "lanes": (2, 21, 9, 7),
    "whole vectors": (3, 48, 5, 6),
    "slices": (3, 19, 24, 23),  # more than one, of unequal lengths
    "wide": (1, 530, 3, 3),
    "one pixel": (1, 5, 1, 1),
}


def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The reference, written out: torch refuses a single value per channel."""
    axes = (0, 2, 3)
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    scale, shift = weight[:, None, None], bias[:, None, None]
    return centred / (variance + EPSILON).sqrt() * scale + shift


class Norm:
    """A batch norm's tensors, each image a slice of a wider block."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.shape, self.dtype, channels = shape, dtype, shape[1]
        self.x, self.dy = pitched(*shape, dtype=dtype), pitched(*shape, dtype=dtype)
        self.x.mul_(2).add_(3)
        self.weight, self.bias, self.mean, self.var = (
            torch.rand(channels, dtype=dtype) + 0.5 for _ in range(4)
        )

    def filled(self, value: float = NAN) -> Tensor:
        return pitched(*self.shape, dtype=self.dtype, value=value)

    def statistics(self) -> Statistics:
        return Statistics(torch.full_like(self.mean, NAN), torch.full_like(self.mean, NAN))

    def running(self) -> Running:
        return Running(self.mean.clone(), self.var.clone(), MOMENTUM)

    def scratch(self) -> Tensor:
        pixels = self.x.numel() // self.shape[1]
        return poisoned_scratch(
            sizes.batch_norm(pixels, self.shape[1]).bytes(self.x.element_size())
        )

    def run(self, _: int) -> list[Tensor]:
        """Output, statistics, running ones, gradients of scale, shift and input."""
        y, dx, statistics, running = self.filled(), self.filled(), self.statistics(), self.running()
        dweight, dbias = torch.full_like(self.mean, NAN), torch.full_like(self.mean, NAN)
        scratch = self.scratch()
        batch_norm.forward(
            self.x, self.weight, self.bias, y, statistics, running,
            epsilon=EPSILON, training=True, scratch=scratch,
        )  # fmt: skip
        batch_norm.sums(self.x, self.dy, statistics, dweight, dbias, scratch=scratch)
        gradients = (dweight, dbias)
        batch_norm.grad_input(
            self.x, self.dy, self.weight, statistics, gradients, dx, scratch=scratch
        )
        assert (scratch[-192:] == 255).all()
        assert beside(y).isnan().all()
        assert beside(dx).isnan().all()
        return [y, *statistics, running.mean, running.var, dweight, dbias, dx]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_training(name: str, dtype: torch.dtype) -> None:
    norm = Norm(SHAPES[name], dtype)
    computed = same_for_threads(norm.run)
    exact = [t.double().requires_grad_() for t in (norm.x, norm.weight, norm.bias)]
    wanted = normalised(*exact)
    wanted.backward(norm.dy.double())
    x, axes = exact[0].detach(), (0, 2, 3)
    count = x.numel() // x.shape[1]
    mean, variance = x.mean(axes), x.var(axes, correction=0)
    unbiased = variance * count / max(count - 1, 1)
    running = [0.9 * norm.mean.double() + 0.1 * mean, 0.9 * norm.var.double() + 0.1 * unbiased]
    references = [wanted.detach(), mean, (variance + EPSILON).rsqrt(), *running]
    references += [exact[1].grad, exact[2].grad, exact[0].grad]
    for index, (values, reference) in enumerate(zip(computed, references, strict=True)):
        if name == "one pixel" and index in (5, 7):
            assert values.abs().max() < 1e-4  # all is taken away but what rounds
        else:
            assert distance(values, reference) < LIMITS[dtype], index


def test_running_statistics_are_torch_s() -> None:
    norm = Norm(SHAPES["slices"], torch.float64)
    module = torch.nn.BatchNorm2d(norm.shape[1], EPSILON, MOMENTUM, dtype=torch.float64)
    module.running_mean.copy_(norm.mean)
    module.running_var.copy_(norm.var)
    module(norm.x)
    _, _, _, mean, var, *_ = norm.run(1)
    assert torch.allclose(mean, module.running_mean, rtol=1e-13)
    assert torch.allclose(var, module.running_var, rtol=1e-13)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_at_test_running_statistics_count_and_stay(relu: bool, dtype: torch.dtype) -> None:
    norm = Norm(SHAPES["lanes"], dtype)
    statistics, running, y = norm.statistics(), norm.running(), norm.filled()
    batch_norm.forward(
        norm.x, norm.weight, norm.bias, y, statistics, running,
        epsilon=EPSILON, training=False, relu=relu, scratch=norm.scratch(),
    )  # fmt: skip
    values = [t.double() for t in (norm.x, norm.mean, norm.var, norm.weight, norm.bias)]
    wanted = torch.nn.functional.batch_norm(*values, eps=EPSILON)
    assert distance(y, wanted.relu() if relu else wanted) < LIMITS[dtype]
    assert beside(y).isnan().all()
    assert all(t.isnan().all() for t in statistics)
    assert torch.equal(running.mean, norm.mean)
    assert torch.equal(running.var, norm.var)


def test_relu_in_training_is_that_of_the_output() -> None:
    norm = Norm(SHAPES["lanes"], torch.float32)
    norm.bias.sub_(1)
    plain, _, _, *_ = norm.run(1)
    y = norm.filled()
    batch_norm.forward(
        norm.x, norm.weight, norm.bias, y, norm.statistics(), norm.running(),
        epsilon=EPSILON, training=True, relu=True,
    )  # fmt: skip
    assert torch.equal(y, plain.relu())
    assert (y == 0).any()


def test_gradients_are_summed_first_where_none_are_given_and_added_to_what_is_there() -> None:
    norm = Norm(SHAPES["slices"], torch.float64)
    _, mean, rstd, _, _, dweight, dbias, dx = norm.run(1)
    given = (norm.x, norm.dy, norm.weight, Statistics(mean, rstd))
    alone, summed = norm.filled(), norm.filled(2)
    batch_norm.grad_input(*given, None, alone, scratch=norm.scratch())
    assert torch.equal(alone, dx)
    batch_norm.grad_input(*given, (dweight, dbias), summed, add=True)
    assert torch.allclose(summed, dx + 2, rtol=1e-14)


@pytest.mark.parametrize("far", [0.0, 1e4])
def test_a_large_mean_costs_no_digits(far: float) -> None:
    """Also where a slice's first pixels, its pivot, lie far from all others."""
    norm = Norm((2, 32, 30, 30), torch.float32)
    norm.x.copy_(torch.randn(norm.shape) + 1e4)
    norm.x[0, :, 0, :20] -= far
    _, mean, rstd, *_ = norm.run(1)
    x = norm.x.double()
    variance = x.var((0, 2, 3), correction=0)
    assert distance(mean, x.mean((0, 2, 3))) < 1e-7
    assert distance(rstd, (variance + EPSILON).rsqrt()) < 1e-5


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_what_is_no_number_stays_in_its_channel(value: float) -> None:
    norm = Norm(SHAPES["lanes"], torch.float32)
    norm.x[1, 17, 4, 4] = value
    y, _, _, mean, var, dweight, _, dx = norm.run(1)
    others = [c for c in range(norm.shape[1]) if c != 17]
    for values in (y, dx):
        assert values[:, 17].isnan().any()
        assert values[:, others].isfinite().all()
    assert not var[17].isfinite()
    for values in (mean, var, dweight):
        assert values[others].isfinite().all()


def test_part_of_an_image_s_rows_and_columns() -> None:
    """Where rows are not as far apart as their pixels say."""
    whole, part = Norm((2, 21, 9, 8), torch.float64), Norm((2, 21, 7, 5), torch.float64)
    part.x.copy_(whole.x[:, :, 1:8, 2:7])
    part.dy.copy_(whole.dy[:, :, 1:8, 2:7])
    wanted = part.run(1)
    part.x, part.dy = whole.x[:, :, 1:8, 2:7], whole.dy[:, :, 1:8, 2:7]
    assert all(map(torch.equal, part.run(1)[1:7], wanted[1:7]))


def test_large_results_pass_the_caches() -> None:
    """Streamed stores begin at 16 MiB."""
    norm = Norm((1, 40, 330, 330), torch.float32)
    y, *_ = norm.run(1)
    wanted = torch.nn.functional.batch_norm(
        norm.x, None, None, norm.weight, norm.bias, training=True, eps=EPSILON
    )
    assert torch.allclose(y, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 4, 4)}, "x must be channels-last"),
        ({"y": torch.zeros(2, 4, 4, 5).permute(0, 3, 1, 2)}, "out must be"),
        ({"weight": torch.zeros(4)}, r"weight must be \[3\], got \[4\]"),
        ({"bias": torch.zeros(6)[::2]}, "bias must be contiguous"),
        ({"bias": torch.zeros(3).double()}, "bias is torch.float64, but x is"),
        ({"statistics": Statistics(torch.zeros(3), torch.zeros(2))}, "rstd must be"),
        ({"running": Running(torch.zeros(3), torch.zeros(2), 0.1)}, "running_var must be"),
        ({"scratch": torch.zeros(8, dtype=torch.uint8)}, "scratch needs .* bytes, got 8"),
    ],
)  # fmt: skip
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    x = torch.zeros(2, 4, 4, 3).permute(0, 3, 1, 2)
    zeros = partial(torch.zeros, 3)
    given: dict[str, object] = {
        "x": x, "weight": zeros(), "bias": zeros(), "y": torch.empty_like(x),
        "statistics": Statistics(zeros(), zeros()), "running": Running(zeros(), zeros(), 0.1),
        "epsilon": EPSILON, "training": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        batch_norm.forward(**{**given, **change})  # type: ignore[arg-type]

"""Each layer's forward pass and gradients against float64 autograd, shapes at every edge."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from alexsim.execute.aten.convolution import (
    convolution_forward,
    convolution_grad_input,
    convolution_grad_weight,
)
from alexsim.execute.aten.linear import linear_grad_weight_into_momentum
from alexsim.execute.aten.norm import norm_forward, norm_grad_input
from alexsim.execute.aten.pool import (
    average_pool_forward,
    average_pool_grad_input,
    max_pool_forward,
    max_pool_grad_input,
)
from alexsim.execute.aten.winograd import (
    winograd_forward,
    winograd_grad_input,
    winograd_grad_weight,
)
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    LocalResponseNorm,
    MaxPool,
    SpatialResponseNorm,
)

FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}


def images(*shape: int, seed: int = 0, channels_last: bool = True) -> torch.Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(memory_format=torch.channels_last) if channels_last else values


def poisoned(shape: tuple[int, ...], *, sliced: bool = False) -> torch.Tensor:
    """An output full of NaN, channels-last, perhaps a slice of a wider one."""
    n, c, h, w = shape
    wide = torch.full((n, h, w, 2 * c if sliced else c), torch.nan).permute(0, 3, 1, 2)
    return wide[:, c:] if sliced else wide


def gradients(
    function: Callable[..., torch.Tensor], *inputs: torch.Tensor, seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """Value in float64, a random output gradient, and the input gradients."""
    exact = [value.double().requires_grad_() for value in inputs]
    y = function(*exact)
    dy = images(*y.shape, seed=seed)
    return y.detach(), dy, torch.autograd.grad(y, exact, dy.double())


CONVOLUTIONS = [
    pytest.param((3, 3, 31, 31), {"filters": 5, "size": 11, "stride": 4}, id="conv1-overhangs"),
    pytest.param((2, 3, 35, 35), {"filters": 4, "size": 11, "stride": 4}, id="conv1-exact"),
    pytest.param((5, 6, 13, 13), {"filters": 7, "size": 3, "padding": 1}, id="13x13-odd-batch"),
    pytest.param((1, 48, 7, 9), {"filters": 16, "size": 5, "padding": 2}, id="48-channels"),
    pytest.param(
        (2, 3, 30, 30),
        {"filters": 4, "size": 11, "stride": 4, "padding": 2, "rounding": "floor"},
        id="floor",
    ),
    pytest.param(
        (2, 2, 8, 11), {"filters": 3, "size": 3, "stride": 3, "padding": 1}, id="ceil-with-padding"
    ),
    pytest.param((2, 3, 8, 9), {"filters": 4, "size": 1, "stride": 2}, id="no-window-of-zeros"),
    pytest.param((1, 1, 5, 5), {"filters": 1, "size": 5}, id="one-output"),
]


@pytest.mark.parametrize("size", [1, 2, 32], ids=lambda n: f"chunk{n}")
@pytest.mark.parametrize(("shape", "fields"), CONVOLUTIONS)
def test_convolution(shape: tuple[int, ...], fields: dict, size: int) -> None:
    layer = Convolution(name="c", **fields)
    x = images(*shape)
    weight = images(layer.filters, shape[1], layer.size, layer.size, seed=2)
    bias = torch.randn(layer.filters, generator=torch.Generator().manual_seed(3))
    pad, (bottom, right) = layer.padding, layer.end_paddings(shape[1:])

    def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(F.pad(x, (pad, right, pad, bottom)), weight, bias, layer.stride)
        _, rows, columns = layer.output_shape(shape[1:])
        return y[:, :, :rows, :columns]

    expected, dy, (dx, dweight, dbias) = gradients(exact, x, weight, bias)
    y, got_dx = poisoned(tuple(expected.shape), sliced=True), poisoned(shape)
    got_dweight, got_dbias = torch.full_like(weight, torch.nan), torch.full_like(bias, torch.nan)
    convolution_forward(layer, x, weight, bias, y, size)
    convolution_grad_input(layer, weight, dy, got_dx, size, add=False)
    convolution_grad_weight(layer, x, dy, got_dweight, got_dbias, size)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(y.double(), expected, **tolerance)
    torch.testing.assert_close(got_dx.double(), dx, **tolerance)
    torch.testing.assert_close(got_dweight.double(), dweight, **tolerance)
    torch.testing.assert_close(got_dbias.double(), dbias, **tolerance)
    convolution_grad_input(layer, weight, dy, got_dx, size, add=True)
    torch.testing.assert_close(got_dx.double(), 2 * dx, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("size", [2, 16], ids=lambda n: f"chunk{n}")
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((3, 4, 13, 13), id="13x13-odd-batch"),
        pytest.param((2, 3, 5, 10), id="whole-tiles"),
        pytest.param((1, 2, 6, 4), id="mostly-border"),
        pytest.param((5, 1, 1, 1), id="one-pixel"),
    ],
)
def test_winograd(shape: tuple[int, ...], size: int) -> None:
    layer = Convolution(name="c", filters=6, size=3, padding=1)
    x, weight = images(*shape), images(6, shape[1], 3, 3, seed=2)
    bias = torch.randn(6, generator=torch.Generator().manual_seed(3))

    def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight, bias, padding=1)

    expected, dy, (dx, dweight, dbias) = gradients(exact, x, weight, bias)
    for dtype, tolerance in ((torch.float32, 2e-4), (torch.float64, 1e-11)):
        a, w, b, d = (value.to(dtype) for value in (x, weight, bias, dy))
        y, got_dx = (poisoned(tuple(v.shape), sliced=True).to(dtype) for v in (expected, x))
        got_dweight, got_dbias = torch.full_like(w, torch.nan), torch.full_like(b, torch.nan)
        winograd_forward(a, w, b, y, size)
        winograd_grad_input(w, d, got_dx, size, add=False)
        winograd_grad_weight(layer, a, d, got_dweight, got_dbias, size)
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(y.double(), expected, **close)
        torch.testing.assert_close(got_dx.double(), dx, **close)
        torch.testing.assert_close(got_dweight.double(), dweight, **close)
        torch.testing.assert_close(got_dbias.double(), dbias, **close)
        winograd_grad_input(w, d, got_dx, size, add=True)
        torch.testing.assert_close(got_dx.double(), 2 * dx, rtol=2 * tolerance, atol=2 * tolerance)
        # Without a bias.
        winograd_forward(a, w, None, y, size)
        winograd_grad_weight(layer, a, d, got_dweight.fill_(torch.nan), None, size)
        torch.testing.assert_close(y.double(), expected - bias[:, None, None], **close)
        torch.testing.assert_close(got_dweight.double(), dweight, **close)


def all_ties(x: torch.Tensor, dy: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """The gradient to every input equal to its window's maximum, one window at a time."""
    dx = torch.zeros_like(x)
    for row in range(dy.shape[2]):
        for column in range(dy.shape[3]):
            at = (
                slice(None),
                slice(None),
                slice(row * stride, row * stride + size),
                slice(column * stride, column * stride + size),
            )
            window = x[at]
            hit = window == window.amax((2, 3), keepdim=True)
            dx[at] += hit * dy[:, :, row : row + 1, column : column + 1]
    return dx


@pytest.mark.parametrize("chunk", [1, 2, 8])
@pytest.mark.parametrize("ties", ["all", "first"])
@pytest.mark.parametrize("levels", [3, 10_000], ids=["many-ties", "few-ties"])
@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        pytest.param((3, 5, 13, 13), 3, 2, id="overlapping"),
        pytest.param((2, 3, 7, 9), 3, 1, id="stride-1"),
        pytest.param((2, 4, 8, 6), 2, 2, id="tiling"),
        pytest.param((1, 1, 3, 3), 3, 2, id="one-window"),
        pytest.param((2, 2, 5, 5), 1, 2, id="one-pixel-windows-that-skip"),
    ],
)
def test_max_pool(
    shape: tuple[int, ...], size: int, stride: int, levels: int, ties: str, chunk: int
) -> None:
    layer = MaxPool(name="p", size=size, stride=stride, ties=ties)
    # Few levels make equal maxima common, zero among them.
    x = (images(*shape) * levels / 6).round() / levels
    expected, dy, (first,) = gradients(lambda x: F.max_pool2d(x, size, stride), x)
    exact = first if ties == "first" else all_ties(x.double(), dy.double(), size, stride)
    y, dx = (poisoned(tuple(v.shape), sliced=True) for v in (expected, x))
    max_pool_forward(layer, x, y, chunk)
    max_pool_grad_input(layer, x, y, dy, dx, chunk, add=False)
    assert torch.equal(y.double(), expected)
    torch.testing.assert_close(dx.double(), exact, **FLOAT32)
    max_pool_grad_input(layer, x, y, dy, dx, chunk, add=True)
    torch.testing.assert_close(dx.double(), 2 * exact, **FLOAT32)


def test_average_pool() -> None:
    layer = AveragePool(name="p", size=3, stride=2)
    x = images(3, 4, 9, 7)
    expected, dy, (dx,) = gradients(lambda x: F.avg_pool2d(x, 3, 2), x)
    y, got = poisoned(tuple(expected.shape)), poisoned(tuple(x.shape))
    average_pool_forward(layer, x, y)
    average_pool_grad_input(layer, dy, got, add=False)
    torch.testing.assert_close(y.double(), expected, **FLOAT32)
    torch.testing.assert_close(got.double(), dx, **FLOAT32)


def across(x: torch.Tensor, layer: LocalResponseNorm) -> torch.Tensor:
    half = layer.size // 2
    squares = F.pad(x * x, (0, 0, 0, 0, half, half))
    total = sum(squares[:, i : i + x.shape[1]] for i in range(layer.size))
    return layer.k + layer.alpha * total


def within(x: torch.Tensor, layer: SpatialResponseNorm) -> torch.Tensor:
    half = layer.size // 2
    squares = F.pad(x * x, (half, half, half, half))
    height, width = x.shape[2:]
    total = sum(
        squares[:, :, i : i + height, j : j + width]
        for i in range(layer.size)
        for j in range(layer.size)
    )
    return layer.k + layer.alpha * total


# The nets' alpha hides the gradient's second term behind rounding; STRONG does not.
STRONG = {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0}
OTHER_POWER = {"size": 5, "alpha": 0.3, "beta": 0.5, "k": 2.0}


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize(
    "constants",
    [
        pytest.param({}, id="paper"),
        pytest.param(STRONG, id="strong"),
        pytest.param(OTHER_POWER, id="power-one-half"),
        pytest.param(STRONG | {"size": 1}, id="window-of-one"),
    ],
)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((3, 8, 6, 5), id="typical"),
        pytest.param((5, 3, 13, 13), id="fewer-channels-than-window"),
        pytest.param((1, 1, 1, 1), id="one-value"),
        pytest.param((2, 48, 4, 2), id="narrower-than-window"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "denominator"), [(LocalResponseNorm, across), (SpatialResponseNorm, within)]
)
def test_norms(
    kind: type, denominator: Callable, shape: tuple[int, ...], constants: dict, chunk: int
) -> None:
    layer = kind(name="n", **constants)
    x = 3 * images(*shape)

    def exact(x: torch.Tensor) -> torch.Tensor:
        return x * denominator(x, layer) ** -layer.beta

    expected, dy, (dx,) = gradients(exact, x)
    y, norm, got = (poisoned(shape) for _ in range(3))
    norm_forward(layer, x, y, norm, chunk)
    norm_grad_input(layer, x, norm, dy, got, chunk)
    torch.testing.assert_close(norm.double(), denominator(x.double(), layer), **FLOAT32)
    torch.testing.assert_close(y.double(), expected, **FLOAT32)
    torch.testing.assert_close(got.double(), dx, **FLOAT32)


def test_linear_gradient_lands_in_the_momentum() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, inc = (torch.randn(300, 17, generator=generator) for _ in range(2))
    x, dy = torch.randn(6, 17, generator=generator), torch.randn(6, 300, generator=generator)
    expected = 0.8 * inc - 0.3 * 0.2 * weight - 0.2 * dy.T @ x
    linear_grad_weight_into_momentum(x, dy, weight, inc, momentum=0.8, decay=0.3, rate=0.2)
    torch.testing.assert_close(inc, expected, **FLOAT32)

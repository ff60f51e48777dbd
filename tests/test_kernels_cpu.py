"""Convolutions of the CPU kernels: values and gradients against float64, for every algorithm."""

import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
import torch
from cpu_cases import NAN, TYPES, distance
from cpu_cases import convolution as reference
from cpu_convolutions import CASES, LAYERS, Passes, options, shape_of
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim_kernels.cpu import convolution
from alexsim_kernels.cpu.algorithm import (
    PASSES,
    Algorithm,
    Shape,
    algorithm_of,
    choose,
    cover,
    multiply_adds,
)
from alexsim_kernels.cpu.transforms import TRANSFORMS, cook_toom

pytestmark = pytest.mark.usefixtures("cpu_kernels")
Tensor = torch.Tensor
DIRECT = Algorithm("direct")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_all_passes_of_the_chosen_algorithm(name: str, dtype: torch.dtype) -> None:
    shape = CASES[name]
    Passes(shape, dtype).check({p: choose(shape, p) for p in PASSES})


@pytest.mark.parametrize("name", ["conv2", "conv1 padded", "depthwise", "groups"])
def test_the_direct_method_computes_what_others_do(name: str) -> None:
    Passes(CASES[name], torch.float64).check(dict.fromkeys(PASSES, DIRECT))


@pytest.mark.parametrize("height", [(5, 4), (4, 4, 4), (4, 5)])
@pytest.mark.parametrize("width", [(5, 5), (4, 5, 4)])
def test_tiles_of_any_order(height: tuple[int, ...], width: tuple[int, ...]) -> None:
    shape = shape_of(2, 18, (9, 10), 20, (3, 3), (9, 10), padding=(1, 1))
    Passes(shape, torch.float32).check(dict.fromkeys(PASSES, Algorithm("winograd", height, width)))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    groups = draw(st.integers(1, 3))
    sides = [
        (
            draw(st.integers(1, 12)), draw(st.sampled_from([1, 2, 3, 3, 5])),
            draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(0, 3)),
            draw(st.sampled_from([1, 1, 2])), draw(st.floats(0, 1)),
        )
        for _ in range(2)
    ]  # fmt: skip
    if draw(st.booleans()):
        sides[1] = (sides[1][0], *sides[0][1:])
    extent, taps, stride, padding, dilation, share = zip(*sides, strict=True)
    # Every output's window begins on a pixel or on the padding before it.
    most = [(e + p - 1) // s + 1 for e, p, s in zip(extent, padding, stride, strict=True)]
    out = tuple(1 + int(f * (m - 1)) for f, m in zip(share, most, strict=True))
    return Shape(
        images=draw(st.integers(1, 3)),
        channels=groups * draw(st.sampled_from([1, 2, 16, 21])),
        extent=extent, filters=groups * draw(st.sampled_from([1, 3, 16, 35])), taps=taps, out=out,
        stride=stride, padding=padding, dilation=dilation, groups=groups,
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(shapes())
def test_any_shape(shape: Shape) -> None:
    Passes(shape, torch.float64).check({p: choose(shape, p) for p in PASSES})


@pytest.mark.parametrize("name", ["conv3", "conv1", "strided", "depthwise"])
def test_what_is_there_is_added_to_and_negative_becomes_zero(name: str) -> None:
    passes = Passes(CASES[name], torch.float64)
    shape, given_ = passes.shape, options(passes.shape)
    y0, dx0 = torch.randn_like(passes.dy), torch.randn_like(passes.x)
    y, dx = y0.clone(), dx0.clone()
    dweight, dbias = torch.ones_like(passes.weight), torch.ones_like(passes.bias)
    convolution.forward(passes.x, passes.weight, passes.bias, y, relu=True, add=True, **given_)
    convolution.grad_input(passes.dy, passes.weight, dx, add=True, **given_)
    convolution.grad_weight(passes.x, passes.dy, dweight, dbias, add=True, **given_)
    exact = [(passes.exact[0] + y0).relu(), passes.exact[1] + dx0]
    exact += [passes.exact[2] + 1, passes.exact[3] + 1]
    for values, wanted in zip((y, dx, dweight, dbias), exact, strict=True):
        assert distance(values, wanted) < 1e-10
    without = torch.full_like(passes.dy, NAN)
    convolution.forward(passes.x, passes.weight, None, without, **given_)
    assert distance(without, passes.exact[0] - passes.bias[:, None, None]) < 1e-10
    assert shape == convolution.shape_of(passes.x, passes.weight, without, **given_)


@pytest.mark.parametrize("value", [NAN, float("inf")])
@pytest.mark.parametrize("name", ["conv2", "conv3", "conv1", "strided", "depthwise"])
def test_not_a_number_travels(name: str, value: float) -> None:
    """To all that depends on it, and no farther than its tile."""
    passes = Passes(CASES[name], torch.float32)
    shape, given_ = passes.shape, options(passes.shape)
    passes.x[0, 0, 3, 2] = value
    y = torch.full_like(passes.dy, NAN)
    convolution.forward(passes.x, passes.weight, passes.bias, y, relu=True, **given_)
    bare = reference(passes.x.double(), passes.weight.double(), None, shape)
    assert y[0][bare[0].isnan()].isnan().all()
    if math.isnan(value):
        assert y[0, 0].isnan().any()
    else:
        assert not y[0][~bare[0].isfinite()].isfinite().all()
    if shape.images > 1:
        assert y[1].isfinite().all()
    dweight = torch.full_like(passes.weight, NAN)
    convolution.grad_weight(passes.x, passes.dy, dweight, None, **given_)
    assert not dweight.isfinite().all()


@pytest.mark.parametrize(("outputs", "taps"), TRANSFORMS)
def test_transforms_are_exact_in_fractions(outputs: int, taps: int) -> None:
    made = cook_toom(outputs, taps)
    size = outputs + taps - 1
    g = [Fraction(3 * i + 1, 7) for i in range(taps)]
    d = [Fraction(i * i - 5, 3) for i in range(size)]

    def times(matrix: list[list[Fraction]], values: list[Fraction]) -> list[Fraction]:
        return [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix]

    products = [a * b for a, b in zip(times(made.g, g), times(made.b, d), strict=True)]
    direct = [sum(g[j] * d[i + j] for j in range(taps)) for i in range(outputs)]
    assert times(made.a, products) == direct


def test_the_layers_of_2012_take_these_tiles() -> None:
    names = {
        name: [choose(LAYERS[name], p).name for p in PASSES] for name in ("conv1", "conv2", "conv3")
    }
    assert names == {
        "conv1": ["folded 11*5", "direct", "folded 11*5"],
        "conv2": ["winograd 7*4"] * 3,
        "conv3": ["winograd 5+2*4"] * 3,
    }


@given(
    st.sampled_from(["winograd", "folded"]),
    st.lists(st.integers(4, 5), min_size=1).map(lambda sizes: tuple(sorted(sizes)[::-1])),
    st.lists(st.integers(4, 5), min_size=1).map(lambda sizes: tuple(sorted(sizes)[::-1])),
)
def test_a_name_says_the_whole_algorithm(
    kind: str, rows: tuple[int, ...], columns: tuple[int, ...]
) -> None:
    for algorithm in (algorithm_of(kind), replace(algorithm_of(kind), rows=rows, columns=columns)):
        assert algorithm_of(algorithm.name) == algorithm
    assert algorithm_of("depthwise").kind == "depthwise"


def test_what_is_multiplied() -> None:
    """Conv3 by 19 x 19 products an image where the direct method takes 39 x 39."""
    shape = shape_of(128, 256, (13, 13), 192, (3, 3), (13, 13), padding=(1, 1))
    tiled = multiply_adds(shape, choose(shape, "forward"))
    assert tiled == 128 * 256 * 192 * 19 * 19
    assert multiply_adds(shape, DIRECT) == 128 * 256 * 192 * 39 * 39
    conv1 = shape_of(1, 3, (224, 224), 48, (11, 11), (55, 55), stride=(4, 4))
    assert multiply_adds(conv1, choose(conv1, "forward")) == 48 * 48 * 77 * 77


@given(st.integers(1, 60))
def test_tiles_cover_an_axis_with_the_fewest_products(extent: int) -> None:
    tiles = cover(extent, 3)
    assert sum(tiles) >= extent > sum(tiles[:-1])
    fewest = min(
        7 * fives + 6 * fours
        for fives, fours in product(range(13), range(16))
        if 5 * fives + 4 * fours >= extent
    )
    assert sum(m + 2 for m in tiles) == fewest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 4, 6, 6)}, "x must be channels-last"),
        ({"x": torch.zeros(2, 4, 6)}, "must have 4 axes"),
        ({"x": torch.zeros(2, 4, 6, 6, dtype=torch.float16)}, "x must be float32 or float64"),
        ({"weight": torch.zeros(8, 4, 3, 3).double()}, "weight is torch.float64, but x is"),
        ({"weight": torch.zeros(8, 5, 3, 3)}, r"weight must be \[8, 4, 3, 3\], got \[8, 5, 3, 3\]"),
        ({"bias": torch.zeros(7)}, r"bias must be \[8\], got \[7\]"),
        ({"bias": torch.zeros(16)[::2]}, "bias must be contiguous"),
        ({"groups": 3}, "3 groups do not divide 4 channels and 8 filters"),
        ({"stride": (0, 1)}, "sizes of a convolution must be positive"),
        ({"scratch": torch.zeros(8, dtype=torch.uint8)}, "scratch needs .* bytes, got 8"),
        ({"scratch": torch.zeros(8)}, "scratch must be a row of bytes"),
        ({"algorithm": Algorithm("winograd", (4,), (4,))}, "winograd 4 does not compute forward"),
        ({"algorithm": Algorithm("depthwise")}, "depthwise does not compute forward"),
        ({"algorithm": Algorithm("folded", (4, 4), (4, 4))}, "does not compute forward"),
    ],
)  # fmt: skip
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    given_: dict[str, object] = {
        "x": torch.zeros(2, 6, 6, 4).permute(0, 3, 1, 2),
        "weight": torch.zeros(8, 4, 3, 3),
        "bias": torch.zeros(8),
        "y": torch.zeros(2, 6, 6, 8).permute(0, 3, 1, 2),
        "padding": (1, 1),
        "algorithm": Algorithm("direct"),
    }
    with pytest.raises(ValueError, match=message):
        convolution.forward(**{**given_, **change})  # type: ignore[arg-type]

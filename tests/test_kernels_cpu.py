"""Convolutions of the CPU kernels: values and gradients against float64, for every algorithm."""

import math
from functools import partial

import pytest
import torch
from cpu_cases import NAN, TYPES, distance, same_for_threads, shape_of
from cpu_cases import convolution as reference
from cpu_convolutions import CASES, Passes, options
from hypothesis import given, settings
from hypothesis import strategies as st

from alexsim_kernels.cpu import convolution
from alexsim_kernels.cpu.algorithm import (
    PASSES,
    Algorithm,
    Pass,
    Shape,
    choose,
    cover,
)

pytestmark = pytest.mark.usefixtures("cpu_kernels")
Tensor = torch.Tensor
DIRECT, INDIRECT = Algorithm("direct"), Algorithm("indirect")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_all_passes_of_the_chosen_algorithm(name: str, dtype: torch.dtype) -> None:
    shape = CASES[name]
    Passes(shape, dtype).check({p: choose(shape, p) for p in PASSES})


def tiled(shape: Shape) -> dict[Pass, Algorithm]:
    """Winograd's method for all passes, whatever it costs."""
    sides = {p: shape.extent if p == "grad_input" else shape.out for p in PASSES}
    taps = shape.taps[0]
    return {p: Algorithm("winograd", *(cover(n, taps) for n in side)) for p, side in sides.items()}


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(
    "name",
    ["conv2", "conv3", "lanes", "groups", "five, one image", "much padding", "over the edge"],
)
def test_winograd_s_method(name: str, dtype: torch.dtype) -> None:
    passes = Passes(CASES[name], dtype)
    passes.check(tiled(passes.shape))
    if name in ("conv3", "groups"):
        same_for_threads(partial(passes.run, tiled(passes.shape)))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("name", sorted(set(CASES) - {"conv1", "conv2"}))
def test_the_indirect_method_computes_any_shape(name: str, dtype: torch.dtype) -> None:
    passes = Passes(CASES[name], dtype)
    passes.check(dict.fromkeys(PASSES, INDIRECT))
    same_for_threads(partial(passes.run, dict.fromkeys(PASSES, INDIRECT)))


@pytest.mark.parametrize("filters", [64, 72])
def test_large_results_pass_the_caches(filters: int) -> None:
    """Streamed stores begin at 16 MiB; rows of 72 filters are not all aligned to a vector."""
    x = torch.randn(2, 190, 180, 8).permute(0, 3, 1, 2)
    weight, y = torch.randn(filters, 8, 1, 1), torch.full((2, 190, 180, filters), NAN)
    y, few = y.permute(0, 3, 1, 2), torch.empty(1, 190, 180, filters).permute(0, 3, 1, 2)
    convolution.forward(x, weight, None, y, algorithm=INDIRECT)
    for image in range(2):
        convolution.forward(x[image : image + 1], weight, None, few, algorithm=INDIRECT)
        assert torch.equal(y[image], few[0])


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


@pytest.mark.parametrize("name", ["conv3", "conv1", "1 x 1, strided", "strided", "depthwise"])
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
@pytest.mark.parametrize("name", ["conv2", "conv3", "conv1", "1 x 1", "strided", "depthwise"])
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

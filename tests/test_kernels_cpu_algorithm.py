"""Which algorithm a convolution takes on a CPU, what it multiplies, and its transforms."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
from cpu_cases import shape_of
from hypothesis import given
from hypothesis import strategies as st

from alexsim_kernels.cpu.algorithm import (
    PASSES,
    Algorithm,
    algorithm_of,
    choose,
    cover,
    multiply_adds,
)
from alexsim_kernels.cpu.transforms import TRANSFORMS, cook_toom

DIRECT = Algorithm("direct")


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
    column = {
        "conv1": (3, 224, 48, 11, 4, 0, 55),
        "conv2": (48, 27, 128, 5, 1, 2, 27),
        "conv3": (256, 13, 192, 3, 1, 1, 13),
    }
    names = {}
    for name, (c, extent, k, taps, stride, padding, out) in column.items():
        shape = shape_of(
            128, c, (extent,) * 2, k, (taps,) * 2, (out,) * 2, stride=(stride,) * 2,
            padding=(padding,) * 2,
        )  # fmt: skip
        names[name] = [choose(shape, p).name for p in PASSES]
    assert names == {
        "conv1": ["folded 11*5", "indirect", "folded 11*5"],
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
    for kind_alone in ("depthwise", "indirect"):
        assert algorithm_of(kind_alone).kind == kind_alone


def test_what_is_multiplied() -> None:
    """Conv3 by 19 x 19 products an image where the direct method takes 39 x 39."""
    shape = shape_of(128, 256, (13, 13), 192, (3, 3), (13, 13), padding=(1, 1))
    tiled = multiply_adds(shape, choose(shape, "forward"))
    assert tiled == 128 * 256 * 192 * 19 * 19
    assert multiply_adds(shape, DIRECT) == 128 * 256 * 192 * 39 * 39
    conv1 = shape_of(1, 3, (224, 224), 48, (11, 11), (55, 55), stride=(4, 4))
    assert multiply_adds(conv1, choose(conv1, "forward")) == 48 * 48 * 77 * 77


@pytest.mark.parametrize(
    ("channels", "extent", "filters", "taps", "stride", "kinds"),
    [
        (64, 56, 256, 1, 1, ["indirect"] * 3),
        (1024, 14, 2048, 1, 2, ["indirect"] * 3),
        (128, 56, 128, 3, 2, ["indirect"] * 3),
        (256, 14, 256, 3, 1, ["winograd"] * 3),
        (3, 224, 64, 7, 2, ["direct", "indirect", "direct"]),
    ],
)
def test_the_layers_of_resnet_50(
    channels: int, extent: int, filters: int, taps: int, stride: int, kinds: list[str]
) -> None:
    shape = shape_of(
        32, channels, (extent,) * 2, filters, (taps,) * 2, (extent // stride,) * 2,
        stride=(stride,) * 2, padding=(taps // 2,) * 2,
    )  # fmt: skip
    assert [choose(shape, p).kind for p in PASSES] == kinds


def test_few_tiles_are_not_worth_the_transform_of_many_filters() -> None:
    kinds = [
        choose(shape_of(n, 512, (7, 7), 512, (3, 3), (7, 7), padding=(1, 1)), "forward").kind
        for n in (1, 64)
    ]
    assert kinds == ["indirect", "winograd"]


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

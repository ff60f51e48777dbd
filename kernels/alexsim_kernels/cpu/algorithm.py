"""Which algorithm a convolution takes on a CPU, as data: a planner can record and price it.

Imports nothing but the standard library: neither torch nor a compiler is needed to choose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Size = tuple[int, int]
Pass = Literal["forward", "grad_input", "grad_weight"]
Kind = Literal["winograd", "folded", "indirect", "direct", "depthwise"]

_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
PASSES: tuple[Pass, ...] = ("forward", "grad_input", "grad_weight")
ERRORS = {(4, 3): 3.0e-6, (5, 3): 5.0e-6, (4, 5): 4.5e-6}
"""Largest relative error of a pass by F(m, r) in float32: the norm of the difference to float64
over the norm of the result, random data, all three passes (``alexsim_kernels.bench.cpu``)."""
MOST_ERROR = 1e-5
"""No algorithm is chosen whose error is larger."""
_TRANSFORM = 16
"""What a transformed value costs, in multiply-adds of the products: an estimate."""
_BANK = {"forward": 50, "grad_input": 50, "grad_weight": 80}
"""What a transformed value of the filters costs, once for all images, likewise: their planes lie
far apart in memory, and with few tiles this is most of the time."""
_GATHER = 6
"""What a value costs that the direct method gathers, likewise."""
_MOST_DEPTHWISE_TAPS = 256
"""``MOST_TAPS`` of ``direct.cpp``."""
_MOST_FOLDED = 64
"""Channels of a folded image: more, and the direct method loses nothing."""
_LEAST_SOURCES = 4
"""Channels of a group from which products read pixels where they lie no slower than gathered ones;
below, whole rows of taps are gathered at a time."""
_LEAST_COLUMNS = {"one tap": 16, "groups": 32, "taps": 48}
"""The same for weight gradients, whose vectors are channels of one tap: gathered ones are of all
taps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A convolution: ``[images, channels, *extent]`` to ``[images, filters, *out]``.

    ``padding`` is above and to the left; below and to the right there are as many zeros as
    ``out`` needs.
    """

    images: int
    channels: int
    extent: Size
    filters: int
    taps: Size
    out: Size
    stride: Size = (1, 1)
    padding: Size = (0, 0)
    dilation: Size = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        sizes = (self.images, self.channels, self.filters, self.groups)
        pairs = (self.extent, self.taps, self.out, self.stride, self.dilation)
        if min(*sizes, *(value for pair in pairs for value in pair)) < 1 or min(self.padding) < 0:
            raise ValueError(f"sizes of a convolution must be positive, got {self}")
        if self.channels % self.groups or self.filters % self.groups:
            raise ValueError(
                f"{self.groups} groups do not divide {self.channels} channels and"
                f" {self.filters} filters"
            )

    @property
    def group_channels(self) -> int:
        """Channels that a filter sees."""
        return self.channels // self.groups

    @property
    def group_filters(self) -> int:
        """Filters that see a channel."""
        return self.filters // self.groups


@dataclass(frozen=True, slots=True)
class Algorithm:
    """How a pass is computed.

    ``winograd``: tiles of these heights from the top and widths from the left. ``folded``: the
    same, of an image whose blocks of ``stride`` x ``stride`` pixels are channels (space to depth).
    ``indirect``: one product of matrices, whose rows are read where they lie, by pointers.
    ``direct``: the same, gathered some rows at a time.
    ``depthwise``: a filter per channel, channel by channel.
    """

    kind: Kind
    rows: tuple[int, ...] = ()
    columns: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """``winograd 5+4+4 x 5+4+4``; runs of equal tiles are counted: ``11*5``."""
        if not self.rows:
            return self.kind
        sides = [self.rows] if self.rows == self.columns else [self.rows, self.columns]
        return f"{self.kind} {' x '.join(_runs(side) for side in sides)}"


def algorithm_of(name: str) -> Algorithm:
    """The algorithm of that name: what ``Algorithm.name`` is the inverse of."""
    kind, *rest = name.split(" ", 1)
    sides = [_sizes(side) for side in rest[0].split(" x ")] if rest else [()]
    return Algorithm(_KINDS[kind], sides[0], sides[-1])


def _sizes(runs: str) -> tuple[int, ...]:
    sizes: list[int] = []
    for run in runs.split("+"):
        count, _, size = run.rpartition("*")
        sizes += [int(size)] * int(count or 1)
    return tuple(sizes)


def _runs(sizes: tuple[int, ...]) -> str:
    counted = [(sizes.count(size), size) for size in sorted(set(sizes), reverse=True)]
    return "+".join(str(size) if count == 1 else f"{count}*{size}" for count, size in counted)


def tile_taps(shape: Shape, kind: Kind) -> int:
    """Taps along an axis of what the tiles are computed with."""
    return -(-shape.taps[0] // shape.stride[0]) if kind == "folded" else shape.taps[0]


def is_depthwise(shape: Shape) -> bool:
    """Whether ``depthwise`` computes it: a filter per channel, of not too many taps."""
    each = shape.group_channels == shape.group_filters == 1
    return each and shape.taps[0] * shape.taps[1] <= _MOST_DEPTHWISE_TAPS


def choose(shape: Shape, pass_: Pass) -> Algorithm:
    """The fastest algorithm whose error is bounded, by a count of what each multiplies and moves.

    The choice depends on nothing but the shape: every machine and number of threads makes it alike.
    """
    if shape.groups > 1 and is_depthwise(shape):
        return Algorithm("depthwise")
    kind = _tiled_kind(shape, pass_)
    direct = Algorithm(_product_kind(shape, pass_))
    if kind is None:
        return direct
    taps = tile_taps(shape, kind)
    extent = shape.extent if pass_ == "grad_input" else shape.out
    rows, columns = (cover(size, taps) for size in extent)
    tiled = Algorithm(kind, rows, columns)
    if any(ERRORS[m, taps] > MOST_ERROR for m in {*rows, *columns}):
        return direct
    products = _products(tiled, taps)
    channels, filters = shape.group_channels, shape.group_filters
    folded = channels * shape.stride[0] ** 2 if kind == "folded" else channels
    tiled_cost = products * (_lanes(folded) * filters + _TRANSFORM * _lanes(folded + filters))
    bank = (max(rows) + taps - 1) * (max(columns) + taps - 1) * folded * filters
    tiled_cost += _BANK[pass_] * bank // shape.images
    positions = extent[0] * extent[1] * shape.taps[0] * shape.taps[1]
    gathered = _GATHER if direct.kind == "direct" else 0
    direct_cost = positions * channels * (_lanes(filters) + gathered)
    return tiled if tiled_cost < direct_cost else direct


def _product_kind(shape: Shape, pass_: Pass) -> Kind:
    if pass_ == "grad_weight":
        one = shape.taps == (1, 1)
        least = _LEAST_COLUMNS["one tap" if one else "groups" if shape.groups > 1 else "taps"]
        return "indirect" if shape.group_channels >= least else "direct"
    sources = shape.group_channels if pass_ == "forward" else shape.group_filters
    return "indirect" if sources >= _LEAST_SOURCES else "direct"


def multiply_adds(shape: Shape, algorithm: Algorithm) -> int:
    """Multiply-adds of the products that a pass is made of; transforms are not counted."""
    filters = shape.images * shape.filters
    if not algorithm.rows:
        taps = shape.taps[0] * shape.taps[1]
        return filters * shape.group_channels * taps * shape.out[0] * shape.out[1]
    fold = shape.stride[0] ** 2 if algorithm.kind == "folded" else 1
    products = _products(algorithm, tile_taps(shape, algorithm.kind))
    return filters * shape.group_channels * fold * products


def _products(algorithm: Algorithm, taps: int) -> int:
    """Products of an image, for each channel and filter."""
    rows, columns = (
        sum(m + taps - 1 for m in side) for side in (algorithm.rows, algorithm.columns)
    )
    return rows * columns


def _lanes(channels: int) -> int:
    """Channels that vectors of 16 compute for so many."""
    return -(-channels // 16) * 16


def _tiled_kind(shape: Shape, pass_: Pass) -> Kind | None:
    square = len({shape.taps, shape.taps[::-1]}) == 1
    if not square or shape.dilation != (1, 1):
        return None
    if shape.stride == (1, 1):
        return "winograd" if shape.taps[0] in (3, 5) else None
    folds = shape.stride[0] == shape.stride[1] and pass_ != "grad_input" and shape.groups == 1
    small = shape.channels * shape.stride[0] ** 2 <= _MOST_FOLDED
    return "folded" if folds and small and tile_taps(shape, "folded") == 3 else None


def cover(extent: int, taps: int) -> tuple[int, ...]:
    """Tiles along an axis, with the fewest products that reach over ``extent`` outputs.

    The last may reach beyond the end. Of equal counts of products, the fewest tiles.
    """
    if taps == 5:
        return (4,) * -(-extent // 4)
    choices = []
    for fives in range(-(-extent // 5) + 1):
        fours = max(0, -(-(extent - 5 * fives) // 4))
        choices.append((7 * fives + 6 * fours, fives + fours, fives))
    _, tiles, fives = min(choices)
    return (5,) * fives + (4,) * (tiles - fives)

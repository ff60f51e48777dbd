"""Scratch of the convolutions: which buffers, how large, and how tiles are cut to fit the caches.

Everything follows from shapes and the number of threads, so that a plan can state it; only the
standard library is imported. Sizes are in values, of ``item_bytes`` each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from alexsim_kernels.cpu.algorithm import Algorithm, Pass, Shape, Size, tile_taps

LANES = 16
"""Channels are padded to whole multiples of it: the widest vector of float32."""
ALIGNMENT = 64
"""Bytes: buffers begin on cache lines."""
_STAGGER = 16
_THREAD_BYTES = 3 << 20
"""Tiles and products of a thread: about as many as were fastest for AlexNet's layers on a core
with 1 MiB of L2."""
_WEIGHT_BYTES = 6 << 20
"""The same of a weight gradient, whose sums are the longer the more tiles there are at a time."""
_BANKS_BYTES = 20 << 20
"""Filters that are transformed before threads meet, unless those of a single set take more."""
_BLOCK = 18 * 64 + 16
"""Products of a block of a weight gradient, at most: ``Panels::rows`` of 4 vectors of 16 values,
and ``_STAGGER``."""
_SLICES = 16
_SLICES_BYTES = 16 << 20
"""Sums of a weight gradient's slices take no more, unless those of a single one do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSet:
    """Tiles of one size in an image, and how many are transformed at a time."""

    size: Size
    first: Size
    count: Size
    tiles: int


@dataclass(frozen=True, slots=True)
class Buffers:
    """Named parts of a scratch, in values."""

    sizes: dict[str, int] = field(default_factory=dict)

    def offsets(self, item_bytes: int) -> dict[str, int]:
        """Where each begins, in bytes."""
        places, total = {}, 0
        for name, size in self.sizes.items():
            places[name] = total
            total += -(-size * item_bytes // ALIGNMENT) * ALIGNMENT
        return places

    def bytes(self, item_bytes: int) -> int:
        """Of all, wherever the scratch begins."""
        parts = (-(-size * item_bytes // ALIGNMENT) * ALIGNMENT for size in self.sizes.values())
        total = sum(parts)
        return total + ALIGNMENT if total else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TiledScratch:
    """Buffers of a pass by Winograd's method, and its cuts."""

    buffers: Buffers
    sets: tuple[TileSet, ...]
    slices: int
    parts: int
    tile_pitch: int
    result_pitch: int
    transformed_room: int
    tiles_room: int
    results_room: int
    folded_room: int


def padded(channels: int) -> int:
    """Channels in scratch."""
    return -(-channels // LANES) * LANES


def pitch(channels: int) -> int:
    """Distance of rows of so many channels: never a multiple of a large power of two.

    Such rows would share a few sets of the caches: conv2's weight gradient takes 31 ms, not 78.
    """
    wide = padded(channels)
    return wide if wide % 32 else wide + LANES


def slices(
    chunks: int, blocks: int, groups: int, values: int, threads: int, item_bytes: int
) -> tuple[int, int]:
    """How a weight gradient is cut into tasks: slices of a group's sums, and parts of a slice.

    Every slice has sums of its own, which are added in order: their number follows from the shape
    alone, as bits depend on it, and is a power of two, which most numbers of threads share evenly.
    Parts are of the weights: they change no sum, but all read the same images. There are more of
    them only where threads would be without two tasks each.

    Args:
        chunks: of the images, of a group.
        blocks: of the weights, of a group.
        groups: of the convolution.
        values: of a slice of a group.
        threads: that compute it.
        item_bytes: of a value.
    """
    most = max(1, min(chunks, _SLICES, _SLICES_BYTES // (groups * values * item_bytes)))
    count = 1 << most.bit_length() - 1
    return count, min(blocks, -(-2 * threads // (groups * count)))


def tiled(
    shape: Shape, algorithm: Algorithm, pass_: Pass, threads: int, item_bytes: int
) -> TiledScratch:
    """Scratch of ``winograd`` and ``folded``."""
    taps = tile_taps(shape, algorithm.kind)
    channels, filters = shape.group_channels, shape.group_filters
    if pass_ == "grad_input":
        channels, filters = filters, channels
    folded = 0
    if algorithm.kind == "folded":
        channels *= shape.stride[0] ** 2
        folded = (shape.out[0] + taps - 1) * (shape.out[1] + taps - 1) * channels
    together = pass_ == "grad_weight"
    tile_pitch, result_pitch = pitch(channels), pitch(filters)
    room = (_WEIGHT_BYTES if together else _THREAD_BYTES) // item_bytes
    sets, all_products, values, results, chunks = [], [], 0, 0, 0
    for rows in _runs(algorithm.rows):
        for columns in _runs(algorithm.columns):
            products = (rows[1] + taps - 1) * (columns[1] + taps - 1)
            per_image = rows[2] * columns[2]
            tiles = _at_a_time(
                shape.images,
                per_image,
                room // (products * (tile_pitch + result_pitch)),
            )
            sets.append(
                TileSet(
                    size=(rows[1], columns[1]),
                    first=(rows[0], columns[0]),
                    count=(rows[2], columns[2]),
                    tiles=tiles,
                )
            )
            chunks += -(-shape.images * per_image // tiles)
            all_products.append(products)
            values = max(values, products * (tiles * tile_pitch + _STAGGER))
            results = max(results, products * (tiles * result_pitch + _STAGGER))
    bank, count, parts, sums = channels * padded(filters), 1, 1, 0
    if together:
        slice_values = taps * taps * bank + padded(filters)
        count, parts = slices(
            chunks, padded(channels) // LANES, shape.groups, slice_values, threads, item_bytes
        )
        sums, transformed = shape.groups * count * slice_values, max(all_products) * _BLOCK
    else:
        most, every = (
            products * (bank + _STAGGER)
            for products in (max(all_products), shape.groups * sum(all_products))
        )
        transformed = max(most, min(every, _BANKS_BYTES // item_bytes))
    buffers = Buffers(
        {
            "sums": sums,
            "transformed": transformed * (threads if together else 1),
            "tiles": threads * values,
            "results": threads * results,
            "folded": threads * folded,
        }
    )
    return TiledScratch(
        buffers=buffers,
        sets=tuple(sets),
        slices=count,
        parts=parts,
        tile_pitch=tile_pitch,
        result_pitch=result_pitch,
        transformed_room=transformed,
        tiles_room=values,
        results_room=results,
        folded_room=folded,
    )


def _runs(sizes: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Runs of equal tiles along an axis: first output, size, count."""
    runs, first = [], 0
    for size, group in groupby(sizes):
        count = len(list(group))
        runs.append((first, size, count))
        first += size * count
    return runs


def _at_a_time(images: int, per_image: int, most: int) -> int:
    """Tiles at a time: whole images in an even number of turns, or an even part of an image."""
    most = max(1, most)
    if most < per_image:
        return -(-per_image // -(-per_image // most))
    turns = -(-images // (most // per_image))
    return per_image * -(-images // (turns + turns % 2 if turns > 1 else turns))

"""Ways to run a pass of a convolution that are worth timing on a card, and their launches.

Of each kind (pointers; wide loads of few channels; persistent; sums in parts; tensor descriptors,
also persistent, also with warps that only fetch) the tiles that ``tuning``'s model puts first. What
they compile to is on record (``candidates.csv``): those that spill, or do not compile, for a
card's architecture are not offered. ``alexsim_kernels.candidates_record`` writes the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from math import prod

import triton

from alexsim_kernels import tuning
from alexsim_kernels.code import KernelCode
from alexsim_kernels.common import Config, power_of_two
from alexsim_kernels.convolution_descriptors import pixel_box
from alexsim_kernels.convolution_splits import SPLIT_BYTES
from alexsim_kernels.convolution_weight import MOST_SPLITS
from alexsim_kernels.model import Launch
from alexsim_kernels.recorded import CANDIDATES, code_of, rows
from alexsim_kernels.tuning import Card, Key

DESCRIPTORS_FROM = 90
"""Compute capability of the first cards with a copy engine for tiles."""
_ALIGNED = 16
_SPECIALISED_ROWS = 64
"""Rows of the only tiles of which Triton makes warps that fetch and others that multiply, on
sm_90: it halves larger ones, and then finds their descriptors too large."""


def candidates(
    key: Key, capability: int, multiprocessors: int, *, stride: int, groups: int
) -> list[Config]:
    """What is worth timing for a product, the plainest first; nothing twice."""
    made = [*_pointers(key, capability, multiprocessors)]
    item = key.item_bytes
    other = key.n if key.op != "grad_weight" else key.m
    aligned = all(size * item % _ALIGNED == 0 for size in (key.run, other))
    if stride == 1 and groups == 1 and aligned and capability >= DESCRIPTORS_FROM:
        made += _descriptors(key)
    return list(dict.fromkeys(made))


def _ranked(key: Key, capability: int, multiprocessors: int) -> list[Config]:
    """The best tiles by the model, of different shapes."""
    ranked = sorted(
        tuning.candidates(key, capability), key=lambda c: tuning.cost(key, c, multiprocessors)
    )
    by_shape: dict[tuple[int, int], Config] = {}
    for config in ranked:
        by_shape.setdefault((config.block_m, config.block_n), config)
    return list(by_shape.values())


def _pointers(key: Key, capability: int, multiprocessors: int) -> Iterator[Config]:
    first, *others = _ranked(key, capability, multiprocessors)
    yield first
    yield from others[:1]
    if key.flat:
        yield replace(first, loads="rows")
    if key.op == "grad_weight":
        tiles = _programs(key, first)
        for waves in (1, 2):
            splits = min(MOST_SPLITS, waves * multiprocessors // tiles)
            if splits > 1:
                yield replace(first, splits=splits)
        return
    small = next(
        (c for c in (first, *others) if tuning.registers(key, c) <= _PERSISTENT_REGISTERS), None
    )
    if small:
        yield replace(small, persistent=2)
    if _programs(key, first) < 2 * multiprocessors:
        for splits in (2, 4):
            if 4 * splits * key.m * key.n <= SPLIT_BYTES:
                yield replace(first, splits=splits)


_PERSISTENT_REGISTERS = 150
"""Most that ``tuning.registers`` may find: what lives from tile to tile comes on top."""


def _descriptors(key: Key) -> Iterator[Config]:
    if key.precision == "fp32" and key.op != "forward":
        return  # operands that are turned over in registers spill by the hundred
    half = key.precision in ("bf16", "fp16")
    depth = 64 if half else 32 if key.precision != "fp32" else 16
    if key.op == "grad_weight":
        tiles = [Config(64, 64, depth, 4, 3), Config(128, 64, depth, 8, 3)]
        if half:
            tiles.append(Config(128, 128, depth, 8, 3))
    else:
        tiles = [Config(128, 64, depth, 4, 3), Config(64, 64, depth, 4, 4)]
        if key.precision != "fp32":
            tiles.insert(0, Config(128, 128, depth, 8, 3))
    # Of TF32's input gradients Triton makes products that sm_90 has not, and gives up.
    turned = key.op == "grad_input" and key.precision == "tf32"
    if key.op != "grad_weight" and key.precision != "fp32" and not turned:
        specialised = Config(_SPECIALISED_ROWS, 64, depth, 4, 3, specialised=True)
        tiles.append(specialised)
    columns = power_of_two(16, key.run if key.op == "grad_weight" else key.n, 256)
    narrow = [
        replace(tile, block_n=min(tile.block_n, columns), loads="descriptors") for tile in tiles
    ]
    yield from narrow
    if key.op != "grad_weight":
        yield from (replace(config, persistent=1) for config in narrow[:2])


def _taps(key: Key) -> int:
    return (key.n if key.op == "grad_weight" else key.k) // key.run


def _programs(key: Key, config: Config) -> int:
    """Tiles of the result, without parts of sums."""
    if key.op == "grad_weight" and not key.flat:
        columns = _taps(key) * triton.cdiv(key.run, config.block_n)
    else:
        columns = triton.cdiv(key.n, config.block_n)
    return triton.cdiv(key.m, config.block_m) * columns


def launch_of(
    key: Key,
    config: Config,
    *,
    moved_bytes: int,
    images: tuple[int, int, int] | None = None,
    taps: tuple[int, int] | None = None,
) -> Launch:
    """A pass's launch.

    Args:
        key: the product.
        config: how it is cut up.
        moved_bytes: what it moves through memory at least.
        images: number, rows and columns of the pixels that boxes of descriptors cover: those of
            the result, or of the sum.
        taps: of a window, whose rows are longer for wide loads of few channels.
    """
    if config.loads == "rows" and taps:
        row = triton.cdiv(taps[1] * key.run, 4) * 4
        side = "n" if key.op == "grad_weight" else "k"
        key = replace(key, **{side: taps[0] * row})
    item = key.item_bytes
    m, n, k = config.block_m, config.block_n, config.block_k
    programs = _programs(key, config)
    pixels = key.k if key.op == "grad_weight" else key.m
    if config.loads == "descriptors" and images:
        # Boxes stick out of the images.
        covered = k if key.op == "grad_weight" else m
        box = pixel_box(*images, covered)
        boxes = prod(triton.cdiv(extent, part) for extent, part in zip(images, box, strict=True))
        pixels = boxes * covered
        if key.op != "grad_weight":
            programs = boxes * triton.cdiv(key.n, n)
    if key.op == "grad_weight":
        turns = triton.cdiv(pixels, k)
        splits = config.splits or triton.cdiv(MOST_SPLITS, programs)
        splits = max(1, min(splits, turns // 8, SPLIT_BYTES // (4 * key.m * key.n), MOST_SPLITS))
        turns = triton.cdiv(turns, splits)
        splits = triton.cdiv(triton.cdiv(pixels, k), turns)
        programs *= splits
        added = 2  # weights and biases, each by a kernel
    elif key.op.startswith("linear"):
        turns, splits, added = triton.cdiv(key.k, k), 1, 0
    else:
        turns = triton.cdiv(key.k, k) if key.flat else _taps(key) * triton.cdiv(key.run, k)
        splits = max(1, config.splits)
        turns, programs, added = triton.cdiv(turns, splits), programs * splits, 1
    return Launch(
        programs=programs, turns=turns, flop=2 * m * n * k, fetched_bytes=(m + n) * k * item,
        moved_bytes=moved_bytes + (8 * splits * key.m * key.n if splits > 1 else 0),
        warps=config.warps, kernels=1 + (added if splits > 1 else 0),
    )  # fmt: skip


def kind_of(config: Config) -> str:
    """Which kernel runs a candidate, and how, in words; tiles of one kind differ in size alone.
    Parts of a sum are a kind of their own where they are not the pass's own rule."""
    words: list[str] = [config.loads]
    words += ["specialised"] if config.specialised else []
    words += ["persistent"] if config.persistent else []
    words += ["in parts"] if config.splits else []
    return ", ".join(words)


def offered(key: Key, card: Card, *, stride: int, groups: int) -> list[Config]:
    """Candidates for a product on a card: without those that are on record as spilling there, or
    as not compiling."""
    made = candidates(key, card.capability, card.multiprocessors, stride=stride, groups=groups)
    known = _known(card.capability)
    bad = {tile for (product, tile), code in known.items() if product == key.name() and _bad(code)}
    return [config for config in made if text_of(config) not in bad]


def recorded_code(key: Key, config: Config, capability: int) -> KernelCode | None:
    """What a candidate compiled to for an architecture; None where that is not on record."""
    return _known(capability).get((key.name(), text_of(config)))


@cache
def _known(capability: int) -> dict[tuple[str, str], KernelCode]:
    """By product and tile; of several versions of Triton the newest."""
    return {
        (row["product"], row["tile"]): code_of(row)
        for row in rows(CANDIDATES)
        if row["arch"] == str(capability)
    }


def _bad(code: KernelCode) -> bool:
    return code.spills > 0 or not code.registers


def text_of(config: Config) -> str:
    """A config as the record has it."""
    return json.dumps(tile_of(config), separators=(",", ":"), allow_nan=False)


def tile_of(config: Config) -> dict[str, object]:
    """A config's tile, and its other fields where they are not the usual ones."""
    usual = Config(0, 0, 0)
    return {
        name: getattr(config, name)
        for name in Config.__slots__
        if name.startswith("block") or getattr(config, name) != getattr(usual, name)
    }

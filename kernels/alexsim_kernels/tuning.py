"""Which tile a kernel takes for a product: the measured fastest, or what a model of the card picks.

Nothing is ever timed behind the user's back: ``choose`` looks into the measurements that came with
the package, then into those that left in the user's cache, and otherwise asks the
model. A product multiplies an ``M x K`` by a ``K x N`` matrix, whatever its rows mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
import triton

from alexsim_kernels import tables
from alexsim_kernels.common import (
    Config,
    Precision,
    Tensor,
    interpreted,
    power_of_two,
    reachable,
)

SHARED_BYTES = {
    75: 64 << 10,
    80: 163 << 10,
    86: 99 << 10,
    89: 99 << 10,
    90: 227 << 10,
    100: 227 << 10,
    120: 99 << 10,
}
"""Bytes that one block may take, by compute capability: "maximum amount of shared memory per thread
block" in NVIDIA's CUDA C++ Programming Guide, table "Technical Specifications per Compute
Capability"; and the capabilities that kernels are compiled for where there is no card."""
_TAKEN = {100: 1.4}
"""Shared memory that a kernel takes over what its pipeline would: of float32 without tensor cores
in narrow tiles up to 1.36 of it, too much on sm_100 alone, where no other limit is met first."""
_REGISTERS = 224
"""Of a thread's 255: the model is rough, and a spill costs more than a smaller tile."""
_SIDES = (16, 32, 64, 128, 256)
_DEPTHS = (16, 32, 64)
_WARP = 32


@dataclass(frozen=True, slots=True)
class Key:
    """A product that a kernel runs: which pass, its sizes, and what its operands look like.

    ``run``: values that lie next to each other in memory, so how wide loads can be; ``flat``: taps
    and channels are one index.
    """

    op: str
    m: int
    n: int
    k: int
    run: int
    flat: bool
    precision: Precision
    item: int = 0
    """Bytes of an operand's value in memory; 0: the precision's own size."""

    @property
    def item_bytes(self) -> int:
        """Bytes of an operand's value in memory."""
        return self.item or (2 if self.precision in ("bf16", "fp16") else 4)

    def name(self) -> str:
        """Key in files; batches of a size class share a key, since only the rows differ."""
        size = 1 << (max(self.m, self.k).bit_length() - 1)
        small = self.n if self.op != "grad_weight" else f"{self.m}x{self.n}"
        wide = " of float32" if self.item_bytes == 4 and self.precision in ("bf16", "fp16") else ""
        return f"{self.op} {small} run {self.run} size {size} {self.precision}{wide}"


_asked: list[Key] | None = None
_launched = True


class _NotLaunchedError(Exception):
    """A tile was asked for, which was all that was wanted."""


@contextmanager
def asked(*, launch: bool = True) -> Iterator[list[Key]]:
    """The products for which tiles are chosen meanwhile; if nothing shall be launched, the first,
    which ends what asks for it."""
    global _asked, _launched
    keys: list[Key] = []
    _asked, _launched = keys, launch
    try:
        yield keys
    except _NotLaunchedError:
        pass
    finally:
        _asked, _launched = None, True


def choose(key: Key, like: Tensor) -> Config:
    """The tile for a product on the device of ``like``."""
    if _asked is not None:
        _asked.append(key)
        if not _launched:
            raise _NotLaunchedError
    if interpreted():
        return for_interpreter(key)
    card = card_of(like)
    measured = tables.tiles(card.name).get(key.name())
    if measured is None:
        return by_model(key, card.capability, card.multiprocessors)
    return Config(**measured)


def programs(tiles: int, config: Config, like: Tensor) -> int:
    """Programs that compute so many tiles on the device of ``like``."""
    if not config.persistent:
        return tiles
    multiprocessors = 3 if interpreted() else card_of(like).multiprocessors
    return min(tiles, config.persistent * multiprocessors)


@dataclass(frozen=True, slots=True)
class Card:
    """A device, and the version of Triton that compiles for it."""

    name: str
    capability: int
    multiprocessors: int = 0
    clock_hz: float = 1.7e9
    """The most that it may run at."""
    shared_bytes: int = 0
    """Of a multiprocessor."""

    def __post_init__(self) -> None:
        if not self.multiprocessors:
            count = {80: 108, 90: 132, 100: 148}.get(self.capability, 100)
            object.__setattr__(self, "multiprocessors", count)
        if not self.shared_bytes:
            of_block = SHARED_BYTES.get(self.capability, 98_304)
            object.__setattr__(self, "shared_bytes", of_block + 1024)


def card_of(like: Tensor) -> Card:
    """The card that a tensor lies on; or, where kernels are only compiled, their target.

    Raises:
        ValueError: it lies on no card, and has memory.
    """
    if like.device.type == "cuda":
        return _card(like.device.index or 0)
    reachable(like)
    arch = int(triton.runtime.driver.active.get_current_target().arch)
    return Card(f"sm_{arch}", arch)


@cache
def _card(index: int) -> Card:
    properties = torch.cuda.get_device_properties(index)
    return Card(
        tables.card_name(properties.name, triton.__version__),
        10 * properties.major + properties.minor,
        properties.multi_processor_count,
        # Kilohertz; older versions of PyTorch do not say.
        1e3 * getattr(properties, "clock_rate", 1.7e6),
        properties.shared_memory_per_multiprocessor,
    )


def for_interpreter(key: Key) -> Config:
    """As few, large tiles as possible: each interpreted operation costs the same.

    Weights that a fully connected layer reads across their rows are best few enough for a cache.
    """
    if key.op == "linear forward":
        n, k = power_of_two(16, key.n, 128), power_of_two(16, key.k, 256)
        return Config(power_of_two(16, key.m, _MOST_NUMBERS // max(n, k)), n, k)
    if key.op in ("linear grad_input", "linear grad_weight"):
        n, k = power_of_two(16, key.n, 1024), power_of_two(16, key.k, 512)
        return Config(power_of_two(16, key.m, _MOST_NUMBERS // max(n, k)), n, k)
    n = power_of_two(16, key.n if key.flat or key.op != "grad_weight" else key.run, 512)
    if key.op == "grad_weight":
        m = power_of_two(16, key.m, 256)
        return Config(m, n, power_of_two(16, key.k, _MOST_NUMBERS // max(m, n)))
    k = power_of_two(16, key.k if key.flat else key.run, 512)
    return Config(power_of_two(16, key.m, _MOST_NUMBERS // max(n, k)), n, k)


_MOST_NUMBERS = 1 << 20
"""Elements that Triton allows in one tile."""


@cache
def by_model(key: Key, capability: int, multiprocessors: int) -> Config:
    """The candidate that should take the least time."""
    return min(candidates(key, capability), key=lambda config: cost(key, config, multiprocessors))


def candidates(key: Key, capability: int) -> Iterator[Config]:
    """Tiles that fit the card's shared memory and registers, and the product's sides."""
    item = key.item_bytes
    for m in _SIDES:
        for n in _SIDES:
            for k in _DEPTHS:
                for warps in (4, 8):
                    for stages in (2, 3, 4):
                        config = Config(m, n, k, warps, stages)
                        if _fits(key, config, item, capability):
                            yield config


def _fits(key: Key, config: Config, item: int, capability: int) -> bool:
    m, n, k = config.block_m, config.block_n, config.block_k
    if m > 2 * power_of_two(16, key.m, 256) or n > power_of_two(16, key.n, 256):
        return False
    if k > power_of_two(16, _depth(key), 64):
        return False
    # Beside the pipeline, three products keep both halves of each operand.
    stages = config.stages + (3 if key.precision == "fp32x3" else 1)
    taken = item * (m + n) * k * stages * _TAKEN.get(capability, 1.0)
    if taken > SHARED_BYTES.get(capability, 98_304):
        return False
    return registers(key, config) <= _REGISTERS


def _depth(key: Key) -> int:
    """Values that one turn of the loop can add to a sum: a tap's channels, or all values."""
    return key.k if key.flat or key.op == "grad_weight" else key.run


def registers(key: Key, config: Config) -> float:
    """Registers of a thread, roughly: its sums, the operands it holds, and their addresses.

    Without tensor cores a thread holds a good part of its rows and columns of the whole depth,
    which is what made IEEE tiles of 128 x 128 x 32 spill; three products hold large and small
    halves. A flat index has an address and a mask per value, and gradients may be masked by a
    ReLU's output.
    """
    threads = _WARP * config.warps
    sums = config.block_m * config.block_n / threads
    loads = (config.block_m + config.block_n) * config.block_k / threads
    addresses = loads * (4 if key.flat else 2)
    match key.precision:
        case "fp32":
            operands = config.block_k * sums**0.5 / 2
        case "fp32x3":
            operands = 3 * loads + sums
        case "tf32":
            operands = loads
        case _:
            operands = loads / 2
    beside = loads if "grad" in key.op else 0.0
    if key.op == "linear grad_weight":
        beside += sums / 2  # momentum and weights, at the end
    return sums + operands + addresses + beside + 40


def cost(key: Key, config: Config, multiprocessors: int) -> float:
    """Relative time: padded work, over what the tile's shape and the last wave let through."""
    rows = triton.cdiv(key.m, config.block_m)
    columns = triton.cdiv(key.n, config.block_n)
    work = rows * columns * config.block_m * config.block_n
    depth = _depth(key)
    work *= triton.cdiv(depth, config.block_k) * config.block_k / depth
    # Loads per product fall with the tile's sides; a deep tile has fewer loop turns.
    intensity = 2 / (1 / config.block_m + 1 / config.block_n)
    overhead = 1 + 32 / intensity + 4 / config.block_k
    if key.op == "grad_weight":
        return work * overhead  # splits fill the card
    tiles = rows * columns
    waves = triton.cdiv(tiles, multiprocessors) * multiprocessors / tiles
    return work * overhead * waves / (1 + 0.02 * config.stages)

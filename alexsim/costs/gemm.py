"""Matrix products on a GPU: tiles, shared-memory and issue limits, waves, memory traffic.

A block of threads computes a tile; each thread keeps ``side x side`` sums in registers and reads
``2 side`` values from shared memory per step of the depth. What limits it per clock:

* lanes: one multiply-add each;
* issue: multiply-adds and (vectorised) loads share the schedulers;
* load/store lanes: they deliver one 4-byte word each.

(Volkov & Demmel 2008 and Lai & Seznec 2013 give this bound for SGEMM.) Where a thread has 63
registers (Fermi, GK104), tiles are smaller, and what brings them to shared memory counts too:
``rounds.lane_share``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt
from typing import Literal

from alexsim.costs.cost import Limit, Precision, launch_s
from alexsim.costs.rounds import Round, lane_share
from alexsim.machine.device import Architecture, Device
from alexsim.network.counts import FLOAT_BYTES

Cublas = Literal["cuda-3", "cuda-4.1"]
"""Of cards of 63 registers: until CUDA 4.0 a thread read one word of shared memory at a time (the
kernel of Nath, Tomov and Dongarra 2010), since CUDA 4.1 two."""
_WARP = 32
_STAGED = 16
"""Steps of the depth that such a kernel brings to shared memory at a time."""
_PROLOGUE = 24
"""Steps of the depth that loading the first tiles and storing the last sums cost."""
_SHORTEST = 256
"""Steps of the depth in the shortest part."""

_VECTORS = 8
"""Columns up to which matrix-vector kernels are used."""
_DOT = 0.25
"""Share of the lanes that they keep busy: each multiply-add waits for two loads."""


@dataclass(frozen=True, slots=True)
class _Tile:
    rows: int
    columns: int
    side_rows: int
    side_columns: int
    threads: int


_LARGE_REGISTERS = (
    _Tile(128, 128, 8, 8, 256),
    _Tile(128, 64, 8, 8, 128),
    _Tile(64, 128, 8, 8, 128),
    _Tile(64, 64, 8, 4, 128),
    _Tile(32, 128, 4, 8, 128),
    _Tile(128, 32, 8, 4, 128),
    _Tile(32, 32, 4, 4, 64),
)
_SMALL_REGISTERS = (
    _Tile(96, 96, 6, 6, 256),
    _Tile(64, 64, 4, 4, 256),
    _Tile(32, 64, 4, 4, 128),
    _Tile(64, 32, 4, 4, 128),
    _Tile(32, 32, 4, 4, 64),
)


def issue_bound(architecture: Architecture, sums: int, loads: float, passes: float) -> float:
    """Share of the float32 lanes that a kernel can keep busy.

    Args:
        architecture: what a multiprocessor does per clock.
        sums: multiply-adds of one thread per step.
        loads: load instructions for them.
        passes: times that these loads occupy the load/store lanes with a whole warp; a vector that
            is the same for all threads takes one.
    """
    lanes = architecture.lanes_per_sm.value / _WARP
    at_once = architecture.dual_issue.value if architecture.dual_issue else 1
    issue = architecture.issue_warps_per_clock.value * min(1.0, at_once * sums / (sums + loads))
    delivery = architecture.load_store_lanes_per_sm.value / _WARP * sums / passes
    return min(1.0, issue / lanes, delivery / lanes)


@lru_cache(maxsize=256)
def _tiles(device: Device, cublas: Cublas) -> tuple[tuple[_Tile, float], ...]:
    """Tiles that the registers allow, each with the multiply-adds per second of one SM."""
    architecture = device.architecture
    held = device.sustained_flop_per_s / device.flop_per_s
    # Matrix units, where they have float32, do what lanes would.
    held *= device.product_flop_per_s / device.flop_per_s
    rate = architecture.lanes_per_sm.value * device.clock_hz.value * held
    if architecture.registers_per_thread.value < 128:
        width = 1 if cublas == "cuda-3" else 2
        return tuple(
            (tile, rate * lane_share(architecture, _round(tile, width)))
            for tile in _SMALL_REGISTERS
        )
    return tuple(
        (
            tile,
            rate
            * issue_bound(
                architecture,
                tile.side_rows * tile.side_columns,
                (tile.side_rows + tile.side_columns) / 4,
                tile.side_rows + tile.side_columns,
            ),
        )
        for tile in _LARGE_REGISTERS
    )


def _round(tile: _Tile, width: int) -> Round:
    """Of either side, a warp's threads share most words."""
    words = (tile.rows + tile.columns) * _STAGED / tile.threads
    return Round(
        distinct=0,
        common=tile.side_rows + tile.side_columns,
        sums=tile.side_rows * tile.side_columns,
        steps=_STAGED,
        words=words,
        common_width=width,
    )


@lru_cache(maxsize=16384)
def gemm(  # noqa: PLR0913 - a product has that many sides
    device: Device,
    rows: int,
    columns: int,
    depth: int,
    *,
    batches: int = 1,
    split: bool = False,
    vectors: bool = False,
    operands_move: bool = True,
    precision: Precision = "fp32",
    cublas: Cublas = "cuda-4.1",
) -> tuple[float, Limit]:
    """Seconds of ``batches`` products of (rows x depth) by (depth x columns), and what limits.

    The fastest of the library's tiles is taken; ``split`` lets the depth be split over as many
    blocks as is fastest, at the price of adding the partial sums; ``vectors`` lets products
    with a few columns go by matrix-vector kernels; ``operands_move=False`` leaves the operands'
    memory traffic out, where they are made on the fly and the caller counts what moves;
    ``cublas`` matters on cards of 63 registers only.
    """
    multiprocessors = device.multiprocessors.value
    bandwidth = device.memory_bytes_per_s.value
    item = 2 if precision == "fp16" else FLOAT_BYTES
    operands = rows * depth + depth * columns + rows * columns
    memory_s = item * batches * operands / bandwidth if operands_move else 0.0
    speedup = tensor_speedup(device, precision)
    best, least_s = float("inf"), launch_s(device)
    if vectors and min(rows, columns) <= _VECTORS:
        # A few vectors: a warp per row reads the matrix once, and no tile is padded.
        best = 2 * batches * rows * columns * depth / (_DOT * device.sustained_flop_per_s)
    for tile, rate in _tiles(device, cublas):
        tiles = ceil(rows / tile.rows) * ceil(columns / tile.columns) * batches
        step_s = tile.rows * tile.columns / (rate * speedup)
        waves = ceil(tiles / multiprocessors)
        best = min(best, _waves(waves) * step_s * (depth + _PROLOGUE))
        if split:
            sum_s = FLOAT_BYTES * batches * rows * columns / bandwidth
            best = min(best, _split(depth, multiprocessors / tiles, step_s, sum_s) + least_s)
    if memory_s > best:
        return max(memory_s, least_s), "memory" if memory_s > least_s else "launch"
    return max(best, least_s), "compute" if best > least_s else "launch"


def _waves(waves: int) -> float:
    """Waves, at least 1.5: a single block leaves its multiprocessor waiting a third of the time."""
    return max(waves, 1.5)


def _split(depth: int, room: float, step_s: float, sum_s: float) -> float:
    """Seconds with the depth in the best number of parts, of two waves of blocks at most, beside
    the launch that adds the sums.

    The best number of parts that fits is taken, so more multiprocessors never cost time.

    Args:
        depth: of the whole product.
        room: multiprocessors per tile.
        step_s: seconds of one block for one step of the depth.
        sum_s: seconds in which one part's sums cross memory.
    """
    best = float("inf")
    for waves in (1, 2):
        most = min(int(waves * room), depth // _SHORTEST)
        if most < 2:
            continue
        block_s = _waves(waves) * step_s
        # Shorter parts against more sums: the best number is next to where both slopes are equal.
        even = int(min(most, sqrt(block_s * depth / sum_s)))
        for parts in (max(2, even), min(most, max(2, even + 1))):
            seconds = block_s * (depth / parts + _PROLOGUE) + sum_s * (parts + 1)
            best = min(best, seconds)
    return best


def peak_flop_per_s(device: Device, precision: Precision) -> float:
    """Peak of the units that multiply in a precision."""
    return max(device.product_flop_per_s, device.flop_per_s * tensor_speedup(device, precision))


@lru_cache(maxsize=256)
def tensor_speedup(device: Device, precision: Precision) -> float:
    """Peak of a precision over that of float32; 1 where the device has no unit for it."""
    if precision == "fp16" and device.tensor_fp16_flop_per_s:
        return device.tensor_fp16_flop_per_s / device.flop_per_s
    if precision == "tf32" and device.tensor_tf32_flop_per_s:
        return device.tensor_tf32_flop_per_s / device.flop_per_s
    return 1.0

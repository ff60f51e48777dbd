"""Single products by the cuBLAS of 2013 to 2016 (CUDA 5.5 to 8) on Kepler and Maxwell.

Most went by two tiles. What matters for one image's product, which has few of them, is how much of
a block's waiting other blocks on its multiprocessor hide. A round of eight steps of the depth waits
for memory and at two barriers; while it waits, only other blocks compute.

The constants here are read off DeepBench's products on a Titan X (CUDA 7.5): thin ones, whose tiles
have a multiprocessor each, take 110 to 150 clocks per step whatever their width.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from alexsim.costs.cost import Limit, launch_s
from alexsim.costs.gemm import issue_bound
from alexsim.costs.rounds import Round, lane_share
from alexsim.machine.device import Architecture, Device
from alexsim.network.counts import FLOAT_BYTES

_TILES = ((128, 64, 8, 8), (64, 64, 8, 4))
"""Rows, columns, and sums of each of 128 threads."""
_STAGED = 8
"""Steps of the depth in a round."""
_WAIT_CLOCKS = 800
"""What a round waits: for memory, and for all threads twice."""
_START = 40
"""Steps of the depth that the first words and the last sums cost: two such waits."""
_SHORTEST = 1024
"""Steps in the shortest part of a depth, split where multiprocessors would be left over."""
_ODD = 2.0
"""An odd side leaves rows that no wide load can begin with: conv1, with three channels, has one."""
_BY_DEPTH = 1.6
"""Both operands lie by the depth, as a weight gradient's do: each thread's words are far apart."""


@lru_cache(maxsize=4096)
def product_of_2014(
    device: Device, rows: int, columns: int, depth: int, *, by_depth: bool = False
) -> tuple[float, Limit]:
    """Seconds of (rows x depth) by (depth x columns), added to what is there, and what limits.

    ``by_depth``: both operands lie with the depth innermost.
    """
    multiprocessors, clock_hz = device.multiprocessors.value, device.clock_hz.value
    bandwidth = device.memory_bytes_per_s.value
    wait_s = _WAIT_CLOCKS / _STAGED / clock_hz
    best = float("inf")
    for tile in _TILES:
        tiles = ceil(rows / tile[0]) * ceil(columns / tile[1])
        lanes = device.architecture.lanes_per_sm.value * _share(device.architecture, tile)
        step_s = tile[0] * tile[1] / (lanes * clock_hz)
        most = min(ceil(multiprocessors / tiles), depth // _SHORTEST)
        for parts in range(1, max(most, 1) + 1):
            per_sm = ceil(tiles * parts / multiprocessors)
            seconds = max(per_sm * step_s, step_s + wait_s) * (depth / parts + _START)
            if parts > 1:
                sums = FLOAT_BYTES * rows * columns * (parts + 1)
                seconds += sums / bandwidth + launch_s(device)
            best = min(best, seconds)
    if by_depth:
        best *= _BY_DEPTH
    elif depth % 2 or columns % 2:
        best *= _ODD
    moved = FLOAT_BYTES * (rows * depth + depth * columns + 2 * rows * columns)
    if moved / bandwidth > best:
        return max(moved / bandwidth, launch_s(device)), "memory"
    return max(best, launch_s(device)), "compute"


@lru_cache(maxsize=64)
def _share(architecture: Architecture, tile: tuple[int, int, int, int]) -> float:
    """Share of the lanes that enough blocks keep busy.

    Kepler's kernels were written in its assembly: loads go out beside multiply-adds.
    """
    rows, columns, down, across = tile
    side = down + across
    if architecture.dual_issue is not None:
        return issue_bound(architecture, down * across, side / 4, side)
    words = (rows + columns) * _STAGED / (rows * columns / (down * across))
    return lane_share(architecture, Round(0, side, down * across, _STAGED, words, 1, 4))

"""What normalisation and colour noise know of a training set: its mean image and colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alexsim.data.images import TASK_IMAGES, Piece, square_statistics
from alexsim.errors import DataError
from alexsim.network.part import square_side

Floats = NDArray[np.float32]
STATISTICS_IMAGES = 1024
"""Files, evenly spread over the training set, that the mean image is taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What normalisation and colour noise need to know of the training set."""

    mean: Floats
    """Mean square, ``[side, side, channels]``, of pixels 0...255."""
    axes: Floats
    """Principal axes of the pixels' channels, one per column."""
    deviations: Floats
    """Deviation along each axis, pixels 0...255."""


def statistics(
    samples: Sequence[Piece],
    crop_side: int,
    channels: int,
    pool: ProcessPoolExecutor,
    progress: Callable[[int, int], None],
) -> Statistics:
    """Mean image and principal components over up to ``STATISTICS_IMAGES`` files.

    Raises:
        DataError: none of them can be read.
    """
    stride = max(1, len(samples) // STATISTICS_IMAGES)
    sampled = samples[::stride][:STATISTICS_IMAGES]
    tasks = [sampled[i : i + TASK_IMAGES] for i in range(0, len(sampled), TASK_IMAGES)]
    futures = [pool.submit(square_statistics, task, crop_side, channels) for task in tasks]
    side = square_side(crop_side)
    total, products, count = np.zeros((side, side, channels)), np.zeros((channels, channels)), 0
    for done, future in enumerate(futures):
        part, part_products, part_count = future.result()
        total, products, count = total + part, products + part_products, count + part_count
        progress(done + 1, len(futures))
    if not count:
        raise DataError(f"none of {len(sampled)} images can be read, such as {sampled[0].path}")
    return from_sums(total, products, count)


def from_sums(total: NDArray[np.float64], products: NDArray[np.float64], count: int) -> Statistics:
    """Mean and principal components of ``count`` squares.

    Args:
        total: sum of the squares, ``[side, side, channels]``.
        products: sum over all pixels of the products of their channels, ``[channels, channels]``.
    """
    pixels = count * total.shape[0] * total.shape[1]
    average = total.sum((0, 1)) / pixels
    values, axes = np.linalg.eigh(products / pixels - np.outer(average, average))
    return Statistics(
        mean=(total / count).astype(np.float32),
        axes=axes.astype(np.float32),
        deviations=np.sqrt(np.maximum(values, 0)).astype(np.float32),
    )

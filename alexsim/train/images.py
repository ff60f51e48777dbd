"""From JPEG files to crops, in worker processes. Imports no torch, so that workers start fast.

The paper's data path (section 2): the shorter side is scaled to 256 pixels, the central 256 x 256
cut out; training takes a random 224 x 224 crop of that and mirrors half of them. Other input
sizes scale alike: 28 pixels are cropped out of 32.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Pixels = NDArray[np.uint8]

Image.MAX_IMAGE_PIXELS = 500_000_000
"""Larger files are refused, as decompression bombs."""

_WORKER_NICE = 10
EXTENSIONS = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError)
"""What Pillow raises for a file that is not a whole image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """What to cut out of one file: offsets into the square, and whether to mirror."""

    path: str
    top: int
    left: int
    mirror: bool


def square_side(crop_side: int) -> int:
    """Side of the scaled square that crops are taken from: 256 for 224, 32 for 28."""
    return round(crop_side * 256 / 224)


def load_square(path: str | Path, side: int, channels: int) -> Pixels:
    """Decode a file and cut out its central square: ``[side, side, channels]``.

    EXIF rotation is applied, transparency and CMYK become RGB, grey becomes three equal channels
    (or colour becomes grey where ``channels`` is 1), and images smaller than the square grow.

    Raises:
        OSError, SyntaxError, ValueError: the file is no whole image.
    """
    mode = "L" if channels == 1 else "RGB"
    with Image.open(path) as opened:
        # JPEG decodes straight to a half, quarter or eighth of its size, if that still suffices.
        opened.draft(mode, (side, side))
        image = ImageOps.exif_transpose(opened)
        if image.mode in ("RGBA", "LA", "P", "PA"):
            image = image.convert("RGBA").convert("RGB")
        image = image.convert(mode)
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    pixels = np.asarray(image.crop((left, top, left + side, top + side)))
    return pixels.reshape(side, side, channels)


def load_crops(
    crops: Sequence[Crop], crop_side: int, channels: int
) -> tuple[Pixels, list[str | None]]:
    """Crops of several files, ``[n, side, side, channels]``, and why each failed, if it did."""
    side = square_side(crop_side)
    pixels = np.zeros((len(crops), crop_side, crop_side, channels), dtype=np.uint8)
    failures: list[str | None] = []
    for crop, out in zip(crops, pixels, strict=True):
        try:
            square = load_square(crop.path, side, channels)
        except UNREADABLE as error:
            failures.append(f"{crop.path}: {error}")
            continue
        cut = square[crop.top : crop.top + crop_side, crop.left : crop.left + crop_side]
        out[:] = cut[:, ::-1] if crop.mirror else cut
        failures.append(None)
    return pixels, failures


def square_statistics(
    paths: Sequence[str], crop_side: int, channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Over the readable files: the sum of their squares, of their pixels' products, their count."""
    side = square_side(crop_side)
    total, products, count = np.zeros((side, side, channels)), np.zeros((channels, channels)), 0
    for path in paths:
        try:
            square = load_square(path, side, channels)
        except UNREADABLE:
            continue
        total += square
        pixels = square.reshape(-1, channels).astype(np.float64)
        products += pixels.T @ pixels
        count += 1
    return total, products, count


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that decode; each ends as soon as the process that began it does."""
    return ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_worker_start)


def _worker_start() -> None:
    parent = parent_process()
    assert parent is not None
    # The step's threads wait for each other: decoding takes the time that they leave.
    os.nice(_WORKER_NICE)
    # Ctrl-C reaches the whole group; only the main process answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()

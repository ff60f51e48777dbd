"""Folders of images: which files there are, of which classes, and their mean image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexsim.errors import DataError
from alexsim.train.images import EXTENSIONS, square_side, square_statistics

Floats = NDArray[np.float32]

STATISTICS_IMAGES = 1024
"""Files, evenly spread over the training set, that the mean image is taken from."""
_HELD_OUT_EVERY = 10
TASK_IMAGES = 16
"""Files that a worker is given at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One file and the number of its class."""

    path: str
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Training and held-out files of a folder, sorted by name."""

    root: str
    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    held_out: tuple[Sample, ...]

    def fingerprint(self) -> str:
        """Changes when a file is added, removed or renamed."""
        names = "\n".join(f"{s.label} {Path(s.path).name}" for s in (*self.train, *self.held_out))
        return hashlib.blake2b(names.encode(), digest_size=8).hexdigest()


def discover(root: Path, *, most_classes: int) -> Dataset:
    """Find the images of ``<class>/*.JPEG``, or of ``train/`` and ``val/`` (or ``test/``).

    Without a ``val/`` folder every tenth image of each class is held out.

    Raises:
        DataError: the folder is missing or empty, or has one class, or more than the network.
    """
    if not root.is_dir():
        raise DataError(f"--data {root}: no such folder")
    # ILSVRC's own folders; any others are classes.
    split = next((name for name in ("val", "test") if (root / name).is_dir()), "")
    has_splits = (root / "train").is_dir()
    train_root = root / "train" if has_splits else root
    classes = tuple(sorted(p.name for p in train_root.iterdir() if p.is_dir()))
    files = [_images(train_root / name) for name in classes]
    classes, files = _not_empty(classes, files)
    if not classes:
        raise DataError(
            f"--data {root}: no images; expected <class>/*.JPEG, or train/<class>/*.JPEG"
        )
    if len(classes) == 1:
        raise DataError(f"--data {root}: only one class, {classes[0]!r}; training needs two")
    if len(classes) > most_classes:
        raise DataError(
            f"--data {root}: {len(classes)} classes, but the network has {most_classes} outputs"
        )
    train, held_out = [], []
    for label, paths in enumerate(files):
        samples = [Sample(path=str(path), label=label) for path in paths]
        if has_splits:
            train += samples
        else:
            train += [s for i, s in enumerate(samples) if (i + 1) % _HELD_OUT_EVERY]
            held_out += samples[_HELD_OUT_EVERY - 1 :: _HELD_OUT_EVERY]
    if has_splits and split:
        for label, name in enumerate(classes):
            found = _images(root / split / name)
            held_out += [Sample(path=str(path), label=label) for path in found]
    return Dataset(root=str(root), classes=classes, train=tuple(train), held_out=tuple(held_out))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file())


def _not_empty(
    classes: Sequence[str], files: list[list[Path]]
) -> tuple[tuple[str, ...], list[list[Path]]]:
    kept = [(name, paths) for name, paths in zip(classes, files, strict=True) if paths]
    return tuple(name for name, _ in kept), [paths for _, paths in kept]


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
    samples: Sequence[Sample],
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
    paths = [sample.path for sample in samples[::stride]][:STATISTICS_IMAGES]
    tasks = [paths[i : i + TASK_IMAGES] for i in range(0, len(paths), TASK_IMAGES)]
    futures = [pool.submit(square_statistics, task, crop_side, channels) for task in tasks]
    side = square_side(crop_side)
    total, products, count = np.zeros((side, side, channels)), np.zeros((channels, channels)), 0
    for done, future in enumerate(futures):
        part, part_products, part_count = future.result()
        total, products, count = total + part, products + part_products, count + part_count
        progress(done + 1, len(futures))
    if not count:
        raise DataError(f"none of {len(paths)} images can be read, such as {paths[0]}")
    pixels = count * side * side
    average = total.sum((0, 1)) / pixels
    values, axes = np.linalg.eigh(products / pixels - np.outer(average, average))
    return Statistics(
        mean=(total / count).astype(np.float32),
        axes=axes.astype(np.float32),
        deviations=np.sqrt(np.maximum(values, 0)).astype(np.float32),
    )

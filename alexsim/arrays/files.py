"""Which files of a folder hold arrays of images, and what is in them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from alexsim.arrays.batch import Arrays
from alexsim.arrays.cifar import files_of_images, is_archive, read_archive, read_batch
from alexsim.arrays.idx import is_idx, read_idx


def arrays_among(names: Collection[str]) -> list[str]:
    """Of all files of a folder those that hold arrays of images."""
    files = {name for name in names if is_idx(name) or is_archive(name)}
    return sorted(files.union(files_of_images(names)))


def read_arrays(path: Path) -> Arrays:
    """A file's images.

    Raises:
        DataError: it is damaged, or does not fit to the labels or classes beside it.
        OSError: it cannot be read.
    """
    if is_archive(path.name):
        return read_archive(path)
    return read_idx(path) if is_idx(path.name) else read_batch(path)


def set_of(path: Path) -> Path:
    """What a file is a part of: CIFAR's of their folder; others are whole splits, or whole sets."""
    return path if is_idx(path.name) or is_archive(path.name) else path.parent


def unpacked_of(path: Path, others: Collection[Path]) -> bool:
    """Whether what a compressed file holds is among others too, unpacked beside it."""
    if is_archive(path.name):
        stem = path.name.rpartition("-")[0].lower()
        return any(other.parent.name.lower().startswith(f"{stem}-") for other in others)
    return path.suffix.lower() == ".gz" and path.with_suffix("") in others

"""Folders of images: which files there are, of which classes, and their mean image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexsim.errors import DataError
from alexsim.network.network import square_side
from alexsim.train.images import Piece, square_statistics
from alexsim.train.packing.entries import entries
from alexsim.train.packing.listing import SourceChoices, list_source
from alexsim.train.packing.records import Listing, Skipped
from alexsim.train.packing.splits import SplitRules, split_words

Floats = NDArray[np.float32]

STATISTICS_IMAGES = 1024
"""Files, evenly spread over the training set, that the mean image is taken from."""
INDEX, MEMBERS, PARTS = "index.json", "members.npy", ".parts"
"""What a packed folder has; and what one has that is being packed."""
_FORMAT = b'"format": "WebDataset'
"""What an index of a packed set begins with."""
TASK_IMAGES = 16
"""Files that a worker is given at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Piece):
    """One image and the number of its class."""

    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What normalisation and colour noise need to know of the training set."""

    mean: Floats
    """Mean square, ``[side, side, channels]``, of pixels 0...255."""
    axes: Floats
    """Principal axes of the pixels' channels, one per column."""
    deviations: Floats
    """Deviation along each axis, pixels 0...255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Training and held-out images: files of a folder, sorted by name, or a packed set's."""

    root: str
    classes: tuple[str, ...]
    train: Sequence[Sample]
    held_out: Sequence[Sample]
    statistics: Statistics | None = field(default=None, compare=False)
    """Of a packed set's squares, computed as it was packed."""
    shards: tuple[int, ...] = ()
    """Training images in each shard of a packed set; empty for a folder."""
    digest: str = ""
    """Of a packed set's shards; empty for a folder."""
    left_out: tuple[Skipped, ...] = field(default=(), compare=False)
    """What claims to be an image and is in neither split, and why."""

    def known(self, crop_side: int, channels: int) -> Statistics | None:
        """The statistics of a packed set, if they are of such squares."""
        side = square_side(crop_side)
        stored = self.statistics
        return stored if stored and stored.mean.shape == (side, side, channels) else None

    def renumbered(self, samples: Sequence[Sample], names: Sequence[str]) -> list[Sample]:
        """The same images, their classes numbered as in ``names``."""
        place = {name: number for number, name in enumerate(names)}
        return [replace(one, label=place[self.classes[one.label]]) for one in samples]

    def fingerprint(self) -> str:
        """Changes when a file is added, removed or renamed, or a shard has other contents."""
        if self.digest:
            return self.digest
        names = "\n".join(f"{s.label} {Path(s.path).name}" for s in (*self.train, *self.held_out))
        return hashlib.blake2b(names.encode(errors="surrogateescape"), digest_size=8).hexdigest()


def discover(root: Path, *, most_classes: int) -> Dataset:
    """Find the images of ``<class>/*.JPEG``, of ``train/`` and ``val/`` (or ``test/``), or packed.

    Classes, splits and what is left out are those of ``alexsim data pack`` (``list_source``). A
    folder that it has written is taken as it was packed.

    Raises:
        DataError: the folder is missing or empty, holds tars or parquet files, or has one class,
            or more than the network.
    """
    if not root.is_dir():
        raise DataError(f"--data {root}: no such folder")
    if is_packed(root):
        # Only there are numpy's memory maps, and the index, needed.
        from alexsim.train.packed import packed_dataset

        return _usable(packed_dataset(root), most_classes)
    listing = list_source(root)
    if listing.kind != "files":
        raise DataError(
            f"--data {root}: {'tars' if listing.kind == 'tar' else 'parquet files'} are packed"
            f" first: `alexsim data pack {root} DST`"
        )
    train, held_out = _samples(listing)
    dataset = Dataset(
        root=str(root),
        classes=tuple(image_class.wnid for image_class in listing.classes),
        train=tuple(train),
        held_out=tuple(held_out),
        left_out=listing.skipped,
    )
    return _usable(dataset, most_classes)


def _samples(listing: Listing) -> tuple[list[Sample], list[Sample]]:
    """Training and held-out images, each in the order of classes and of names."""
    splits: tuple[list[Sample], list[Sample]] = [], []
    order = np.argsort(listing.label, kind="stable")
    columns = (order, listing.container[order], listing.label[order], listing.held_out[order])
    for row, container, label, held_out in zip(*(c.tolist() for c in columns), strict=True):
        path = f"{listing.containers[container]}/{listing.names[row]}"
        splits[held_out].append(Sample(path=path, label=label))
    return splits


class SplitImages(NamedTuple):
    """Images of a split of a set, and what is left out of it."""

    samples: Sequence[Sample]
    left_out: tuple[Skipped, ...]


def split_of(dataset: Dataset, name: str) -> SplitImages:
    """Images of ``train``, of ``held-out``, or of a folder beside ``train`` by its name.

    Raises:
        DataError: there is no such split, or no image in it of one of the classes.
    """
    if name == "train":
        return SplitImages(dataset.train, ())
    if name == "held-out":
        images = SplitImages(dataset.held_out, dataset.left_out)
    else:
        images = _beside_training(dataset, name)
    if not images.samples:
        raise DataError(f"{dataset.root}: no images in its split {name!r}")
    return images


def _beside_training(dataset: Dataset, name: str) -> SplitImages:
    """A folder beside those of the training images, its classes numbered as theirs."""
    root, name = Path(dataset.root), name.rstrip("/")
    places = [] if dataset.shards else [root / name, *root.glob(f"*/{escape(name)}")]
    folder = next((path for path in places if path.is_dir()), None)
    # A folder of training images is a class, or their own split.
    training = folder and any(s.path.startswith(f"{folder}/") for s in dataset.train)
    if folder is None or training or not any(True for _ in entries(folder, lambda _: None)):
        raise _no_split(dataset, name)
    others = (p.name for p in folder.parent.iterdir() if p.is_dir() and p.name != name)
    rules: SplitRules = (
        (escape(name), "val"),
        *((escape(other), "none") for other in others if split_words(other) - {"train"}),
    )
    listing = list_source(root, SourceChoices(splits=rules))
    samples = [s for s in _samples(listing)[1] if s.path.startswith(f"{folder}/")]
    if not samples or tuple(c.wnid for c in listing.classes) != dataset.classes:
        raise _no_split(dataset, name)
    inside = f"{folder.relative_to(root).as_posix()}/"
    return SplitImages(samples, tuple(s for s in listing.skipped if s.file.startswith(inside)))


def _no_split(dataset: Dataset, name: str) -> DataError:
    return DataError(
        f"{dataset.root} has no split {name!r} with images: give train, held-out, or the name of a"
        " folder beside train/"
    )


def is_packed(root: Path) -> bool:
    """Whether ``alexsim data pack`` has written a folder, or begun to.

    Raises:
        DataError: it has only begun to.
    """
    index = root / INDEX
    if index.is_file():
        # Somebody's own file may be called so; a packed set may have lost its members.
        with index.open("rb") as file:
            if _FORMAT in file.read(256) or (root / MEMBERS).exists():
                return True
    if (root / PARTS).is_dir():
        raise DataError(f"{root}: packing stopped half-way; the same `alexsim data pack` goes on")
    return False


def _usable(found: Dataset, most_classes: int) -> Dataset:
    root, classes = found.root, found.classes
    if len(classes) == 1:
        raise DataError(f"--data {root}: only one class, {classes[0]!r}; training needs two")
    if len(classes) > most_classes:
        raise DataError(
            f"--data {root}: {len(classes)} classes, but the network has {most_classes} outputs"
        )
    return found


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
    chosen = samples[::stride][:STATISTICS_IMAGES]
    tasks = [chosen[i : i + TASK_IMAGES] for i in range(0, len(chosen), TASK_IMAGES)]
    futures = [pool.submit(square_statistics, task, crop_side, channels) for task in tasks]
    side = square_side(crop_side)
    total, products, count = np.zeros((side, side, channels)), np.zeros((channels, channels)), 0
    for done, future in enumerate(futures):
        part, part_products, part_count = future.result()
        total, products, count = total + part, products + part_products, count + part_count
        progress(done + 1, len(futures))
    if not count:
        raise DataError(f"none of {len(chosen)} images can be read, such as {chosen[0].path}")
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

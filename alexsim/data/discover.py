"""The images of a folder, or of a packed set: which there are, of which classes and splits."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexsim.data.dataset import Dataset, Sample
from alexsim.data.packed.index import is_packed
from alexsim.data.packed.samples import packed_dataset
from alexsim.data.sources.entries import entries
from alexsim.data.sources.listing import FORMS, Listing, Skipped
from alexsim.data.sources.source import SourceChoices, list_source
from alexsim.data.sources.splits import SplitRules, split_words
from alexsim.errors import DataError


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
        return _usable(packed_dataset(root), most_classes)
    listing = list_source(root)
    if listing.kind != "files":
        raise DataError(
            f"--data {root}: {FORMS[listing.kind]} are packed first: `alexsim data pack {root} DST`"
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
    # A folder of training images is a class, or the training split.
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


def _usable(dataset: Dataset, most_classes: int) -> Dataset:
    root, classes = dataset.root, dataset.classes
    if len(classes) == 1:
        raise DataError(f"--data {root}: only one class, {classes[0]!r}; training needs two")
    if len(classes) > most_classes:
        raise DataError(
            f"--data {root}: {len(classes)} classes, but the network has {most_classes} outputs"
        )
    return dataset

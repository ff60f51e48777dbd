"""A listing as it grows: a row per image, kept as columns, and what is left out."""

from __future__ import annotations

import os
import unicodedata
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from alexsim.data.sources.classes import ValidationLabels, class_of_label, ordered, some
from alexsim.data.sources.listing import ImageClass, Integers, Kind, Listing, Skipped
from alexsim.data.sources.splits import SOURCE_SPLITS, SourceSplit
from alexsim.data.sources.tree import NO_FOLDER
from alexsim.errors import DataError
from alexsim.names import name_text

HELD_OUT_EVERY = 10
_NO_CLASS = "it has no class"


class Row(NamedTuple):
    """An image: where it lies (see ``Listing``), its name, and its class."""

    container: str
    name: str
    image_class: str
    """As the source has it; empty if the source has none."""
    first: int = 0
    second: int = -1
    split: SourceSplit = "train"


class LabelReader(Protocol):
    """Reads the labels of validation images: from the user's file, else from a file near them."""

    def __call__(self, *, needed: bool) -> ValidationLabels | None:
        """``needed``: there are images without classes; else only the user's file is read."""


class Rows:
    """Images of a source, in its order; 1.3 million take some 200 MB."""

    def __init__(self, kind: Kind, source: Path) -> None:
        self.kind: Kind = kind
        self.declared: tuple[str, ...] = ()
        """The list of classes that the source declares, in its order; else they are sorted."""
        self.side = 0
        """The shorter side of every image, in pixels, where the source says it; else 0."""
        self.source = source
        self._skipped: dict[tuple[str, str], int] = {}
        self._others, self._other = 0, ""
        self._containers: dict[str, int] = {}
        self._classes: dict[str, int] = {"": 0}
        self._names: list[str] = []
        self._columns = tuple(array("q") for _ in range(5))

    def __len__(self) -> int:
        return len(self._names)

    @property
    def left_out(self) -> int:
        """Images that are left out so far."""
        return sum(self._skipped.values())

    def add(self, row: Row) -> None:
        """Append an image."""
        container = self._containers.setdefault(row.container, len(self._containers))
        # Names of classes go into documents: they are text from here on.
        name = name_text(row.image_class) if class_of_label(row.image_class) else ""
        image_class = self._classes.setdefault(name, len(self._classes))
        values = (container, row.first, row.second, image_class, SOURCE_SPLITS.index(row.split))
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._names.append(row.name)

    def skip(self, file: str, reason: str, images: int = 1) -> None:
        """Note images that are left out: a file of the source, or several of a container."""
        key = (name_text(file), reason)
        self._skipped[key] = self._skipped.get(key, 0) + images

    def other(self, path: Path) -> None:
        """Note a file that claims to be no image."""
        self._others += 1
        self._other = self._other or name_text(os.path.relpath(path, self.source))

    def listing(self, words: Mapping[str, str], labels: LabelReader) -> Listing:
        """The rows as arrays, their classes numbered by ``ordered``.

        The validation split is held out, else the test split if it has classes, else every tenth
        image of a class. Images without a class, or of a class without training images, are left
        out.

        Args:
            words: of classes, by their names.
            labels: reads the labels of validation images.

        Raises:
            DataError: there are no training images, or no held-out image has one of their classes.
        """
        container, first, second, code, split = (np.array(c, dtype=np.int64) for c in self._columns)
        train = split == SOURCE_SPLITS.index("train")
        known = tuple(self._classes)
        classes = ordered({known[i] for i in np.unique(code[train])} - {""}, self.declared)
        if not classes:
            raise DataError(self._without_training(train.any(), split))
        place = {name: number for number, name in enumerate(classes)}
        label = np.array([place.get(name, -1) for name in known], dtype=np.int64)[code]
        held = self._held_out(split, label, labels(needed=False) is not None)
        strange = not (label[held] >= 0).any()
        given = labels(needed=bool(held.any() and (strange or (code[held] == 0).any())))
        if given is not None:
            self._label(label, held & ((code == 0) | strange | given.given), given, classes, words)
        elif held.any() and not code[held].any():
            raise DataError(
                f"{self._containers_of(container[held])}: images without classes; `alexsim data"
                " pack --val-labels FILE` reads them"
            )
        if held.any() and not (label[held] >= 0).any():
            others = {known[i] for i in np.unique(code[held])} - {""}
            raise DataError(
                f"{self._containers_of(container[held])}: none of the held-out images' classes"
                f" ({some(others)}) is one of the training images ({some(classes)}); `alexsim data"
                " pack` takes their labels from a file (--val-labels), or leaves them out (--split)"
            )
        alike = {_alike(name): name for name in classes}
        for row in np.flatnonzero((train | held) & (label < 0)):
            why = _NO_CLASS
            if code[row]:
                name = known[code[row]]
                why = f"class {name!r} has no training images"
                if other := alike.get(_alike(name)):
                    why += f"; {other!r} differs in case, or in how letters are written"
            self.skip(self._place(container[row], self._names[row]), why)
        kept = np.flatnonzero((train | held) & (label >= 0))
        return Listing(
            kind=self.kind,
            root=str(self.source),
            side=self.side,
            containers=tuple(self._containers),
            container=container[kept],
            first=first[kept],
            second=second[kept],
            label=label[kept],
            held_out=held[kept] if held.any() else _every_tenth(label[kept]),
            names=tuple(self._names[i] for i in kept),
            classes=tuple(ImageClass(wnid=name, name=words.get(name, "")) for name in classes),
            skipped=self._all_skipped(container, split, train | held),
            others=self._others,
            other=self._other,
        )

    def _held_out(self, split: Integers, label: Integers, labels_given: bool) -> NDArray[np.bool_]:
        """The validation split; without it, a test split with classes of the training images."""
        validation: NDArray[np.bool_] = split == SOURCE_SPLITS.index("val")
        test: NDArray[np.bool_] = split == SOURCE_SPLITS.index("test")
        if validation.any() or not (labels_given or (label[test] >= 0).any()):
            return validation
        return test

    def _label(
        self,
        label: Integers,
        chosen: NDArray[np.bool_],
        labels: ValidationLabels,
        classes: tuple[str, ...],
        words: Mapping[str, str],
    ) -> None:
        """Set the labels of validation images that a file has; lists go by their sorted names."""
        rows = sorted(np.flatnonzero(chosen).tolist(), key=lambda row: self._names[row])
        if rows:
            label[rows] = labels.class_numbers([self._names[row] for row in rows], classes, words)
        elif labels.given:
            raise DataError(f"{labels.path}: {self.source} has no validation images to label")

    def _all_skipped(
        self, container: Integers, split: Integers, used: NDArray[np.bool_]
    ) -> tuple[Skipped, ...]:
        """What was left out, with the splits that are not used, a line for each container."""
        paths = tuple(self._containers)
        reasons = {"test": "test images, not those held out", "none": "left out by --split"}
        for row in np.flatnonzero(~used):
            reason = reasons[SOURCE_SPLITS[split[row]]]
            self.skip(os.path.relpath(paths[container[row]], self.source), reason)
        return tuple(
            Skipped(file=file, reason=reason, images=images)
            for (file, reason), images in self._skipped.items()
        )

    def _without_training(self, some_train: bool, split: Integers) -> str:
        strays = {file: reason for file, reason in self._skipped if reason == NO_FOLDER}
        if strays or not len(split):
            (file, reason), *_ = strays.items() or self._skipped
            return (
                f"{self.source}: no training images; {self.left_out} images are left out, such as"
                f" {file}: {reason}"
            )
        if some_train:
            return (
                f"{self.source}: training images without classes; they are told by folders, .cls"
                " files or a column of labels"
            )
        present = ", ".join(sorted({SOURCE_SPLITS[number] for number in np.unique(split)}))
        return (
            f"{self.source}: no training images, only {present} by the names of its files;"
            " `alexsim data pack --split NAME=train` says otherwise"
        )

    def _place(self, container: int, name: str) -> str:
        """A row's name in messages: its path below the source."""
        folder = os.path.relpath(tuple(self._containers)[container], self.source)
        return name if folder == "." else f"{folder}/{name}"

    def _containers_of(self, numbers: Integers) -> str:
        paths = tuple(self._containers)
        return some([paths[number] for number in np.unique(numbers)])


def _alike(name: str) -> str:
    """A form of a name that names which look alike share."""
    return unicodedata.normalize("NFC", name).casefold()


def _every_tenth(label: Integers) -> NDArray[np.bool_]:
    order = np.argsort(label, kind="stable")
    in_order = label[order]
    place = np.arange(len(label)) - np.searchsorted(in_order, in_order)
    held_out = np.zeros(len(label), dtype=bool)
    held_out[order] = (place + 1) % HELD_OUT_EVERY == 0
    return held_out

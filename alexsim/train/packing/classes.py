"""The one rule for classes: which there are, how they are numbered, what labels mean.

A class is a name that a training image has: its folder, a tar in a tar, the text of its ``.cls``,
its place in a parquet file's list of names. A number without a name is a name itself. Names that
are all numbers are in the order of the numbers, a list that the source declares keeps its order,
and all others are sorted. What has no training image is no class, so numbers may have gaps.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, get_args

from alexsim.errors import DataError
from alexsim.names import name_text

LabelScheme = Literal["names", "words", "ilsvrc", "0-based", "1-based"]
LABEL_SCHEMES: tuple[LabelScheme, ...] = get_args(LabelScheme)
_NUMBER = re.compile(r"[0-9]+")
_MOST_NAMED = 4


def ordered(names: Collection[str], declared: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes in the order of their numbers, from 0 on.

    Raises:
        DataError: two names are the same number, as 1 and 01.
    """
    if all(map(_NUMBER.fullmatch, names)):
        in_order = sorted(names, key=lambda name: (int(name), name))
        for name, after in itertools.pairwise(in_order):
            if int(name) == int(after):
                raise DataError(f"classes {name!r} and {after!r} are one number")
        return tuple(in_order)
    place = {name: number for number, name in enumerate(declared)}
    # What a declared list lacks comes behind it.
    return tuple(sorted(names, key=lambda name: (place.get(name, len(place)), name)))


def some(names: Collection[str]) -> str:
    """A few names for a message, and how many more there are."""
    shown = sorted(map(name_text, names)) if isinstance(names, set) else list(map(name_text, names))
    more = len(shown) - _MOST_NAMED
    return ", ".join(shown[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationLabels:
    """Labels of the validation images: lines of an image and its label, or of labels in order."""

    path: str
    lines: Sequence[str]
    scheme: LabelScheme = "names"
    given: bool = False
    """Whether the user named the file: then it goes before the folders that images lie in."""
    ilsvrc: Mapping[str, str] = field(default_factory=dict)
    """WordNet ids by ILSVRC2012_ID, of the development kit."""

    def of(
        self, names: Sequence[str], classes: Sequence[str], words: Mapping[str, str]
    ) -> list[int]:
        """The class number of each image of a sorted list.

        Args:
            names: paths of images.
            classes: of the training images, in order.
            words: of classes, by their names.

        Raises:
            DataError: an image has no label or two, there are more or fewer labels than images,
                or a label is none of the training images' classes.
        """
        labels = self._labels(names)
        meaning = self._meanings(classes, words)
        if strange := {label for label in labels if label not in meaning}:
            others = ", ".join(scheme for scheme in LABEL_SCHEMES if scheme != self.scheme)
            raise DataError(
                f"{self.path}: {len(strange)} of its labels ({some(strange)}) are no"
                f" {_SCHEME_WORDS[self.scheme]} ({some(list(meaning)) or 'none are known'});"
                f" --label-scheme reads others: {others}"
            )
        return [meaning[label] for label in labels]

    def _labels(self, names: Sequence[str]) -> list[str]:
        stems = [PurePosixPath(name).stem for name in names]
        of_stem: dict[str, str] = {}
        for stem, label in filter(None, (_pair(line, set(stems)) for line in self.lines)):
            if of_stem.setdefault(stem, label) != label:
                raise DataError(f"{self.path}: two labels for {name_text(stem)}")
        if of_stem:
            missing = next((stem for stem in stems if stem not in of_stem), None)
            if missing is not None:
                raise DataError(f"{self.path}: no label for {name_text(missing)}")
            return [self._label(of_stem[stem]) for stem in stems]
        if len(self.lines) != len(names):
            raise DataError(
                f"{self.path}: {len(self.lines)} labels for {len(names)} images, and none of its"
                f" lines names one, such as {name_text(stems[0])}"
            )
        return [self._label(line) for line in self.lines]

    def _label(self, text: str) -> str:
        """What the scheme reads of a line: all of it, or its first word, numbers without zeros."""
        if self.scheme == "words":
            return text
        label = re.split(r"[\s,]", text, maxsplit=1)[0].strip('"')
        if self.scheme != "names" and _NUMBER.fullmatch(label):
            return str(int(label))
        return name_text(label)

    def _meanings(self, classes: Sequence[str], words: Mapping[str, str]) -> dict[str, int]:
        """Class number by label."""
        place = {name: number for number, name in enumerate(classes)}
        if self.scheme == "names":
            return place
        if self.scheme in ("0-based", "1-based"):
            first = int(self.scheme[0])
            return {str(number + first): number for number in range(len(classes))}
        if self.scheme == "ilsvrc":
            return {ident: place[name] for ident, name in self.ilsvrc.items() if name in place}
        by_words: dict[str, int] = {}
        for name, number in place.items():
            text = words.get(name, "")
            if text in by_words:
                raise DataError(f"{self.path}: {text!r} is the name of two classes")
            if text:
                by_words[text] = number
        return by_words


_SCHEME_WORDS: dict[LabelScheme, str] = {
    "names": "classes of the training images",
    "words": "words of the training images' classes",
    "ilsvrc": "ILSVRC2012_IDs of the training images' classes",
    "0-based": "numbers of the training images' classes, from 0",
    "1-based": "numbers of the training images' classes, from 1",
}


def _pair(line: str, stems: Collection[str]) -> tuple[str, str] | None:
    """The stem of one of the images, and what stands behind it; None if a line names no image."""
    for separator in ("\t", ",", " "):
        head, _, rest = line.partition(separator)
        name = PurePosixPath(head.strip().strip('"'))
        for stem in (name.name, name.stem):
            if rest and stem in stems:
                return stem, rest.strip()
    return None

"""The one rule for classes: which there are, how they are numbered, what labels mean.

A class is a name that a training image has: its folder, a tar in a tar, the text of its ``.cls``,
its place in a parquet file's list of names. A number without a name is a name itself. Names that
are all numbers are in the order of the numbers, a list that the source declares keeps its order,
and all others are sorted. What has no training image is no class, so numbers may have gaps.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal, get_args

from alexsim.errors import DataError
from alexsim.names import name_text

LabelScheme = Literal["names", "words", "ilsvrc", "0-based", "1-based"]
LABEL_SCHEMES: tuple[LabelScheme, ...] = get_args(LabelScheme)
MOST_LABEL_CHARACTERS = 256
_NUMBER = re.compile(r"[0-9]+")
_NEGATIVE = re.compile(r"-[0-9]+")
_MOST_NAMED = 4


def ordered(names: Collection[str], declared: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes in the order of their numbers, from 0 on.

    Raises:
        DataError: two names are the same number, as 1 and 01.
    """
    if all(map(_NUMBER.fullmatch, names)):
        # By their digits: a name may have thousands.
        digits = {name: name.lstrip("0") for name in names}
        in_order = sorted(names, key=lambda name: (len(digits[name]), digits[name], name))
        for name, after in itertools.pairwise(in_order):
            if digits[name] == digits[after]:
                raise DataError(f"classes {name!r} and {after!r} are one number")
        return tuple(in_order)
    place = {name: number for number, name in enumerate(declared)}
    # What a declared list lacks comes behind it.
    return tuple(sorted(names, key=lambda name: (place.get(name, len(place)), name)))


def class_of_label(text: str) -> str:
    """The class that a label's text names; empty for what is no label.

    That is an empty text, a number below 0, and a text of several lines or very many characters.
    """
    text = text.strip("\ufeff\0 \t\r\n")
    if len(text) > MOST_LABEL_CHARACTERS or len(text.splitlines()) > 1 or _NEGATIVE.fullmatch(text):
        return ""
    return text


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

    def class_numbers(
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
        meaning = self._meanings(classes, words)
        labels = self._labels(names, meaning)
        if strange := {label for label in labels if label not in meaning}:
            others = ", ".join(scheme for scheme in LABEL_SCHEMES if scheme != self.scheme)
            raise DataError(
                f"{self.path}: {len(strange)} of its labels ({some(strange)}) are no"
                f" {_SCHEME_WORDS[self.scheme]} ({some(list(meaning)) or 'none are known'});"
                f" --label-scheme reads others: {others}"
            )
        return [meaning[label] for label in labels]

    def _labels(self, names: Sequence[str], meaning: Collection[str]) -> list[str]:
        """Each image's label: of the line that names it, or of its place among all names."""
        index = _Names(names, self.path)
        label_of: dict[int, str] = {}
        for line in self.lines:
            for place, texts in index.pairs(line):
                label = self._label(texts, meaning)
                if label_of.setdefault(place, label) != label:
                    raise DataError(f"{self.path}: two labels for {name_text(names[place])}")
        if label_of:
            for place, name in enumerate(names):
                if place not in label_of:
                    raise DataError(f"{self.path}: no label for {name_text(name)}")
            return [label_of[place] for place in range(len(names))]
        labels = [self._label((line,), meaning) for line in self.lines]
        if len(labels) == len(names) + 1 and labels[0] not in meaning:
            # The first line is a heading.
            del labels[0]
        if len(labels) != len(names):
            raise DataError(
                f"{self.path}: {len(labels)} labels for {len(names)} images, and none of its lines"
                f" names one, such as {name_text(names[0])}"
            )
        for name, after in itertools.pairwise(names):
            if _natural(name) > _natural(after):
                raise DataError(
                    f"{self.path}: labels without names are in the order of the images' names, in"
                    f" which {name_text(name)} stands before {name_text(after)}; give lines of an"
                    " image and its label"
                )
        return labels

    def _label(self, texts: Sequence[str], meaning: Collection[str]) -> str:
        """The first text that is a label as the scheme has it, or the first word of the last.

        Numbers count without the zeros in front of them, unless they are names.
        """
        texts = [text.strip().strip('"').strip() for text in texts]
        words = re.split(r"[\s,;]", texts[-1], maxsplit=1)
        for label in (*texts, words[0]):
            if self.scheme not in ("names", "words") and _NUMBER.fullmatch(label):
                return label.lstrip("0") or "0"
            if name_text(label) in meaning:
                return name_text(label)
        return name_text(texts[0] if self.scheme == "words" else words[0])

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


class _Names:
    """Images by what a line may call them: a path, a name, a name without its ending."""

    def __init__(self, names: Sequence[str], path: str) -> None:
        self._path = path
        self._parts = [name.split("/") for name in names]
        self._places: dict[str, list[int]] = {}
        for place, parts in enumerate(self._parts):
            for text in {parts[-1], PurePosixPath(parts[-1]).stem}:
                self._places.setdefault(text.casefold(), []).append(place)

    def pairs(self, line: str) -> Iterator[tuple[int, Sequence[str]]]:
        """The image that a line names, and what may be its label: what stands behind the name,
        all of it or the next field, or else the field before it."""
        for separator in ("\t", ",", ";"):
            fields = _fields(line, separator)
            for number, text in enumerate(fields if len(fields) > 1 else ()):
                if (place := self._place(text)) is not None:
                    behind = fields[number + 1 :]
                    # A comma may be part of the words of a class.
                    whole = [", ".join(behind)] if separator == "," and behind else []
                    yield place, (*whole, behind[0] if behind else fields[number - 1])
                    return
        head, _, rest = line.partition(" ")
        before, _, last = line.rpartition(" ")
        for text, label in ((head, rest), (last, before)):
            if label and (place := self._place(text)) is not None:
                yield place, (label,)
                return

    def _place(self, text: str) -> int | None:
        *folders, name = text.strip().strip('"').replace("\\", "/").split("/")
        places = [
            place
            for place in self._places.get(name.casefold(), ())
            if all(
                given == part
                for given, part in zip(folders[::-1], self._parts[place][-2::-1], strict=False)
            )
        ]
        exact = [place for place in places if self._parts[place][-1].startswith(name)]
        places = exact if len(places) > 1 else places
        if len(places) > 1:
            raise DataError(f"{self._path}: several images are called {text!r}; give folders")
        return places[0] if places else None


def _fields(line: str, separator: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        # A field beyond the parser's limit is no name.
        return []


def _natural(name: str) -> list[tuple[int, str]]:
    """A name as people sort it: 2 before 10."""
    return [
        (int(part), "") if part.isdecimal() and len(part) < 20 else (0, part)
        for part in re.split(r"([0-9]+)", name)
    ]

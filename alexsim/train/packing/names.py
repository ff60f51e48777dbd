"""WordNet ids: their names, and those of the validation images, from the files that come with them.

No list is shipped. ILSVRC's classes in sorted order of their ids are the labels 0...999; names come
from ``LOC_synset_mapping.txt`` or ``synset_words.txt`` beside the data, or from the parquet files'
own metadata. ILSVRC's development kit keeps both names and ids in a MATLAB file, which SciPy reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from alexsim.errors import DataError
from alexsim.train.packing.records import ImageClass

_NAME_FILES = ("LOC_synset_mapping.txt", "synset_words.txt")
_LABEL_FILES = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "val_synset_labels.txt",
)
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_KITS = (".", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")


def names_beside(source: Path, given: Path | None) -> Mapping[str, str]:
    """Names by WordNet id: from a file that was given, or one that lies beside the data.

    Raises:
        DataError: the given file cannot be read, or has no such lines.
    """
    if given is not None:
        found = _names_in(given)
        if not found:
            raise DataError(f"{given}: no lines such as `n01440764 tench, Tinca tinca`")
        return found
    for folder in _near(source):
        for name in _NAME_FILES:
            if (folder / name).is_file():
                return _names_in(folder / name)
    meta = _kit_file(source, _META)
    return dict(_meta(meta).values()) if meta and _scipy() else {}


def named(image_class: ImageClass, words: Mapping[str, str]) -> ImageClass:
    """A class with its name, if it is known."""
    return replace(image_class, name=image_class.name or words.get(image_class.wnid, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationLabels:
    """WordNet ids of the validation images: by file stem, or in the order of sorted names."""

    path: str
    by_stem: Mapping[str, str]
    in_order: Sequence[str]

    def of(self, names: Sequence[str]) -> list[str]:
        """The id of each image of a sorted list.

        Raises:
            DataError: an image has none, or there are more or fewer ids than images.
        """
        if self.by_stem:
            stems = [PurePosixPath(name).stem for name in names]
            missing = next((stem for stem in stems if stem not in self.by_stem), None)
            if missing is not None:
                raise DataError(f"{self.path}: no class for {missing}")
            return [self.by_stem[stem] for stem in stems]
        if len(self.in_order) != len(names):
            raise DataError(f"{self.path}: {len(self.in_order)} ids for {len(names)} images")
        return list(self.in_order)


def validation_labels(folder: Path, given: Path | None) -> ValidationLabels | None:
    """Read what classes the validation images have; None if nothing near says.

    Raises:
        DataError: the file cannot be read, or is of another form.
    """
    if given is not None:
        return _labels_in(given)
    for near in _near(folder):
        for name in _LABEL_FILES:
            if (near / name).is_file():
                return _labels_in(near / name)
    truth, meta = _kit_file(folder, _TRUTH), _kit_file(folder, _META)
    if truth is None or meta is None:
        return None
    if not _scipy():
        raise DataError(f"{meta}: SciPy reads it (pip install scipy), or give --val-labels FILE")
    wnids = {number: wnid for number, (wnid, _) in _meta(meta).items()}
    ids = [wnids[int(line)] for line in _lines(truth)]
    return ValidationLabels(path=str(truth), by_stem={}, in_order=ids)


def _labels_in(path: Path) -> ValidationLabels:
    """``ILSVRC2012_val_00000001,n01751748 ...``, or two words, or one id per line."""
    words = [line.replace(",", " ").split() for line in _lines(path)]
    words = [line for line in words if line and line[0] != "ImageId"]
    if words and all(len(line) == 1 for line in words):
        return ValidationLabels(path=str(path), by_stem={}, in_order=[line[0] for line in words])
    if not words or any(len(line) < 2 for line in words):
        raise DataError(f"{path}: expected one WordNet id per line, or an image and its id")
    pairs = {PurePosixPath(line[0]).stem: line[1] for line in words}
    return ValidationLabels(path=str(path), by_stem=pairs, in_order=())


def _names_in(path: Path) -> dict[str, str]:
    pairs = (line.partition(" ") for line in _lines(path))
    return {wnid.strip(): words.strip() for wnid, _, words in pairs if words.strip()}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _near(source: Path) -> tuple[Path, ...]:
    folder = source if source.is_dir() else source.parent
    return folder, folder.absolute().parent


def _kit_file(source: Path, name: str) -> Path | None:
    places = (folder / kit / name for folder in _near(source) for kit in _KITS)
    return next((path for path in places if path.is_file()), None)


def _scipy() -> bool:
    from importlib.util import find_spec

    return find_spec("scipy") is not None


def _meta(path: Path) -> dict[int, tuple[str, str]]:
    """The development kit's table: WordNet id and words by ILSVRC2012_ID."""
    from scipy.io import loadmat

    try:
        table: Any = loadmat(str(path), squeeze_me=True)["synsets"]
        return {int(row[0]): (str(row[1]), str(row[2])) for row in table}
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not ILSVRC's meta.mat: {error}") from error

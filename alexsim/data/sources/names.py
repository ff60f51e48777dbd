"""Files that come with images: what their classes are called, and those of validation images.

No list is shipped. ILSVRC's classes in sorted order of their ids are the labels 0...999; names come
from ``LOC_synset_mapping.txt`` or ``synset_words.txt`` beside the data, or from the parquet files'
metadata. ILSVRC's development kit keeps both names and ids in a MATLAB file, which SciPy reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alexsim.data.sources.classes import LabelScheme, ValidationLabels
from alexsim.errors import DataError, reason_of
from alexsim.names import name_text

_NAME_FILES = ("LOC_synset_mapping.txt", "synset_words.txt")
_LABEL_FILES = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "val_synset_labels.txt",
)
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_KITS = (".", "data", "ILSVRC2012_devkit_t12/data", "devkit/data")


def names_beside(source: Path, given: Path | None) -> Mapping[str, str]:
    """Names by WordNet id: from the given file, or a file that lies beside the data.

    Raises:
        DataError: the given file cannot be read, or has no such lines.
    """
    if given is not None:
        words = _names_in(given)
        if not words:
            raise DataError(f"{given}: no lines such as `n01440764 tench, Tinca tinca`")
        return words
    if path := _beside(source, _NAME_FILES):
        return _names_in(path)
    meta = _kit_file(source, _META)
    return dict(_meta(meta).values()) if meta and _scipy() else {}


def validation_labels(
    folder: Path, given: Path | None, scheme: LabelScheme | None
) -> ValidationLabels | None:
    """Read the labels of the validation images; None if no file near has them.

    Raises:
        DataError: the file cannot be read, or the scheme needs a file that is missing.
    """
    path = given or _beside(folder, _LABEL_FILES) or _kit_file(folder, _TRUTH)
    if path is None:
        return None
    if scheme is None:
        scheme = "ilsvrc" if given is None and path.name == _TRUTH else "names"
    ilsvrc = {}
    if scheme == "ilsvrc":
        meta = _kit_file(folder, _META) or _kit_file(path, _META)
        if meta is None:
            if given is None:
                return None
            raise DataError(
                f"{path}: ILSVRC's own ids are told by {_META} of its development kit,"
                f" which does not lie in or beside {folder}"
            )
        if not _scipy():
            raise DataError(
                f"{meta}: SciPy reads it (pip install scipy), or give --val-labels FILE"
            )
        ilsvrc = {str(number): wnid for number, (wnid, _) in _meta(meta).items()}
    lines = _lines(path)
    if not lines:
        raise DataError(
            f"{path}: it is empty; expected a label per line, or an image and its label"
        )
    return ValidationLabels(
        path=str(path), lines=lines, scheme=scheme, given=given is not None, ilsvrc=ilsvrc
    )


def _beside(folder: Path, names: Sequence[str]) -> Path | None:
    paths = (near / name for near in _near(folder) for name in names)
    return next((path for path in paths if path.is_file()), None)


def _names_in(path: Path) -> dict[str, str]:
    pairs = (line.split(maxsplit=1) for line in _lines(path))
    return {name_text(pair[0]): name_text(pair[1]) for pair in pairs if len(pair) == 2}


def _lines(path: Path) -> list[str]:
    try:
        # Names are bytes: the file spells them as the disk does.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if "\0" in text:
        raise DataError(f"cannot read {path}: it is no text")
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
        raise DataError(f"{path}: not ILSVRC's meta.mat: {reason_of(error)}") from error

"""Finding a source's form, and all of its images."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from alexsim.arrays.files import arrays_among
from alexsim.data.sources.arrays import list_arrays
from alexsim.data.sources.classes import LabelScheme, ValidationLabels, some
from alexsim.data.sources.entries import entries, is_hidden
from alexsim.data.sources.folders import list_folders
from alexsim.data.sources.listing import Kind, Listing
from alexsim.data.sources.names import names_beside, validation_labels
from alexsim.data.sources.rows import Rows
from alexsim.data.sources.splits import SplitRules
from alexsim.data.sources.tars import list_tars
from alexsim.errors import DataError

_FORMS = (
    "class folders, ILSVRC's tars, WebDataset shards (*.tar), Hugging Face parquet (*.parquet),"
    " MNIST's IDX files (*-images-idx3-ubyte) or CIFAR's batches"
)
_KINDS: dict[str, Kind] = {".parquet": "parquet", ".tar": "tar"}
_FILES: dict[Kind, str] = {"parquet": "parquet files", "tar": "tars", "arrays": "arrays of pixels"}
_COMPRESSED = re.compile(r"\.tar\.\w+$|\.tgz$|\.tbz2?$|\.txz$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChoices:
    """How a source is read where its files do not say it."""

    names: Path | None = None
    """A file of ``n01440764 tench, Tinca tinca`` lines; else a file beside the data is used."""
    labels: Path | None = None
    """The validation images' labels; else a file beside the data is used."""
    scheme: LabelScheme | None = None
    """What the labels mean; by default names of classes, or the development kit's numbers."""
    splits: SplitRules = ()
    """Patterns of files and folders, and the splits that they are."""
    image: str = ""
    """Ending of the image to take of a WebDataset sample that has several."""


def list_source(
    source: Path,
    choices: SourceChoices | None = None,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> Listing:
    """Every image of a source that is taken, and every image that is left out, with its reason.

    Args:
        source: a folder, or one file of a form other than class folders.
        progress: called now and then with the number of images listed.

    Raises:
        DataError: there is no such source, it is empty, of no form that is known or of two, or a
            choice changes nothing.
    """
    choices = choices or SourceChoices()
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if choices.scheme and choices.labels is None:
        raise DataError("--label-scheme is of the file that --val-labels names")
    rows = _rows(source, choices, progress)
    if not len(rows) and not rows.left_out:
        raise DataError(f"{source}: no images; expected {_FORMS}")
    words = names_beside(source, choices.names)

    def labels(*, needed: bool) -> ValidationLabels | None:
        if choices.labels is None and not needed:
            return None
        return validation_labels(source, choices.labels, choices.scheme)

    listing = rows.listing(words, labels)
    if choices.names and not any(image_class.name for image_class in listing.classes):
        raise DataError(
            f"{choices.names}: none of its ids ({some(list(words))}) is a class of {source}"
            f" ({some([image_class.wnid for image_class in listing.classes])})"
        )
    return listing


def _rows(source: Path, choices: SourceChoices, progress: Callable[[int], None]) -> Rows:
    """The rows of a source of one form; loose images beside others are left out."""
    containers = _containers(source)
    if source.is_file() and not any(containers.values()):
        raise DataError(f"{source}: none of the files that are read; expected {_FORMS}")
    kinds = [kind for kind, paths in containers.items() if paths]
    if len(kinds) > 1:
        first, second = (containers[kind][0].name for kind in kinds[:2])
        raise DataError(f"{source}: both {first} and {second}; give one form")
    if choices.image and not containers["tar"]:
        raise DataError(f"--image {choices.image}: only WebDataset samples have several images")
    loose = [] if source.is_file() else list(entries(source, lambda _: None))
    rows = _of_containers(source, containers, choices, progress, alone=not loose)
    if rows is None:
        rows = list_folders(source, choices.splits, progress)
    else:
        for entry in loose:
            top = entry.name.partition("/")[0]
            rows.skip(top, entry.reason or f"beside the {_FILES[kinds[0]]}", entry.images)
    paths = [] if source.is_file() else sorted(source.iterdir())
    for path in paths:
        if _COMPRESSED.search(path.name) and not len(rows):
            raise DataError(f"{path}: compressed tars cannot be read in place; unpack it")
    return rows


def _of_containers(
    source: Path,
    containers: Mapping[Kind, list[Path]],
    choices: SourceChoices,
    progress: Callable[[int], None],
    *,
    alone: bool,
) -> Rows | None:
    """Rows of files of many images; None where class folders have just other tables beside them.

    ``alone``: there is no image outside of them, so they must hold some.
    """
    if parquet := containers["parquet"]:
        # Folders and tars need no pyarrow.
        from alexsim.data.sources.parquet import holds_images, list_parquet

        if not alone and not any(map(holds_images, parquet)):
            return None
        return list_parquet(parquet, source, choices.splits, progress)
    if arrays := containers["arrays"]:
        return list_arrays(arrays, source, choices.splits, progress)
    if not containers["tar"]:
        return None
    rows = list_tars(containers["tar"], source, choices.splits, progress, image=choices.image)
    return rows if alone or len(rows) or rows.left_out else None


def _containers(source: Path) -> dict[Kind, list[Path]]:
    """Files of many images: the source, or those in it, however deep, that are not hidden."""
    paths: dict[Kind, list[Path]] = {"parquet": [], "tar": [], "arrays": []}
    alone = source.is_file()
    for folder, inner, names in os.walk(source.parent if alone else source):
        inner[:] = [] if alone else [name for name in inner if not is_hidden(name)]
        arrays = set(arrays_among(names))
        for name in [source.name] if alone else names:
            kind: Kind | None = (
                "arrays" if name in arrays else _KINDS.get(Path(name).suffix.lower())
            )
            path = Path(folder, name)
            if kind is not None and path.is_file() and (alone or not is_hidden(name)):
                paths[kind].append(path)
    return {kind: sorted(each) for kind, each in paths.items()}

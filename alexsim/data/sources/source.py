"""Finding a source's form, and all of its images."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alexsim.data.sources.classes import LabelScheme, ValidationLabels, some
from alexsim.data.sources.entries import entries, is_hidden
from alexsim.data.sources.folders import list_folders
from alexsim.data.sources.listing import Listing
from alexsim.data.sources.names import names_beside, validation_labels
from alexsim.data.sources.rows import Rows
from alexsim.data.sources.splits import SplitRules
from alexsim.data.sources.tars import list_tars
from alexsim.errors import DataError

_FORMS = (
    "class folders, ILSVRC's tars, WebDataset shards (*.tar) or Hugging Face parquet (*.parquet)"
)
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
        source: a folder, or one tar or parquet file.
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
    """The rows of a source of one form; loose images beside tars or parquet are left out."""
    if source.is_file():
        suffix = source.suffix.lower()
        parquet, tars = ([source] if suffix == form else [] for form in (".parquet", ".tar"))
        if not parquet and not tars:
            raise DataError(f"{source}: not a .tar or .parquet file; expected {_FORMS}")
    else:
        parquet, tars = _containers(source, ".parquet"), _containers(source, ".tar")
    if parquet and tars:
        raise DataError(f"{source}: both {parquet[0].name} and {tars[0].name}; give one form")
    if choices.image and not tars:
        raise DataError(f"--image {choices.image}: only WebDataset samples have several images")
    loose = [] if source.is_file() else list(entries(source, lambda _: None))
    rows = _of_containers(source, parquet, tars, choices, progress, alone=not loose)
    if rows is None:
        rows = list_folders(source, choices.splits, progress)
    else:
        for entry in loose:
            form = "parquet files" if parquet else "tars"
            top = entry.name.partition("/")[0]
            rows.skip(top, entry.reason or f"beside the {form}", entry.images)
    paths = [] if source.is_file() else sorted(source.iterdir())
    for path in paths:
        if _COMPRESSED.search(path.name) and not len(rows):
            raise DataError(f"{path}: compressed tars cannot be read in place; unpack it")
    return rows


def _of_containers(
    source: Path,
    parquet: list[Path],
    tars: list[Path],
    choices: SourceChoices,
    progress: Callable[[int], None],
    *,
    alone: bool,
) -> Rows | None:
    """Rows of tars or parquet files; None where class folders have just other tables beside them.

    ``alone``: there is no image outside of them, so they must hold some.
    """
    if parquet:
        # Folders and tars need no pyarrow.
        from alexsim.data.sources.parquet import holds_images, list_parquet

        if not alone and not any(map(holds_images, parquet)):
            return None
        return list_parquet(parquet, source, choices.splits, progress)
    if not tars:
        return None
    rows = list_tars(tars, source, choices.splits, progress, image=choices.image)
    return rows if alone or len(rows) or rows.left_out else None


def _containers(source: Path, suffix: str) -> list[Path]:
    """Files of a kind, however deep, that are not hidden."""
    return sorted(
        path
        for path in source.rglob("*.*")
        if path.suffix.lower() == suffix
        and path.is_file()
        and not is_hidden(path.relative_to(source).as_posix())
    )

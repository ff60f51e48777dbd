"""Finding a source's form, and all of its images."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from alexsim.errors import DataError
from alexsim.train.images import EXTENSIONS
from alexsim.train.packing.names import named, names_beside, validation_labels
from alexsim.train.packing.parquet import list_parquet
from alexsim.train.packing.records import ImageClass, Listing
from alexsim.train.packing.rows import Row, Rows
from alexsim.train.packing.tars import list_tars

HELD_OUT_EVERY = 10
_FORMS = (
    "class folders, ILSVRC's tars, WebDataset shards (*.tar) or Hugging Face parquet (*.parquet)"
)


def list_source(
    source: Path,
    *,
    names: Path | None = None,
    labels: Path | None = None,
    found: Callable[[int], None] = lambda _: None,
) -> Listing:
    """Every image of a source; without a validation split, every tenth of a class is held out.

    Args:
        source: a folder, or one tar or parquet file.
        names: a file of ``n01440764 tench, Tinca tinca`` lines; else one beside the data is used.
        labels: the validation images' WordNet ids; else a file beside the data is used.
        found: called now and then with the number of images found.

    Raises:
        DataError: there is no such source, it is empty, or of no form that is known.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    rows = _rows(source, labels, found)
    if not len(rows):
        raise DataError(f"{source}: no images; expected {_FORMS}")
    words = names_beside(source, names)
    classes = rows.classes or tuple(ImageClass(wnid=wnid) for wnid in sorted(rows.wnids()))
    return _with_held_out(rows.listing(tuple(named(c, words) for c in classes)))


def _rows(source: Path, labels: Path | None, found: Callable[[int], None]) -> Rows:
    if source.is_file():
        if source.suffix == ".parquet":
            return list_parquet([source], found)
        if source.suffix == ".tar":
            return list_tars([source], validation_labels(source.parent, labels), found)
        raise DataError(f"{source}: not a .tar or .parquet file; expected {_FORMS}")
    if parquet := sorted(source.rglob("*.parquet")):
        return list_parquet(parquet, found)
    if tars := sorted(source.glob("*.tar")):
        return list_tars(tars, validation_labels(source, labels), found)
    if packed := sorted(
        p.name for p in source.iterdir() if re.search(r"\.tar\.\w+$|\.tgz$", p.name)
    ):
        raise DataError(f"{source / packed[0]}: compressed tars cannot be read in place; unpack it")
    return _folders(source, labels, found)


def _folders(root: Path, labels: Path | None, found: Callable[[int], None]) -> Rows:
    """``<class>/*``, or ``train/<class>/*`` beside ``val/``, of classes or flat with labels."""
    has_splits = (root / "train").is_dir()
    rows = Rows(kind="files")
    _classes_in(root / "train" if has_splits else root, False, rows, found)
    split = next((name for name in ("val", "test") if (root / name).is_dir()), None)
    if not has_splits or split is None:
        return rows
    known = rows.wnids()
    if flat := _images(root / split):
        wnids = validation_labels(root, labels)
        if wnids is None:
            raise DataError(
                f"{root / split}: images without class folders; --val-labels names the file with"
                " their WordNet ids"
            )
        for row, wnid in zip(flat, wnids.of(flat), strict=True):
            rows.add(Row(str(root / split), row, wnid, held_out=True))
        return rows
    _classes_in(root / split, True, rows, found)
    if extra := rows.wnids() - known:
        raise DataError(f"{root / split}: class {min(extra)!r} is not in train/")
    return rows


def _classes_in(folder: Path, held_out: bool, rows: Rows, found: Callable[[int], None]) -> None:
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        for name in _images(path):
            rows.add(Row(str(folder), f"{path.name}/{name}", path.name, held_out=held_out))
        found(len(rows))


def _images(folder: Path) -> Sequence[str]:
    return sorted(
        p.name for p in folder.iterdir() if p.suffix.lower() in EXTENSIONS and p.is_file()
    )


def _with_held_out(listing: Listing) -> Listing:
    if listing.held_out.any():
        return listing
    order = np.argsort(listing.label, kind="stable")
    label = listing.label[order]
    place = np.arange(len(label)) - np.searchsorted(label, label)
    held_out = np.zeros(len(label), dtype=bool)
    held_out[order] = (place + 1) % HELD_OUT_EVERY == 0
    return Listing(
        kind=listing.kind,
        containers=listing.containers,
        container=listing.container,
        first=listing.first,
        second=listing.second,
        label=listing.label,
        held_out=held_out,
        names=listing.names,
        classes=listing.classes,
    )

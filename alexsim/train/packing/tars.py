"""Tars: finding images in ILSVRC's and WebDataset's, and writing shards.

Nothing is ever extracted by its name: a member is an offset and a length, wherever its name would
lead. Plain tars are not compressed, so an image of a tar in a tar lies at one offset of the outer.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from alexsim.errors import DataError
from alexsim.train.images import EXTENSIONS
from alexsim.train.packing.names import ValidationLabels
from alexsim.train.packing.records import ImageClass
from alexsim.train.packing.rows import Row, Rows

BLOCK = 512
_LABELS = (".cls", ".label")
_MOST_LABEL_BYTES = 256


class Member(NamedTuple):
    """A file in a tar: its name as it stands there, and where its bytes are."""

    name: str
    offset: int
    length: int


def members(file: BinaryIO, path: Path, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The files of a tar that begins at ``start``.

    Raises:
        DataError: it is no plain tar, or a damaged one.
    """
    end = os.fstat(file.fileno()).st_size if end is None else end
    file.seek(start)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (found := archive.next()) is not None:
                # Its own list would hold every member.
                archive.members = []  # type: ignore[attr-defined]
                if not found.isreg() or found.issparse():
                    continue
                if found.offset_data + found.size > end:
                    raise DataError(f"{path}: cut off in {found.name!r}")
                yield Member(found.name, found.offset_data, found.size)
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a plain tar, or a damaged one: {error}") from error


def list_tars(
    paths: Sequence[Path], labels: ValidationLabels | None, found: Callable[[int], None]
) -> Rows:
    """Images of ILSVRC's tar of tars, of its flat validation tar, or of WebDataset shards.

    Raises:
        DataError: one is damaged, mixes forms, or has images without a class.
    """
    rows = Rows(kind="tar")
    inner: list[Row] = []
    flat: list[Row] = []
    for path in paths:
        if path.stem.lower().endswith("test"):
            # ILSVRC never published its test images' classes.
            continue
        with path.open("rb") as file:
            held_out = "val" in path.stem.lower()
            groups: dict[str, list[Member]] = {}
            for member in members(file, path):
                if member.name.endswith(".tar"):
                    inner += _inner(file, path, member, held_out)
                    found(len(inner))
                    file.seek(member.offset)
                elif PurePosixPath(member.name).suffix.lower() in (*EXTENSIONS, *_LABELS):
                    groups.setdefault(_key(member.name), []).append(member)
            labelled = any(m.name.endswith(_LABELS) for group in groups.values() for m in group)
            for key, group in groups.items():
                image = next((m for m in group if not m.name.endswith(_LABELS)), None)
                if image is None:
                    continue
                wnid = _label(file, path, key, group) if labelled else ""
                row = Row(str(path), image.name, wnid, image.offset, image.length, held_out)
                (rows.add if labelled else flat.append)(row)
        found(len(rows) + len(inner) + len(flat))
    for row in sorted(inner, key=lambda row: (row.held_out, row.wnid, row.name)):
        rows.add(row)
    for row in _flat(flat, labels):
        rows.add(row)
    return _numbered(rows)


def _inner(file: BinaryIO, path: Path, outer: Member, held_out: bool) -> list[Row]:
    """Images of one class: a tar in a tar, named after its WordNet id."""
    wnid = PurePosixPath(outer.name).stem
    end = outer.offset + outer.length
    return [
        Row(str(path), f"{wnid}/{PurePosixPath(m.name).name}", wnid, m.offset, m.length, held_out)
        for m in members(file, path, outer.offset, end)
        if PurePosixPath(m.name).suffix.lower() in EXTENSIONS
    ]


def _flat(rows: list[Row], labels: ValidationLabels | None) -> list[Row]:
    if not rows:
        return []
    if labels is None:
        raise DataError(
            f"{rows[0].container}: images without classes; --val-labels names the file with their"
            " WordNet ids"
        )
    rows = sorted(rows, key=lambda row: row.name)
    wnids = labels.of([row.name for row in rows])
    return [row._replace(wnid=wnid) for row, wnid in zip(rows, wnids, strict=True)]


def _key(name: str) -> str:
    """WebDataset's key: the path up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _label(file: BinaryIO, path: Path, key: str, group: Sequence[Member]) -> str:
    member = next((m for m in group if m.name.endswith(_LABELS)), None)
    if member is None:
        raise DataError(f"{path}: {key!r} has an image but no class (.cls)")
    text = os.pread(file.fileno(), min(member.length, _MOST_LABEL_BYTES), member.offset)
    return text.decode("utf-8", errors="replace").strip()


def _numbered(rows: Rows) -> Rows:
    """Classes that are numbers sort as numbers, 2 before 10, and keep their gaps."""
    wnids = rows.wnids()
    if wnids and all(wnid.isdecimal() for wnid in wnids):
        last = max(int(wnid) for wnid in wnids)
        rows.classes = tuple(ImageClass(wnid=str(label)) for label in range(last + 1))
    return rows


def header(name: str, length: int) -> bytes:
    """A member's 512 bytes: no time, no owner, so that equal contents are equal files."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = length, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii")


def padding(length: int) -> bytes:
    """Zeros up to the next block."""
    return bytes(-length % BLOCK)


END = bytes(2 * BLOCK)
"""What a tar ends with."""

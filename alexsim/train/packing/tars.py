"""Tars: finding images in ILSVRC's and WebDataset's, and writing shards.

Nothing is ever extracted by its name: a member is an offset and a length, wherever its name would
lead. Plain tars are not compressed, so an image of a tar in a tar lies at one offset of the outer.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from alexsim.errors import DataError
from alexsim.train.packing.entries import HEAD_BYTES, ending, is_hidden, is_image
from alexsim.train.packing.rows import Row, Rows
from alexsim.train.packing.splits import (
    SourceSplit,
    SplitRules,
    refuse_idle_rules,
    split_of_file,
    split_of_folder,
)

BLOCK = 512
_LABELS = ("cls", "label")
_MOST_LABEL_BYTES = 256
_PREFERRED = ("jpg", "jpeg", "png", "webp")
"""Endings of a sample's image, the first before the others."""


class Member(NamedTuple):
    """A file in a tar: its name as it stands there, and where its bytes are."""

    name: str
    offset: int
    length: int
    reason: str = ""
    """Why it has no bytes of its own."""


def members(file: BinaryIO, path: Path, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The files and links of a tar that begins at ``start``.

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
                if found.isdir():
                    continue
                if not found.isreg() or found.issparse():
                    what = "a sparse file" if found.isreg() else "a link, which is not followed"
                    yield Member(found.name, found.offset_data, 0, what)
                    continue
                if found.offset_data + found.size > end:
                    raise DataError(f"{path}: cut off in {found.name!r}")
                yield Member(found.name, found.offset_data, found.size)
    except tarfile.TarError as error:
        raise DataError(f"{path}: not a plain tar, or a damaged one: {error}") from error


def list_tars(
    paths: Sequence[Path],
    source: Path,
    rules: SplitRules,
    found: Callable[[int], None],
    *,
    image: str = "",
) -> Rows:
    """Images of ILSVRC's tar of tars and flat validation tar, of class folders, of WebDataset.

    Args:
        image: of samples with several images, the ending of the one to take, as in ``left.jpg``.

    Raises:
        DataError: a tar is damaged, its name is of two splits, or a rule is of none.
    """
    refuse_idle_rules(rules, source, paths)
    rows = Rows(kind="tar", source=source)
    inner: list[Row] = []
    flat: list[Row] = []
    endings: set[str] = set()
    for path in paths:
        split = split_of_file(rules, source, path)
        with path.open("rb") as file:
            images: dict[str, Member] = {}
            labels: dict[str, Member] = {}
            for member in members(file, path):
                if ending(member.name) == "tar" and not is_hidden(member.name):
                    inner += _inner(rows, file, path, member, split)
                    found(len(inner))
                    file.seek(member.offset)
                    continue
                kind = _kind(rows, file, path, member)
                if kind == "image" and member.name in images:
                    rows.skip(_place(source, path, member.name), "a second file of this name")
                elif kind == "image":
                    images[member.name] = member
                elif kind == "label":
                    labels.setdefault(_stem(member.name), member)
            if not labels:
                flat += _by_folder([_row(path, m, "", split) for m in images.values()])
                continue
            for sample, chosen, others in _samples(images, labels, image):
                endings.update(_endings(sample, [*chosen, *others]))
                for name in others:
                    why = "another image of its sample; --image ENDING takes it"
                    rows.skip(_place(source, path, name), why)
                for name in chosen:
                    text = _label(file, labels[sample]) if sample in labels else ""
                    rows.add(_row(path, images[name], text, split))
        found(len(rows) + len(inner) + len(flat))
    if image and image not in endings:
        raise DataError(f"--image {image}: images of samples end in {', '.join(sorted(endings))}")
    for row in sorted(inner, key=lambda row: (row.split, row.image_class, row.name)):
        rows.add(row)
    for row in sorted(flat, key=lambda row: row.name):
        rows.add(row)
    return rows


def _by_folder(rows: Sequence[Row]) -> Iterator[Row]:
    """Images of a tar without labels; class and split are told by folders, as outside of tars.

    Folders around all of them tell nothing.
    """
    folders = [[p for p in PurePosixPath(r.name).parts[:-1] if p not in "/.."] for r in rows]
    around = 0
    for level in zip(*(parts[:-1] for parts in folders), strict=False):
        if len(set(level)) > 1 or split_of_folder(level[0]):
            break
        around += 1
    for row, parts in zip(rows, folders, strict=True):
        split, inner = row.split, parts[around:]
        if inner and (named := split_of_folder(inner[0])):
            split, inner = named, inner[1:]
        yield row._replace(split=split, image_class=inner[0] if inner else "")


def _row(path: Path, member: Member, image_class: str, split: SourceSplit) -> Row:
    return Row(str(path), member.name, image_class, member.offset, member.length, split)


def _place(source: Path, path: Path, name: str) -> str:
    return name if path == source else f"{path.relative_to(source).as_posix()}/{name}"


def _kind(rows: Rows, file: BinaryIO, path: Path, member: Member) -> str:
    """``image``, ``label``, or nothing that counts; what is hidden is noted."""

    def head() -> bytes:
        return os.pread(file.fileno(), min(member.length, HEAD_BYTES), member.offset)

    if ending(member.name) in _LABELS:
        return "" if is_hidden(member.name) else "label"
    if not is_image(member.name, head):
        rows.other(path / member.name)
        return ""
    if reason := member.reason or ("a hidden file" if is_hidden(member.name) else ""):
        rows.skip(_place(rows.source, path, member.name), reason)
        return ""
    return "image"


def _inner(
    rows: Rows, file: BinaryIO, path: Path, outer: Member, split: SourceSplit
) -> Iterator[Row]:
    """Images of one class: a tar in a tar, named after its WordNet id."""
    wnid = PurePosixPath(outer.name).stem
    for member in members(file, path, outer.offset, outer.offset + outer.length):
        if _kind(rows, file, path, member) == "image":
            name = f"{wnid}/{PurePosixPath(member.name).name}"
            yield _row(path, member._replace(name=name), wnid, split)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _samples(
    images: Collection[str], labels: Collection[str], wanted: str
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every sample's name, the image that is taken, and the others.

    An image belongs to the label with the longest name that its own begins with, up to a dot:
    ``cam.0007.jpg`` to ``cam.0007.cls``, and ``7.left.jpg`` to ``7.cls``. Of several images the
    wanted ending is taken, else the plain one before one with a further dot, then by the order of
    ``_PREFERRED``.
    """
    of_sample: dict[str, list[str]] = {}
    for name in images:
        stem = _stem(name)
        while stem and stem not in labels:
            shorter = _stem(stem)
            stem = "" if "/" in stem[len(shorter) :] else shorter
        of_sample.setdefault(stem or _stem(name), []).append(name)
    for sample, names in of_sample.items():
        first = len(sample) + 1

        def rank(name: str) -> tuple[bool, bool, int, str]:
            end = name[first:].lower()  # noqa: B023 - used at once
            place = _PREFERRED.index(end) if end in _PREFERRED else len(_PREFERRED)
            return end != wanted.lower(), "." in end, place, name

        in_order = sorted(names, key=rank)
        if wanted and not any(name[first:].lower() == wanted.lower() for name in names):
            yield sample, [], in_order
        else:
            yield sample, in_order[:1], in_order[1:]


def _endings(sample: str, names: Iterable[str]) -> Iterator[str]:
    return (name[len(sample) + 1 :].lower() for name in names)


def _label(file: BinaryIO, member: Member) -> str:
    """A label's text; one that is no single line of some characters is none."""
    data = os.pread(file.fileno(), min(member.length, _MOST_LABEL_BYTES + 1), member.offset)
    text = data.decode("utf-8", errors="surrogateescape").strip()
    return "" if len(data) > _MOST_LABEL_BYTES or len(text.splitlines()) != 1 else text


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

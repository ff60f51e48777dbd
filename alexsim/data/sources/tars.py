"""Tars: finding images in ILSVRC's and WebDataset's, and writing shards.

Nothing is ever extracted by its name: a member is an offset and a length, wherever its name would
lead. Plain tars are not compressed, so an image of a tar in a tar lies at one offset of the outer.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from alexsim.data.sources.classes import MOST_LABEL_CHARACTERS, class_of_label
from alexsim.data.sources.entries import HEAD_BYTES, ending, is_hidden, is_image
from alexsim.data.sources.rows import Row, Rows
from alexsim.data.sources.splits import (
    SOURCE_SPLITS,
    SourceSplit,
    SplitRules,
    refuse_idle_rules,
    split_by_rules,
    split_of_file,
)
from alexsim.data.sources.tree import BESIDE, by_folders
from alexsim.errors import DataError

BLOCK = 512
_LABELS = ("cls", "label")
_MOST_LABEL_BYTES = 4 * MOST_LABEL_CHARACTERS + 1
_CHUNK = 1 << 20
_PREFERRED = ("jpg", "jpeg", "png", "webp")
"""Endings of a sample's image, the first before the others."""


class Member(NamedTuple):
    """A file in a tar: its name as it stands there, and where its bytes are."""

    name: str
    offset: int
    length: int
    reason: str = ""
    """Why it has no bytes; empty if it has."""


def members(file: BinaryIO, where: str, start: int = 0, end: int | None = None) -> Iterator[Member]:
    """The files and links of a tar that begins at ``start`` and lies before ``end``.

    Args:
        where: what the tar is called, for messages.

    Raises:
        DataError: it is no plain tar, is damaged, or is cut off.
    """
    end = os.fstat(file.fileno()).st_size if end is None else end
    file.seek(start)
    at = start
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (info := archive.next()) is not None and info.offset < end:
                at = archive.offset
                # The archive's list would hold every member.
                archive.members = []  # type: ignore[attr-defined]
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    what = "a sparse file" if info.isreg() else "a link, which is not followed"
                    yield Member(info.name, info.offset_data, 0, what)
                    continue
                if info.offset_data + info.size > end:
                    raise DataError(f"{where}: cut off in {info.name!r}")
                yield Member(info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise DataError(f"{where}: not a plain tar, or a damaged one: {error}") from error
    _refuse_no_end(file, where, start, at, end)


def _refuse_no_end(file: BinaryIO, where: str, start: int, at: int, end: int) -> None:
    """A tar ends with blocks of zeros: behind a damaged header, Python's reader just stops."""
    if end - at < BLOCK:
        raise DataError(
            f"{where}: cut off at byte {at - start:,}: a tar ends with a block of zeros"
        )
    for place in range(at, end, _CHUNK):
        data = os.pread(file.fileno(), min(_CHUNK, end - place), place)
        if data.count(0) != len(data):
            what = "not a plain tar" if at == start else f"damaged at byte {at - start:,}"
            raise DataError(f"{where}: {what}, or another file stands there")


@dataclass(slots=True, kw_only=True)
class _Plain:
    """Images without labels: folders are their classes, over all tars of a split together."""

    rows: list[Row] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


def list_tars(
    paths: Sequence[Path],
    source: Path,
    rules: SplitRules,
    progress: Callable[[int], None],
    *,
    image: str = "",
) -> Rows:
    """Images of ILSVRC's tar of tars and flat validation tar, of class folders, of WebDataset.

    A tar in a tar is a folder that is called as it is.

    Args:
        image: of samples with several images, the ending of the image to take (``left.jpg``).

    Raises:
        DataError: a tar is damaged, its name has words of two splits, or a rule matches nothing.
    """
    refuse_idle_rules(rules, source, paths)
    reader = _Reader(source, image)
    for path in paths:
        if split_by_rules(rules, source, path) == "none":
            reader.rows.skip(path.relative_to(source).as_posix(), "left out by --split", 0)
            continue
        split = split_of_file(rules, source, path)
        with path.open("rb") as file:
            reader.read(file, path, split)
        progress(reader.images)
    return reader.finished()


class _Reader:
    """Reads tars, and collects their images."""

    def __init__(self, source: Path, image: str) -> None:
        self.rows = Rows(kind="tar", source=source)
        self._source, self._wanted = source, image
        self._plain: dict[SourceSplit, _Plain] = {}
        self._endings: set[str] = set()

    @property
    def images(self) -> int:
        """Images so far."""
        return len(self.rows) + sum(len(plain.rows) for plain in self._plain.values())

    def read(self, file: BinaryIO, path: Path, split: SourceSplit) -> None:
        """A tar of the source."""
        self._read(file, path, split, "", members(file, str(path)))

    def _read(
        self, file: BinaryIO, path: Path, split: SourceSplit, folder: str, listed: Iterable[Member]
    ) -> None:
        """``folder``: what the tar is called in those around it, ending in a slash."""
        images: dict[str, Member] = {}
        labels: dict[str, Member] = {}
        inside: list[Member] = []
        for member in listed:
            kind = self._kind(file, path, member, folder)
            name = _clean(member.name)
            if kind == "image" and name in images:
                self._skip(path, folder + name, "a second file of this name")
            elif kind == "image":
                images[name] = member
            elif kind == "label":
                labels.setdefault(_stem(name), member)
            elif kind == "tar":
                inside.append(member)
        seen: set[str] = set()
        for inner in sorted(inside, key=lambda member: member.name):
            end = inner.offset + inner.length
            name = f"{folder}{_stem(_clean(inner.name))}/"
            inner_members = members(file, f"{path}: {inner.name}", inner.offset, end)
            if name not in seen:
                self._read(file, path, split, name, inner_members)
            for member in inner_members if name in seen else ():
                if self._kind(file, path, member, name) == "image":
                    self._skip(path, name + _clean(member.name), "in a second tar of this name")
            seen.add(name)
        if labels:
            self._add_samples(file, path, split, folder, images, labels)
            return
        plain = self._plain.setdefault(split, _Plain())
        for name, member in sorted(images.items()) if folder else images.items():
            plain.paths.append(folder + name)
            plain.rows.append(_row(path, folder + name, member, "", split))

    def _add_samples(
        self,
        file: BinaryIO,
        path: Path,
        split: SourceSplit,
        folder: str,
        images: Mapping[str, Member],
        labels: Mapping[str, Member],
    ) -> None:
        for sample, chosen, others in _samples(images, labels, self._wanted):
            self._endings.update(name[len(sample) + 1 :].lower() for name in (*chosen, *others))
            for name in others:
                why = "another image of its sample; --image ENDING takes it"
                self._skip(path, folder + name, why)
            for name in chosen:
                text = _label(file, labels[sample]) if sample in labels else ""
                self.rows.add(_row(path, folder + name, images[name], text, split))

    def finished(self) -> Rows:
        """The rows of all images; those without labels are in the order of their names."""
        if self._wanted and self._wanted.lower() not in self._endings:
            known = ", ".join(sorted(self._endings))
            raise DataError(f"--image {self._wanted}: images of samples end in {known}")
        for split in SOURCE_SPLITS:
            plain = self._plain.get(split, _Plain())
            rows = []
            folders = by_folders(plain.paths, {}, str(self._source))
            for row, (inner, image_class, reason) in zip(plain.rows, folders, strict=True):
                # The name of a tar goes before the folders in it, and its images may be flat.
                if reason == BESIDE or (reason and split == "train"):
                    self._skip(Path(row.container), row.name, reason)
                else:
                    at = inner if split == "train" else split
                    rows.append(row._replace(split=at, image_class=image_class))
            for row in sorted(rows, key=lambda row: (row.split, row.image_class, row.name)):
                self.rows.add(row)
        return self.rows

    def _skip(self, path: Path, name: str, reason: str) -> None:
        inside = path == self._source
        place = "" if inside else f"{path.relative_to(self._source).as_posix()}/"
        self.rows.skip(f"{place}{name}", reason)

    def _kind(self, file: BinaryIO, path: Path, member: Member, folder: str) -> str:
        """``image``, ``label``, ``tar``, or nothing that counts; what is hidden is noted."""

        def head() -> bytes:
            return os.pread(file.fileno(), min(member.length, HEAD_BYTES), member.offset)

        what = ending(member.name)
        if what in (*_LABELS, "tar"):
            hidden = is_hidden(member.name) or bool(member.reason)
            return "" if hidden else "tar" if what == "tar" else "label"
        if not is_image(member.name, head):
            self.rows.other(path / member.name)
            return ""
        reason = member.reason or ("a hidden file" if is_hidden(member.name) else "")
        if reason:
            self._skip(path, folder + _clean(member.name), reason)
        return "" if reason else "image"


def _clean(name: str) -> str:
    """A member's path without empty and dot parts: ``./a//0.jpg`` and ``/a/0.jpg`` are equal."""
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def _row(path: Path, name: str, member: Member, image_class: str, split: SourceSplit) -> Row:
    return Row(str(path), name, image_class, member.offset, member.length, split)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _samples(
    images: Collection[str], labels: Collection[str], wanted: str
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Every sample's name, the image that is taken, and the others.

    An image belongs to the label with the longest name that its name begins with, up to a dot:
    ``cam.0007.jpg`` to ``cam.0007.cls``, and ``7.left.jpg`` to ``7.cls``. Of several images the
    wanted ending is taken, else a plain name before a name with a further dot, then by the order of
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


def _label(file: BinaryIO, member: Member) -> str:
    """A label's class; empty if it is none."""
    data = os.pread(file.fileno(), min(member.length, _MOST_LABEL_BYTES), member.offset)
    return class_of_label(data.decode("utf-8", errors="surrogateescape"))


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

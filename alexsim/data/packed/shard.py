"""One shard, in a worker: read, cut the square, encode, sum, write. Imports no torch."""

from __future__ import annotations

import io
import json
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from alexsim.data.images import UNREADABLE, load_square, reason
from alexsim.data.packed.disk import sha256_of, sha256_of_parts
from alexsim.data.packed.pack_index import MEMBER, ShardDone, ShardTask, Source
from alexsim.data.sources.listing import Skipped
from alexsim.data.sources.tars import END, header, padding
from alexsim.errors import DataError
from alexsim.files import write_whole
from alexsim.typed import parse

CHANNELS = 3
_LONGEST_STEM = 64
_NO_BYTES = "no bytes"


class Sums(NamedTuple):
    """Exact sums over a shard's squares as they decode: order and workers change nothing.

    A pixel's sum needs 18 bits for 1,024 images; a product's 53 bits would hold 1.3 million.
    """

    total: NDArray[np.uint64]
    """``[side, side, 3]``"""
    products: NDArray[np.uint64]
    """``[3, 3]``"""


class ShardParts(NamedTuple):
    """What is known of a finished shard: its record, its members, its sums."""

    done: ShardDone
    members: NDArray[np.void]
    sums: Sums


def make_shard(task: ShardTask) -> ShardDone:
    """Write a shard and its part file, or take both as they are if an earlier run finished them.

    Raises:
        DataError: the source cannot be read, or the shard not written.
    """
    folder = Path(task.folder)
    part = part_of(folder, task.file)
    kept = _finished(folder, task, part)
    if kept is not None:
        return kept
    squares = _Squares(task)
    with warnings.catch_warnings():
        # Odd metadata is no reason to talk about a file whose pixels are whole.
        warnings.simplefilter("ignore")
        for place, data in bytes_of(task):
            squares.add(place, data)
    made = squares.shard()
    try:
        write_whole(folder / task.file, *made.parts)
        write_whole(part, _part_bytes(made))
    except OSError as error:
        raise DataError(
            f"cannot write {folder / task.file}: {error.strerror}; the same command goes on"
        ) from error
    return made.done


def part_of(folder: Path, file: str) -> Path:
    """Where a finished shard's record is kept until the index is written."""
    return folder / ".parts" / f"{file}.npz"


def read_part(path: Path) -> ShardParts:
    """A finished shard's record.

    Raises:
        OSError, ValueError, KeyError, DataError: there is none, or it is damaged.
    """
    with np.load(path, allow_pickle=False) as stored:
        done = parse(ShardDone, bytes(stored["done"]).decode(), f"{path} is damaged", DataError)
        sums = Sums(stored["total"].astype(np.uint64), stored["products"])
        return ShardParts(done, stored["members"], sums)


class _Made(NamedTuple):
    done: ShardDone
    parts: list[bytes]
    members: NDArray[np.void]
    sums: Sums


def _part_bytes(made: _Made) -> bytes:
    done = np.frombuffer(json.dumps(asdict(made.done)).encode(), dtype=np.uint8)
    # 32 bits hold the sums of 16 million images: half the temporary disk space.
    total = made.sums.total.astype(np.uint32)
    out = io.BytesIO()
    np.savez(out, done=done, members=made.members, total=total, products=made.sums.products)
    return out.getvalue()


def _finished(folder: Path, task: ShardTask, part: Path) -> ShardDone | None:
    """The shard's record, if it and the shard are whole; damage is made good by writing anew."""
    try:
        done = read_part(part).done
        path = folder / task.file
        whole = path.stat().st_size == done.bytes and sha256_of(path) == done.sha256
    except (OSError, ValueError, KeyError, DataError, zlib.error):
        return None
    return done if whole else None


class _Squares:
    """The squares of one shard, encoded, and their sums."""

    def __init__(self, task: ShardTask) -> None:
        self._task = task
        self._encoded: list[bytes | None] = [None] * len(task.sources)
        self._skipped: dict[int, str] = {}
        self._total = np.zeros((task.side, task.side, CHANNELS), dtype=np.uint64)
        self._products = np.zeros((CHANNELS, CHANNELS), dtype=np.uint64)

    def add(self, place: int, data: bytes | None) -> None:
        side = self._task.side
        if not data:
            self._skipped[place] = _NO_BYTES
            return
        try:
            square = load_square(io.BytesIO(data), side, CHANNELS)
        except UNREADABLE as error:
            self._skipped[place] = reason(error)
            return
        except MemoryError:
            self._skipped[place] = "does not fit in memory"
            return
        encoded = _jpeg(square, self._task.quality)
        self._encoded[place] = encoded
        # What is trained on is what JPEG kept: sum that.
        pixels = np.asarray(Image.open(io.BytesIO(encoded)))
        self._total += pixels
        flat = pixels.reshape(-1, CHANNELS).astype(np.float64)
        # Sums of 65,536 products of bytes are exact in float64.
        self._products += (flat.T @ flat).astype(np.uint64)

    def shard(self) -> _Made:
        parts: list[bytes] = []
        rows: list[tuple[int, int, int, int, int]] = []
        offset = 0
        for source, data in zip(self._task.sources, self._encoded, strict=True):
            if data is None:
                continue
            key, label = key_of(source), str(source.label).encode()
            # WebDataset's readers want a sample's members side by side, in sorted order.
            blocks = [header(f"{key}.cls", len(label)), label, padding(len(label))]
            blocks += [header(f"{key}.jpg", len(data)), data, padding(len(data))]
            start = offset + sum(map(len, blocks[:4]))
            rows.append((start, len(data), zlib.crc32(data), source.label, source.number))
            offset += sum(map(len, blocks))
            parts += blocks
        parts.append(END)
        skipped = (
            Skipped(file=self._task.sources[place].place(self._task.root), reason=why)
            for place, why in sorted(self._skipped.items())
        )
        done = ShardDone(
            file=self._task.file,
            split=self._task.split,
            images=len(rows),
            bytes=offset + len(END),
            sha256=sha256_of_parts(parts),
            skipped=tuple(skipped),
        )
        return _Made(done, parts, np.array(rows, dtype=MEMBER), Sums(self._total, self._products))


def key_of(source: Source) -> str:
    """A member's name without its ending: the image's number, and what its file was called.

    Slashes and dots of the source's names do not get through: no name leads out of a folder.
    """
    stem = PurePosixPath(source.name).name.partition(".")[0]
    return f"{source.number:08d}-{re.sub(r'[^A-Za-z0-9_-]', '_', stem)[:_LONGEST_STEM]}"


def _jpeg(square: NDArray[np.uint8], quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(square).save(out, "JPEG", quality=quality, optimize=False, progressive=False)
    return out.getvalue()


def bytes_of(task: ShardTask) -> Iterator[tuple[int, bytes | None]]:
    """Every image's place in the shard and its bytes, in whatever order the source likes.

    A source that cannot be read is an error, not a broken image: the next run may well read it.
    """
    try:
        if task.kind in ("parquet", "arrays"):
            yield from (_parquet_bytes if task.kind == "parquet" else _array_bytes)(task)
            return
        for place, source in enumerate(task.sources):
            path = Path(source.path)
            if task.kind == "files":
                yield place, (path / source.name).read_bytes()
                continue
            with path.open("rb", buffering=0) as file:
                yield place, os.pread(file.fileno(), source.second, source.first)
    except OSError as error:
        where = error.filename or task.sources[0].path
        raise DataError(f"cannot read {where}: {error.strerror or error}") from error


def _parquet_bytes(task: ShardTask) -> Iterator[tuple[int, bytes | None]]:
    # Other sources' workers need not carry pyarrow.
    from alexsim.data.sources.parquet import read_rows

    groups: dict[tuple[str, int], dict[int, int]] = {}
    for place, source in enumerate(task.sources):
        groups.setdefault((source.path, source.first), {})[source.second] = place
    for (path, group), wanted in groups.items():
        for row, data in enumerate(read_rows(path, group)):
            if row in wanted:
                yield wanted[row], data


def _array_bytes(task: ShardTask) -> Iterator[tuple[int, bytes | None]]:
    from alexsim.data.sources.arrays import read_images

    files: dict[str, dict[int, int]] = {}
    for place, source in enumerate(task.sources):
        files.setdefault(source.path, {})[place] = source.first
    for path, wanted in files.items():
        yield from zip(wanted, read_images(path, list(wanted.values())), strict=True)

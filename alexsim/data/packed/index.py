"""``index.json`` and the files beside the shards: written last, read first, checked on demand."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexsim.data.packed.disk import sha256_of
from alexsim.data.packed.pack_index import (
    INDEX,
    MEMBER,
    MEMBERS,
    PARTS,
    SCHEMA,
    SPLITS,
    PackIndex,
    PackSettings,
    Shard,
    ShardDone,
)
from alexsim.data.packed.shard import Sums
from alexsim.data.sources.listing import Listing
from alexsim.data.statistics import Statistics, from_sums
from alexsim.errors import DataError, reason_of
from alexsim.files import write_whole
from alexsim.typed import load

STATISTICS = "statistics.npz"
_FORMAT = "WebDataset: tars of <key>.cls and <key>.jpg"
_BEGINNING = b'"format": "WebDataset'
"""What an index of a packed set begins with."""


def write_index(
    folder: Path,
    settings: PackSettings,
    listing: Listing,
    shards: Sequence[ShardDone],
    members: NDArray[np.void],
    sums: Sums,
    versions: dict[str, str],
) -> PackIndex:
    """Write members, statistics and, when they are safe, the index.

    Args:
        members: of all shards, in their order.
        sums: over the training shards.

    Raises:
        OSError: a file cannot be written.
    """
    train = sum(shard.images for shard in shards if shard.split == "train")
    write_whole(folder / MEMBERS, _bytes(lambda out: np.save(out, members)))
    write_whole(folder / STATISTICS, _statistics_bytes(sums, train))
    by_split = {split: [s for s in shards if s.split == split] for split in SPLITS}
    index = PackIndex(
        format=_FORMAT,
        versions=versions,
        settings=settings,
        images={split: sum(s.images for s in by_split[split]) for split in SPLITS},
        classes=listing.classes,
        shards={split: tuple(map(_without_skipped, by_split[split])) for split in SPLITS},
        skipped=(*listing.skipped, *(s for shard in shards for s in shard.skipped)),
        others=listing.others,
        other=listing.other,
        files={name: sha256_of(folder / name) for name in (MEMBERS, STATISTICS)},
    )
    text = json.dumps({"schema": SCHEMA} | asdict(index), indent=1) + "\n"
    write_whole(folder / INDEX, text.encode())
    return index


def is_packed(root: Path) -> bool:
    """Whether ``alexsim data pack`` has written a folder, or begun to.

    Raises:
        DataError: it has only begun to.
    """
    index = root / INDEX
    if index.is_file():
        # Somebody's own file may be called so; a packed set may have lost its members.
        with index.open("rb") as file:
            if _BEGINNING in file.read(256) or (root / MEMBERS).exists():
                return True
    if (root / PARTS).is_dir():
        raise DataError(f"{root}: packing stopped half-way; the same `alexsim data pack` goes on")
    return False


def read_index(folder: Path) -> PackIndex:
    """The index of a packed folder.

    Raises:
        DataError: it is missing, damaged, or of another version.
    """
    return load(PackIndex, folder / INDEX, "index of a packed set", DataError, schema=SCHEMA)


def read_members(folder: Path, index: PackIndex) -> NDArray[np.void]:
    """Where every image lies, mapped, not read: all workers and runs share its pages.

    Raises:
        DataError: the file is missing or is not the index's.
    """
    path = folder / MEMBERS
    try:
        members: NDArray[np.void] = np.load(path, mmap_mode="r", allow_pickle=False)
        digest = sha256_of(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error
    images = sum(index.images.values())
    if digest != index.files.get(MEMBERS) or members.dtype != MEMBER or len(members) != images:
        raise DataError(f"{path}: damaged, or of another set; pack again")
    return members


def read_statistics(folder: Path, index: PackIndex) -> Statistics:
    """Mean square and principal colours of the training images.

    Raises:
        DataError: the file is missing or is not the index's.
    """
    path = folder / STATISTICS
    try:
        if sha256_of(path) != index.files.get(STATISTICS):
            raise DataError(f"{path}: damaged, or of another set; pack again")
        with np.load(path, allow_pickle=False) as stored:
            return Statistics(
                mean=stored["mean"], axes=stored["axes"], deviations=stored["deviations"]
            )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error


def damaged(folder: Path, shard: Shard) -> str | None:
    """What is wrong with a shard; None if it is what was packed. Reads all of it."""
    path = folder / shard.file
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            return f"{shard.file}: {size:,} bytes, not {shard.bytes:,}"
        if sha256_of(path) != shard.sha256:
            return f"{shard.file}: its contents are not those that were packed (SHA-256)"
    except OSError as error:
        return f"{shard.file}: {error.strerror}"
    return None


def verify(folder: Path, index: PackIndex, pool: Executor) -> list[str]:
    """Every file that is not as it was packed, one line each."""
    faults = list(pool.map(damaged, [folder] * len(index.all_shards), index.all_shards))
    for name, digest in index.files.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != digest:
            faults.append(f"{name}: missing, or its contents are not those that were packed")
    return [line for line in faults if line is not None]


def _statistics_bytes(sums: Sums, images: int) -> bytes:
    """Exact sums, for whoever wants to go on with them, and what follows from them."""
    made = from_sums(
        sums.total.astype(np.float64), sums.products.astype(np.float64), max(images, 1)
    )
    return _bytes(
        lambda out: np.savez(
            out,
            images=np.int64(images),
            total=sums.total,
            products=sums.products,
            mean=made.mean,
            axes=made.axes,
            deviations=made.deviations,
        )
    )


def _bytes(save: Any) -> bytes:
    out = io.BytesIO()
    save(out)
    return out.getvalue()


def _without_skipped(shard: ShardDone) -> Shard:
    return Shard(file=shard.file, images=shard.images, bytes=shard.bytes, sha256=shard.sha256)

"""A packed set as a dataset: images by shard, offset and length."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from alexsim.data.dataset import Dataset, Sample
from alexsim.data.packed.index import read_index, read_members, read_statistics
from alexsim.data.packed.pack_index import SPLITS, PackIndex, Shard, Split
from alexsim.errors import DataError


class PackedSamples(Sequence[Sample]):
    """Images of one split: 20 mapped bytes each, made into records as they are asked for."""

    def __init__(
        self, members: NDArray[np.void], paths: Sequence[str], counts: Sequence[int]
    ) -> None:
        self._members, self._paths = members, tuple(paths)
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Sample, ...]: ...
    def __getitem__(self, index: int | slice) -> Sample | tuple[Sample, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        place = range(len(self))[index]
        offset, length, crc, label, _ = self._members[place].tolist()
        shard = int(np.searchsorted(self._ends, place, side="right"))
        return Sample(path=self._paths[shard], offset=offset, length=length, crc=crc, label=label)


def packed_dataset(root: Path) -> Dataset:
    """The set that was packed into a folder.

    Raises:
        DataError: its index, or a file that the index names, is missing or damaged.
    """
    index = read_index(root)
    for shard in index.all_shards:
        _refuse_other_size(root, shard)
    members = read_members(root, index)
    train = index.images["train"]
    digest = hashlib.blake2b(digest_size=8)
    for split in SPLITS:
        for shard in index.shards[split]:
            digest.update(f"{split} {shard.sha256}\n".encode())
    return Dataset(
        root=str(root),
        classes=tuple(c.wnid for c in index.classes),
        train=_samples(root, index, "train", members[:train]),
        held_out=_samples(root, index, "val", members[train:]),
        statistics=read_statistics(root, index),
        shards=tuple(shard.images for shard in index.shards["train"]),
        digest=digest.hexdigest(),
    )


def _refuse_other_size(root: Path, shard: Shard) -> None:
    path = root / shard.file
    size = path.stat().st_size if path.is_file() else None
    if size != shard.bytes:
        fault = "missing" if size is None else f"{size:,} bytes, not {shard.bytes:,}"
        raise DataError(f"{path}: {fault}; copy it again, or pack again")


def _samples(
    root: Path, index: PackIndex, split: Split, members: NDArray[np.void]
) -> PackedSamples:
    shards = index.shards[split]
    paths = [str(root / shard.file) for shard in shards]
    return PackedSamples(members, paths, [shard.images for shard in shards])

"""A set of images: training and held-out, of which classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from alexsim.data.images import Piece
from alexsim.data.sources.listing import Skipped
from alexsim.data.statistics import Statistics
from alexsim.network.part import square_side


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Piece):
    """One image and the number of its class."""

    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Training and held-out images: files of a folder, sorted by name, or a packed set's."""

    root: str
    classes: tuple[str, ...]
    train: Sequence[Sample]
    held_out: Sequence[Sample]
    statistics: Statistics | None = field(default=None, compare=False)
    """Of a packed set's squares, computed as it was packed."""
    shards: tuple[int, ...] = ()
    """Training images in each shard of a packed set; empty for a folder."""
    digest: str = ""
    """Of a packed set's shards; empty for a folder."""
    left_out: tuple[Skipped, ...] = field(default=(), compare=False)
    """What claims to be an image and is in neither split, and why."""

    def known(self, crop_side: int, channels: int) -> Statistics | None:
        """The statistics of a packed set, if they are of such squares."""
        side = square_side(crop_side)
        stored = self.statistics
        return stored if stored and stored.mean.shape == (side, side, channels) else None

    def renumbered(self, samples: Sequence[Sample], names: Sequence[str]) -> list[Sample]:
        """The same images, their classes numbered as in ``names``."""
        place = {name: number for number, name in enumerate(names)}
        return [replace(sample, label=place[self.classes[sample.label]]) for sample in samples]

    def fingerprint(self) -> str:
        """Changes when a file is added, removed or renamed, or a shard has other contents."""
        if self.digest:
            return self.digest
        names = "\n".join(f"{s.label} {Path(s.path).name}" for s in (*self.train, *self.held_out))
        return hashlib.blake2b(names.encode(errors="surrogateescape"), digest_size=8).hexdigest()

"""What is packed, how, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from alexsim.data.choices import PackOrder
from alexsim.data.sources.listing import ImageClass, Kind, Skipped
from alexsim.names import name_text

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = get_args(Split)

SCHEMA = 1
INDEX, MEMBERS, PARTS = "index.json", "members.npy", ".parts"
"""What a packed folder has; and what one has that is being packed."""
SIDE, QUALITY, SHARD_IMAGES = 256, 85, 1024
"""Those of 2012: 1,024 images per file are eight minibatches."""

MEMBER = np.dtype(
    [("offset", "<u4"), ("length", "<u4"), ("crc", "<u4"), ("label", "<i4"), ("number", "<u4")]
)
"""One image in a shard: where its JPEG lies, its CRC-32, its class, its number in the source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """How a set is packed; equal settings and sources give equal bits."""

    # 0 until a source has said the side of its images.
    side: int = SIDE
    quality: int = QUALITY
    order: PackOrder = "shuffled"
    seed: int = 0
    shard_images: int = SHARD_IMAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One image of a shard that is to be written."""

    number: int
    path: str
    first: int
    second: int
    label: int
    name: str

    def place(self, root: str) -> str:
        """What an image is called in messages: its path below the source."""
        inside = os.path.relpath(self.path, root)
        return name_text(self.name if inside == "." else f"{inside}/{self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard to write, or to find written already."""

    file: str
    split: Split
    kind: Kind
    sources: tuple[Source, ...]
    folder: str
    """Where the shard goes; empty if none is written."""
    root: str
    """The source, which names of left-out images begin at."""
    side: int
    quality: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard that lies whole on the disk."""

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone(Shard):
    """The same while others are packed."""

    split: Split
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackIndex:
    """``index.json``: written last, so that a folder that has one is whole."""

    format: str
    versions: Mapping[str, str]
    settings: PackSettings
    images: Mapping[Split, int]
    classes: tuple[ImageClass, ...]
    shards: Mapping[Split, tuple[Shard, ...]]
    files: Mapping[str, str]
    """SHA-256 of the files beside the shards: members and statistics."""
    skipped: tuple[Skipped, ...]

    others: int = 0
    """Files of the source that claim to be no image,"""
    other: str = ""
    """and the first of them."""

    def __post_init__(self) -> None:
        for split in SPLITS:
            counted = sum(shard.images for shard in self.shards.get(split, ()))
            if split not in self.shards or self.images.get(split) != counted:
                raise ValueError(f"images.{split} is not the sum over shards.{split}, {counted}")

    @property
    def all_shards(self) -> tuple[Shard, ...]:
        """In the order of the members."""
        return tuple(shard for split in SPLITS for shard in self.shards[split])

    @property
    def left_out(self) -> int:
        """Images of the source that are in no shard."""
        return sum(skipped.images for skipped in self.skipped)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackWatch:
    """Callbacks for whoever shows progress; each does nothing by default."""

    note: Callable[[str], None] = lambda _: None
    listing: Callable[[int], None] = lambda _found: None
    """Images found so far."""
    packed: Callable[[int, int, int], None] = lambda _done, _total, _new: None
    """Images done, of all; and how many of them since this start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPlan:
    """What a set that is being packed began from; whoever goes on must begin from the same."""

    source: str
    listing: str
    """A digest of the source's listing."""
    settings: PackSettings
    versions: Mapping[str, str]

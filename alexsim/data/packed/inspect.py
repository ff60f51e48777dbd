"""What lies in a folder of images, packed or not: counts, sizes, broken files, damage."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from alexsim.data.images import MOST_PIXELS, UNREADABLE, load_square, reason
from alexsim.data.packed.index import is_packed, read_index, read_members, verify
from alexsim.data.packed.pack import source_of
from alexsim.data.packed.pack_index import SPLITS, PackSettings, ShardTask
from alexsim.data.packed.samples import packed_dataset
from alexsim.data.packed.shard import bytes_of
from alexsim.data.slots import Pixels
from alexsim.data.sources.listing import FORMS, ImageClass, Integers, Listing, Skipped
from alexsim.data.sources.source import SourceChoices, list_source

Progress = Callable[[int, int], None]

_TASK_IMAGES = 64
_DRAFT = 256
_TILES_ACROSS, _TILE, _GAP = 8, 128, 4


class Spread(NamedTuple):
    """Least, quartiles, most."""

    least: int
    quarter: int
    median: int
    three_quarters: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """Images of one class in each split."""

    image_class: ImageClass
    train: int
    val: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What lies in a folder."""

    root: str
    form: str
    classes: tuple[ClassCount, ...]
    examined: int
    """Images whose sizes and formats the figures below are of."""
    width: Spread | None
    height: Spread | None
    bytes: Spread | None
    formats: dict[str, int]
    """Images by format and colours, as in ``JPEG RGB``."""
    skipped: tuple[Skipped, ...]
    """Images that are left out, or broken; of a packed set, those that packing left out."""
    others: int
    """Files that claim to be no image,"""
    other: str
    """and the first of them."""
    damaged: tuple[str, ...] | None
    """What is not as it was packed; None if this was not checked."""
    settings: PackSettings | None
    """Of a packed set."""
    shards: int

    @property
    def images(self) -> int:
        """Images of both splits."""
        return sum(count.train + count.val for count in self.classes)


def inspect(
    root: Path,
    pool: ProcessPoolExecutor,
    *,
    choices: SourceChoices | None = None,
    most: int,
    check: bool,
    progress: Progress = lambda _done, _total: None,
) -> Inspection:
    """Look at a packed folder or at a source of any form.

    Args:
        choices: how a source is read where its files do not say it.
        most: images of a source to decode at most, evenly spread; a packed set's are not decoded.
        check: compare a packed set with its checksums.

    Raises:
        DataError: the folder holds neither.
    """
    if is_packed(root):
        return _packed(root, pool, check)
    listing = list_source(root, choices)
    return _source(root, listing, _examine(listing, pool, most, progress))


def _packed(root: Path, pool: ProcessPoolExecutor, check: bool) -> Inspection:
    index = read_index(root)
    damaged = tuple(verify(root, index, pool)) if check else None
    members = read_members(root, index)
    train = index.images["train"]
    parts = {"train": members[:train], "val": members[train:]}
    count = {s: np.bincount(parts[s]["label"], minlength=len(index.classes)) for s in SPLITS}
    side = index.settings.side
    return Inspection(
        root=str(root),
        form="packed: WebDataset shards",
        classes=_counts(index.classes, count["train"], count["val"]),
        examined=len(members),
        width=_spread([side]),
        height=_spread([side]),
        bytes=_spread(members["length"]),
        formats={"JPEG RGB": len(members)},
        skipped=index.skipped,
        others=index.others,
        other=index.other,
        damaged=damaged,
        settings=index.settings,
        shards=len(index.all_shards),
    )


class _Seen(NamedTuple):
    """An image of a source, or why it cannot be read."""

    name: str
    width: int
    height: int
    bytes: int
    format: str
    broken: str | None


def _source(root: Path, listing: Listing, seen: Sequence[_Seen]) -> Inspection:
    readable = [image for image in seen if image.broken is None]
    sizes = [
        _spread([getattr(image, key) for image in readable]) for key in ("width", "height", "bytes")
    ]
    classes = len(listing.classes)
    held_out, label = listing.held_out, listing.label
    return Inspection(
        root=str(root),
        form=FORMS[listing.kind],
        classes=_counts(
            listing.classes,
            np.bincount(label[~held_out], minlength=classes),
            np.bincount(label[held_out], minlength=classes),
        ),
        examined=len(seen),
        width=sizes[0],
        height=sizes[1],
        bytes=sizes[2],
        formats=dict(Counter(image.format for image in readable).most_common()),
        skipped=(
            *listing.skipped,
            *(Skipped(file=s.name, reason=s.broken) for s in seen if s.broken),
        ),
        others=listing.others,
        other=listing.other,
        damaged=None,
        settings=None,
        shards=0,
    )


def _examine(
    listing: Listing, pool: ProcessPoolExecutor, most: int, progress: Progress
) -> list[_Seen]:
    count = len(listing.names)
    rows = np.unique(np.linspace(0, count - 1, min(most, count)).astype(np.int64))
    tasks = [_task(listing, rows[i : i + _TASK_IMAGES]) for i in range(0, len(rows), _TASK_IMAGES)]
    seen: list[_Seen] = []
    for images in pool.map(_look, tasks):
        seen += images
        progress(len(seen), len(rows))
    return seen


def _task(listing: Listing, rows: Integers) -> ShardTask:
    return ShardTask(
        file="",
        split="train",
        kind=listing.kind,
        sources=tuple(source_of(listing, int(index)) for index in rows),
        folder="",
        root=listing.root,
        side=_DRAFT,
        quality=0,
    )


def _look(task: ShardTask) -> list[_Seen]:
    """Decode images of a source far enough to know that they are whole."""
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place, data in bytes_of(task):
            seen.append(_look_at(task.sources[place].place(task.root), data or b""))
    return seen


def _look_at(name: str, data: bytes) -> _Seen:
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            kind = f"{image.format} {image.mode}"
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels, more than the {MOST_PIXELS:,}")
            # An eighth of the pixels is enough to reach the end of the data.
            image.draft("RGB", (_DRAFT, _DRAFT))
            image.load()
    except UNREADABLE as error:
        return _Seen(name, 0, 0, len(data), "", reason(error))
    return _Seen(name, width, height, len(data), kind, None)


def _counts(
    classes: Sequence[ImageClass], train: Integers, val: Integers
) -> tuple[ClassCount, ...]:
    return tuple(
        ClassCount(image_class=image_class, train=int(training), val=int(held_out))
        for image_class, training, held_out in zip(classes, train, val, strict=True)
    )


def _spread(values: Sequence[int] | Integers) -> Spread | None:
    if not len(values):
        return None
    return Spread(*(int(v) for v in np.percentile(values, (0, 25, 50, 75, 100))))


def contact_sheet(root: Path, choices: SourceChoices | None = None, tiles: int = 48) -> Image.Image:
    """Images evenly spread over a packed set or a source, eight in a row; broken images stay grey.

    Raises:
        DataError: the folder holds neither.
    """
    shown = list(_tiles(root, choices, tiles))
    step = _TILE + _GAP
    rows = -(-len(shown) // _TILES_ACROSS)
    sheet = Image.new("RGB", (_TILES_ACROSS * step + _GAP, rows * step + _GAP), (32, 32, 32))
    for place, pixels in enumerate(shown):
        y, x = divmod(place, _TILES_ACROSS)
        tile = (
            Image.new("RGB", (_TILE, _TILE), (96, 96, 96))
            if pixels is None
            else Image.fromarray(pixels)
        )
        sheet.paste(tile, (_GAP + x * step, _GAP + y * step))
    return sheet


def _tiles(root: Path, choices: SourceChoices | None, tiles: int) -> Iterator[Pixels | None]:
    if is_packed(root):
        train = packed_dataset(root).train
        for index in np.linspace(0, len(train) - 1, min(tiles, len(train))).astype(int):
            piece = train[int(index)]
            with Path(piece.path).open("rb") as file:
                file.seek(piece.offset)
                yield _tile(file.read(piece.length))
        return
    listing = list_source(root, choices)
    count = len(listing.names)
    rows = np.unique(np.linspace(0, count - 1, min(tiles, count)).astype(np.int64))
    encoded = dict(bytes_of(_task(listing, rows)))
    for place in range(len(rows)):
        yield _tile(encoded[place] or b"")


def _tile(data: bytes) -> Pixels | None:
    try:
        return load_square(io.BytesIO(data), _TILE, 3)
    except UNREADABLE:
        return None

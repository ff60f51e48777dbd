"""Packing: a source to shards, in parallel, going on after a kill to the same bits."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL.features
from numpy.typing import NDArray

from alexsim.data.packed.index import is_packed, read_index, write_index
from alexsim.data.packed.pack_index import (
    INDEX,
    MEMBER,
    PARTS,
    SIDE,
    SPLITS,
    PackIndex,
    PackPlan,
    PackSettings,
    PackWatch,
    ShardDone,
    ShardTask,
    Source,
    Split,
)
from alexsim.data.packed.shard import CHANNELS, Sums, make_shard, part_of, read_part
from alexsim.data.sources.listing import Integers, Listing
from alexsim.data.sources.source import SourceChoices, list_source
from alexsim.data.workers import Asked, workers_for
from alexsim.errors import DataError
from alexsim.files import drop_unfinished, write_whole
from alexsim.names import name_text
from alexsim.typed import load

_PLAN, _LOCK = "plan.json", "lock"
_LOOK_UP_S = 0.5
"""How long Ctrl-C may take to be seen."""


def pack(
    source: Path,
    target: Path,
    settings: PackSettings,
    *,
    workers: int,
    choices: SourceChoices | None = None,
    watch: PackWatch | None = None,
) -> PackIndex:
    """Pack a source, or go on with it; a set that is whole already is left as it is.

    What is in which shard follows from the source's listing and the settings alone, so neither
    workers nor kills change a bit.

    Raises:
        DataError: the source cannot be used, the target holds something else or cannot be
            written, or half of it was packed from another source or with other settings.
    """
    watch = watch or PackWatch()
    try:
        if is_packed(source):
            raise DataError(f"{source} is packed already; pack what it was packed from")
        if (target / INDEX).is_file():
            return _whole(target, settings, watch)
        # A source that is refused leaves no trace.
        listing = _listed(source, choices, watch)
        settings = _with_side(settings, min(listing.side or SIDE, SIDE))
        with _locked(target):
            _settle_plan(target, _plan(source, listing, settings))
            shards = _shards(target, listing, settings, workers, watch)
            index = _finish(target, listing, settings, shards)
            shutil.rmtree(target / PARTS)
            return index
    except OSError as error:
        raise DataError(
            f"cannot write {target}: {error.strerror or error}; the same command goes on"
        ) from error


def _listed(source: Path, choices: SourceChoices | None, watch: PackWatch) -> Listing:
    try:
        return list_source(source, choices, progress=watch.listing)
    except OSError as error:
        where = error.filename or source
        raise DataError(f"cannot read {where}: {error.strerror or error}") from error


def _whole(target: Path, settings: PackSettings, watch: PackWatch) -> PackIndex:
    index = read_index(target)
    if index.settings != _with_side(settings, index.settings.side):
        raise DataError(f"{target} holds a set that was packed with other settings")
    # A kill between the index and this line leaves the parts behind.
    drop_unfinished(target)
    shutil.rmtree(target / PARTS, ignore_errors=True)
    watch.note(f"{target} is packed already")
    return index


def _with_side(settings: PackSettings, side: int) -> PackSettings:
    """The settings with this side, if they have none."""
    return settings if settings.side else replace(settings, side=side)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the target against a second packer; the system lets go when this process dies."""
    if target.is_dir() and not (target / PARTS).is_dir() and any(target.iterdir()):
        raise DataError(f"{target} is not empty; shards go into a folder of their own")
    (target / PARTS).mkdir(parents=True, exist_ok=True)
    with (target / PARTS / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"{target}: another process is packing into it") from error
        drop_unfinished(target)
        drop_unfinished(target / PARTS)
        yield


def _plan(source: Path, listing: Listing, settings: PackSettings) -> PackPlan:
    digest = hashlib.blake2b(digest_size=16)
    for part in (listing.names, [c.wnid for c in listing.classes]):
        digest.update("\n".join(part).encode(errors="surrogateescape"))
    for column in (listing.first, listing.second, listing.label, listing.held_out):
        digest.update(column.tobytes())
    return PackPlan(
        source=name_text(str(source.absolute())),
        listing=digest.hexdigest(),
        settings=settings,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """What the shards' bits depend on, beside source and settings."""
    return {
        "alexsim": version("alexsim"),
        "pillow": version("pillow"),
        "libjpeg-turbo": PIL.features.version_feature("libjpeg_turbo") or "",
    }


def _settle_plan(target: Path, plan: PackPlan) -> None:
    path = target / PARTS / _PLAN
    if not path.exists():
        write_whole(path, (json.dumps(asdict(plan), indent=2) + "\n").encode())
        return
    before = load(PackPlan, path, "plan of a packed set", DataError)
    what = {"listing": "from other files", "settings": "with other settings"}
    what |= {"versions": "by other versions", "source": "from elsewhere"}
    for key, changed in what.items():
        if getattr(before, key) != getattr(plan, key):
            parts = target / PARTS
            raise DataError(f"{target}: begun {changed}; finish it so, or remove it: {parts}")


def _shards(
    target: Path, listing: Listing, settings: PackSettings, workers: int, watch: PackWatch
) -> list[ShardDone]:
    """Every shard, written now or before; only a few tasks wait at a time, for they hold names."""
    kept = {path.name.removesuffix(".npz") for path in (target / PARTS).glob("*.npz")}
    total, done, new = len(listing.names), 0, 0
    finished: dict[str, ShardDone] = {}
    running: dict[Future[ShardDone], ShardTask] = {}
    watch.packed(0, total, 0)
    try:
        with Asked() as interrupt, workers_for(workers) as pool:
            tasks = _tasks(target, listing, settings)
            while True:
                while len(running) < 2 * workers and (task := next(tasks, None)) is not None:
                    running[pool.submit(make_shard, task)] = task
                if not running:
                    break
                ready = wait(running, timeout=_LOOK_UP_S, return_when=FIRST_COMPLETED).done
                if interrupt.asked:
                    raise KeyboardInterrupt
                for future in ready:
                    task = running.pop(future)
                    finished[task.file] = future.result()
                    done += len(task.sources)
                    new += 0 if task.file in kept else len(task.sources)
                if ready:
                    watch.packed(done, total, new)
    except BrokenProcessPool as error:
        raise DataError(
            "a packing worker died, perhaps for want of memory; the same command goes on"
        ) from error
    return [finished[name] for name in sorted(finished, key=_place)]


def _place(file: str) -> tuple[int, str]:
    return SPLITS.index("val" if file.startswith("val") else "train"), file


def _tasks(target: Path, listing: Listing, settings: PackSettings) -> Iterator[ShardTask]:
    block = listing.block()
    for split in SPLITS:
        order = _order(listing, block, split, settings)
        for number, first in enumerate(range(0, len(order), settings.shard_images)):
            rows = order[first : first + settings.shard_images]
            yield ShardTask(
                file=f"{split}-{number:06d}.tar",
                split=split,
                kind=listing.kind,
                sources=tuple(source_of(listing, int(index)) for index in rows),
                folder=str(target.absolute()),
                root=listing.root,
                side=settings.side,
                quality=settings.quality,
            )


def source_of(listing: Listing, index: int) -> Source:
    """One row of a listing."""
    return Source(
        number=index,
        path=listing.containers[listing.container[index]],
        first=int(listing.first[index]),
        second=int(listing.second[index]),
        label=int(listing.label[index]),
        name=listing.names[index],
    )


def _order(listing: Listing, block: Integers, split: Split, settings: PackSettings) -> Integers:
    """Numbers of a split's images in the order of its shards.

    Shuffled, blocks are drawn in turn, and then the images of each shard: row groups of parquet
    are read once or twice, and images that can be read alone are shuffled over the whole set.
    """
    rows = np.flatnonzero(listing.held_out == (split == "val"))
    if settings.order == "file":
        return rows
    text = f"{settings.seed}/pack/{split}"
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    draw = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    blocks, place = np.unique(block[rows], return_inverse=True)
    mixed = rows[np.argsort(draw.permutation(len(blocks))[place.reshape(-1)], kind="stable")]
    size = settings.shard_images
    parts = [draw.permutation(mixed[i : i + size]) for i in range(0, len(mixed), size)]
    return np.concatenate(parts) if parts else mixed


def _finish(
    target: Path, listing: Listing, settings: PackSettings, shards: Sequence[ShardDone]
) -> PackIndex:
    """Add up the parts and write the index."""
    shape = settings.side, settings.side, CHANNELS
    total, products = np.zeros(shape, np.uint64), np.zeros((CHANNELS, CHANNELS), np.uint64)
    members: list[NDArray[np.void]] = [np.zeros(0, dtype=MEMBER)]
    for shard in shards:
        part = read_part(part_of(target, shard.file))
        members.append(part.members)
        if shard.split == "train":
            total += part.sums.total
            products += part.sums.products
    if not any(shard.images for shard in shards if shard.split == "train"):
        raise DataError("none of the training images can be read; the first: " + _first(shards))
    return write_index(
        target,
        settings,
        listing,
        shards,
        np.concatenate(members),
        Sums(total, products),
        versions(),
    )


def _first(shards: Sequence[ShardDone]) -> str:
    broken = next(
        skipped for shard in shards if shard.split == "train" for skipped in shard.skipped
    )
    return f"{broken.file}: {broken.reason}"

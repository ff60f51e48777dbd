"""``alexsim data pack --json``, ``data inspect --json`` and ``data bench --json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from alexsim.data.bench import LoaderRate
from alexsim.data.packed.inspect import Inspection
from alexsim.data.packed.pack_index import PackIndex, PackSettings
from alexsim.data.sources.listing import Skipped
from alexsim.documents.base import Document, From, Part


class PackDocument(Document):
    """``alexsim data pack --json``."""

    target: str
    train: Annotated[int, From(lambda index: index.images["train"])]
    """Images."""
    val: Annotated[int, From(lambda index: index.images["val"])]
    classes: Annotated[int, From(lambda index: len(index.classes))]
    shards: Annotated[int, From(lambda index: len(index.all_shards))]
    bytes: Annotated[int, From(lambda index: sum(shard.bytes for shard in index.all_shards))]
    packed: Annotated[int, From(lambda index: sum(shard.images for shard in index.all_shards))]
    left_out: int
    """Images of the source that are in no shard."""
    skipped: tuple[Skipped, ...]
    others: int
    """Files of the source that claim to be no image."""


def pack_document(index: PackIndex, target: str) -> PackDocument:
    """``alexsim data pack --json``."""
    return PackDocument.of(index, target=target)


class ClassRow(Part):
    """A class: its WordNet id or folder, its name if one is known, and its images."""

    wnid: Annotated[str, From("image_class.wnid")]
    name: Annotated[str, From("image_class.name")]
    train: int
    val: int


class SpreadRow(Part):
    """Least, quartiles, most."""

    least: int
    quarter: int
    median: int
    three_quarters: int
    most: int


class InspectionDocument(Document):
    """``alexsim data inspect --json``."""

    root: str
    form: str
    classes: tuple[ClassRow, ...]
    examined: int
    """Images whose sizes and formats the figures below are of."""
    width: SpreadRow | None
    height: SpreadRow | None
    bytes: SpreadRow | None
    formats: dict[str, int]
    """Images by format and colours."""
    skipped: tuple[Skipped, ...]
    others: int
    other: str
    """The first of the files that claim to be no image."""
    damaged: tuple[str, ...] | None
    """What is not as it was packed; null if nobody looked."""
    settings: PackSettings | None
    """Of a packed set."""
    shards: int
    images: int


def inspection_document(inspection: Inspection) -> InspectionDocument:
    """``alexsim data inspect --json``."""
    return InspectionDocument.of(inspection)


class RateRow(Part):
    """A loader with some number of workers, drained."""

    workers: int
    images: int
    seconds: float
    waited_s: float
    worker_cpu_s: float
    loader_cpu_s: float
    worker_bytes: int
    loader_bytes: int
    images_per_s: float
    images_per_worker_cpu_s: float
    """What one core decodes and crops."""
    images_per_loader_cpu_s: float
    """The most for any number of workers."""


class NeedRow(Part):
    """What a machine's steps take in, and how long they would wait for it."""

    images_per_s: float
    waited_share: float


class LoaderDocument(Document):
    """``alexsim data bench --json``."""

    rates: tuple[RateRow, ...]
    needs: dict[str, NeedRow]
    """By machine."""
    host_bytes: dict[str, int]
    """By process."""


def loader_document(
    rates: Sequence[LoaderRate],
    needs: Mapping[str, tuple[float, LoaderRate]],
    budget: Mapping[str, int],
) -> LoaderDocument:
    """``alexsim data bench --json``."""
    return LoaderDocument.of(
        rates=tuple(rates),
        needs={
            name: {"images_per_s": wanted, "waited_share": paced.waited_s / paced.seconds}
            for name, (wanted, paced) in needs.items()
        },
        host_bytes=dict(budget),
    )

"""Image sets as terminal tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.data.sources.listing import left_out_lines
from alexsim.report.tables import plain_table
from alexsim.units import format_bytes

if TYPE_CHECKING:
    from alexsim.data.bench import LoaderRate
    from alexsim.data.packed.inspect import Inspection
    from alexsim.data.packed.pack_index import PackIndex
    from alexsim.data.sources.listing import Skipped

_MOST_LINES = 20


def pack_summary(index: PackIndex, target: str) -> str:
    """What was packed, in a few lines."""
    side = index.settings.side
    shards, packed = index.all_shards, sum(index.images.values())
    size = sum(shard.bytes for shard in shards)
    lines = [
        f"{index.images['train']:,} training and {index.images['val']:,} validation images of"
        f" {len(index.classes):,} classes in {len(shards):,} shards of {side} x {side} pixels,"
        f" {format_bytes(size)}",
        *_skipped_lines(index.skipped, index.others, index.other),
        f"written to {target}: {packed:,} images packed, {index.left_out:,} left out, of"
        f" {packed + index.left_out:,}; train with --data {target}",
    ]
    return "\n".join(lines)


def inspection_tables(inspection: Inspection) -> RenderableType:
    """Counts, classes, sizes, formats, broken files and damage."""
    train = sum(count.train for count in inspection.classes)
    val = sum(count.val for count in inspection.classes)
    present = sum(1 for count in inspection.classes if count.train + count.val)
    head = [
        f"{inspection.root}: {inspection.form}; {train:,} training and {val:,} validation images of"
        f" {present:,} classes"
    ]
    if inspection.settings:
        s = inspection.settings
        head.append(
            f"{inspection.shards:,} shards of up to {s.shard_images:,}; {s.side} x {s.side},"
            f" quality {s.quality}, order {s.order}, seed {s.seed}"
        )
    parts: list[RenderableType] = [Text("\n".join(head)), _sizes(inspection), _classes(inspection)]
    lines = [f"{count:>9,} {kind}" for kind, count in inspection.formats.items()]
    lines += _skipped_lines(inspection.skipped, inspection.others, inspection.other)
    if inspection.damaged is not None:
        lines += [f"damaged: {line}" for line in inspection.damaged] or ["checksums: all as packed"]
    return Group(*parts, Text("\n".join(lines)))


def loader_tables(
    rates: Sequence[LoaderRate],
    needs: Mapping[str, tuple[float, LoaderRate]],
    budget: Mapping[str, int],
) -> RenderableType:
    """Rates per number of workers, what machines need, and the host's memory."""
    table = plain_table(
        "Loading alone: images/s",
        "workers", "measured", "per core", "most, any", "MiB/worker", "MiB loader",
    )  # fmt: skip
    for rate in rates:
        table.add_row(
            f"{rate.workers}",
            f"{rate.images_per_s:,.0f}",
            f"{rate.images_per_worker_cpu_s:,.0f}",
            f"{rate.images_per_loader_cpu_s:,.0f}",
            f"{rate.worker_bytes / 2**20:,.0f}",
            f"{rate.loader_bytes / 2**20:,.0f}",
        )
    best = max(rates, key=lambda rate: rate.workers)
    title = f"What steps need, and how much of their time they waited with {best.workers} worker(s)"
    need = plain_table(title, "machine", "images/s", "workers", "waited")
    for name, (wanted, paced) in needs.items():
        workers = wanted / best.images_per_worker_cpu_s
        waited = f"{100 * paced.waited_s / paced.seconds:.1f} %"
        need.add_row(name, f"{wanted:,.0f}", f"{workers:.2f}", waited)
    host = plain_table("The host's memory", "what", "size")
    for what, size in budget.items():
        host.add_row(what, format_bytes(size))
    host.add_row("all", format_bytes(sum(budget.values())))
    core = min(rates, key=lambda rate: rate.workers).images_per_worker_cpu_s
    head = Text(f"One core decodes and crops {core:,.0f} images/s, {1e3 / core:.2f} ms each.\n")
    note = Text(
        "`per core`: for a core's whole time; `most, any`: for that of the thread that draws,\n"
        "in the process that trains; its steps normalise. Articles give the host 5 GB."
    )
    return Group(head, table, need, host, note)


def _sizes(inspection: Inspection) -> RenderableType:
    title = f"Sizes of {inspection.examined:,} images"
    table = plain_table(title, "", "least", "25 %", "median", "75 %", "most")
    sizes = {"width": inspection.width, "height": inspection.height, "bytes": inspection.bytes}
    for what, spread in sizes.items():
        if spread is not None:
            table.add_row(what, *(f"{value:,}" for value in spread))
    return table


def _classes(inspection: Inspection) -> RenderableType:
    table = plain_table("Classes", "class", "name", "train", "val")
    table.columns[1].justify = "left"
    table.columns[1].no_wrap = True
    table.columns[1].max_width = 40
    for count in inspection.classes[:_MOST_LINES]:
        image_class = count.image_class
        table.add_row(image_class.wnid, image_class.name, f"{count.train:,}", f"{count.val:,}")
    if (more := len(inspection.classes) - _MOST_LINES) > 0:
        table.add_row(f"{more:,} more", "(--json lists all)", "", "")
    return table


def _skipped_lines(skipped: Sequence[Skipped], others: int, other: str) -> list[str]:
    """Every image that is left out, many of one reason together; and files that are no images."""
    # A name may hold a line's end.
    lines = [" ".join(f"left out: {s.file}: {s.reason}".splitlines()) for s in skipped]
    if len(lines) > _MOST_LINES:
        lines = left_out_lines(skipped)
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"{len(lines) - _MOST_LINES:,} more (--json lists all)"]
    if others:
        lines.append(f"{others:,} other file(s) that are no images, such as {other}")
    return lines

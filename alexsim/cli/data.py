"""``alexsim data``: packing images into shards, and looking at what there is."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from alexsim.cli.data_watch import ImageProgress
from alexsim.cli.sources import SourceOptions
from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.fields import (
    AT_ONCE,
    Options,
    argument,
    flag,
    option,
    refuse_number,
    whole_numbers,
)
from alexsim.command.options import BatchOptions
from alexsim.command.output import check_file, print_json, write_bytes
from alexsim.data.choices import Order, PackOrder
from alexsim.errors import AlexsimError, GateError


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(Options):
    """Who decodes."""

    workers: int | None = option("N", "Processes. Default: one per core.", rules=AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class PackOptions(SourceOptions, WorkerOptions):
    """Of ``data pack``."""

    source: Path = argument(
        "SRC",
        "Class folders, train/ and val/, ILSVRC's tars, WebDataset tars, Hugging Face parquet,"
        " MNIST's IDX files, or CIFAR-10 or -100: a folder or one file.",
    )
    target: Path = argument("DST", "Folder for the shards.")
    side: int | None = option(
        "PIXELS", "Of the squares. Default: 256; of IDX and CIFAR that of their images."
    )
    quality: int = option(
        "N", "Of the JPEGs.", 85, rules=(("1 to 95", lambda value: 1 <= value <= 95),)
    )
    shard_images: int = option("N", "Images per shard.", 1024)
    order: PackOrder = option(
        "ORDER",
        "`shuffled` mixes the classes, by --seed; `file` keeps the source's order.",
        "shuffled",
    )
    seed: int = option("N", "Of the order.", 0, rules=())


def pack_data(context: typer.Context, options: PackOptions) -> None:
    """Pack images into shards of small JPEGs.

    Of 256 x 256 pixels, of MNIST or CIFAR as many as they have, with mean image and principal
    colours. Shards are WebDataset's tars. After Ctrl-C or a kill the same command goes on, to the
    same bits. What cannot be read, or has no class of the training images, is left out and listed;
    the last line counts both. Where the source has no validation split, every tenth image of a
    class is held out.

    Example: alexsim data pack ILSVRC2012 packed

    Example: alexsim data pack ILSVRC2012_img_train.tar packed --workers 8
    """
    from alexsim.data.packed.pack import pack
    from alexsim.data.packed.pack_index import PackSettings, PackWatch

    source, target = options.source, options.target
    if not source.exists():
        raise AlexsimError(f"{source}: no such file or folder")
    for name, file in (("--names", options.names), ("--val-labels", options.val_labels)):
        if file is not None and not file.is_file():
            raise AlexsimError(f"{name} {file}: no such file")
    if options.order == "file":
        fields.refuse(context, "is of --order shuffled; nothing is drawn for `file`", "seed")
    settings = PackSettings(
        side=options.side or 0,
        quality=options.quality,
        order=options.order,
        seed=options.seed,
        shard_images=options.shard_images,
    )
    with ImageProgress() as shown:
        index = pack(
            source,
            target,
            settings,
            workers=options.workers or os.cpu_count() or 1,
            choices=options.choices(),
            watch=PackWatch(note=shown.note, listing=shown.listing, packed=shown.images),
        )
    from alexsim.documents.data import pack_document
    from alexsim.report.data import pack_summary

    if options.json:
        print_json(pack_document(index, str(target)))
        return
    shared.console().print(pack_summary(index, str(target)), soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class InspectOptions(SourceOptions, WorkerOptions):
    """Of ``data inspect``."""

    folder: Path = argument("DIR", "A packed set, or a source.")
    verify: bool = flag("Compare a packed set with its checksums.")
    sheet: Path | None = option("FILE.png", "Write a contact sheet there.", callback=check_file)
    most: int = option("N", "Images of a source to decode, evenly spread, at most.", 10_000_000)


def inspect_data(context: typer.Context, options: InspectOptions) -> None:
    """Show counts, classes and broken files of a set.

    Sizes too; exit code 4 if --verify finds damage.

    Example: alexsim data inspect packed --verify --sheet sheet.png
    """
    from alexsim.data.packed.index import is_packed
    from alexsim.data.packed.inspect import contact_sheet, inspect
    from alexsim.data.workers import workers_for

    folder, sheet, verify = options.folder, options.sheet, options.verify
    if sheet is not None and sheet.suffix != ".png":
        raise AlexsimError(f"--sheet must name a .png file, got {sheet}")
    if not folder.exists():
        raise AlexsimError(f"{folder}: no such file or folder")
    choices = options.choices()
    if not is_packed(folder):
        fields.refuse(context, f"needs a packed set; {folder} has no checksums", "verify")
    else:
        of_sources = ("most", "names", "val_labels", "label_scheme", "split", "image")
        fields.refuse(context, f"is for sources; {folder} is packed", *of_sources)
        if not verify:
            fields.refuse(context, "does nothing for a packed set without --verify", "workers")
    with ImageProgress() as shown, workers_for(options.workers or os.cpu_count() or 1) as pool:
        inspection = inspect(
            folder,
            pool,
            choices=choices,
            most=options.most,
            check=verify,
            progress=lambda done, total: shown.images(done, total, done),
        )
    if sheet is not None:
        import io

        out = io.BytesIO()
        contact_sheet(folder, choices).save(out, "PNG")
        write_bytes(sheet, out.getvalue(), "the contact sheet")
    from alexsim.documents.data import inspection_document
    from alexsim.report.data import inspection_tables

    if options.json:
        print_json(inspection_document(inspection))
    else:
        shared.console().print(inspection_tables(inspection), soft_wrap=True)
    if inspection.damaged:
        raise GateError(
            f"{folder}: {len(inspection.damaged)} damaged; the first: {inspection.damaged[0]}"
        )


@dataclass(frozen=True, kw_only=True)
class BenchOptions(BatchOptions):
    """Of ``data bench``."""

    folder: Path = argument("DIR", "A packed set, or a folder.")
    workers: str = option("N,N,...", "Numbers of processes to try.", "1,2")
    seconds: float = option("S", "For each measurement.", 10)
    order: Order = option("ORDER", "As of `alexsim train`.", "shuffled")
    here: float | None = option(
        "RATE",
        "Also compare with the images/s that a step here trains, as `alexsim train` says them.",
    )


def bench_data(options: BenchOptions) -> None:
    """Time the loading of images alone.

    In crops of 224 x 224, beside what machines' steps need.

    Example: alexsim data bench packed --workers 1,2,4
    """
    from alexsim.data.bench import loader_rate
    from alexsim.data.discover import discover
    from alexsim.data.images import worker_pool
    from alexsim.data.order import refuse_order
    from alexsim.documents.data import loader_document
    from alexsim.report.data import loader_tables

    counts = whole_numbers("--workers", options.workers)
    refuse_number("--workers", max(counts), AT_ONCE)
    dataset, side = discover(options.folder, most_classes=sys.maxsize), 224
    refuse_order(options.order, dataset)
    measured = dataset.known(side, 3)
    if measured is None:
        from alexsim.data.statistics import statistics

        with worker_pool(max(counts)) as pool:
            measured = statistics(dataset.train, side, 3, pool, lambda _done, _total: None)
    paces = {name: _needed(name, options.batch) for name in ("gtx580x2", "h200")}
    if options.here is not None:
        paces = {"this machine": options.here} | paces
    runs = [(count, 0.0) for count in counts] + [(max(counts), pace) for pace in paces.values()]
    timed = []
    with shared.counting("loading", len(runs)) as done:
        for count, pace in runs:
            timed.append(
                loader_rate(
                    dataset,
                    measured,
                    workers=count,
                    seconds=options.seconds,
                    batch_size=options.batch,
                    crop_side=side,
                    order=options.order,
                    pace=pace,
                )
            )
            done(len(timed))
    rates, paced = timed[: len(counts)], timed[len(counts) :]
    needs = {name: (paces[name], run) for name, run in zip(paces, paced, strict=True)}
    most = max(rates, key=lambda rate: rate.workers)
    budget = {
        f"{most.workers} decoding process(es)": most.workers * most.worker_bytes,
        "the training process, without torch, with 3 minibatches": most.loader_bytes,
    }
    if options.json:
        print_json(loader_document(rates, needs, budget))
        return
    shared.console().print(loader_tables(rates, needs, budget))


def _needed(machine: str, batch: int) -> float:
    """Images/s of AlexNet of 2012 on a machine, as the simulator has it, data left out."""
    from alexsim.editions.load import load_network
    from alexsim.machine.machine import load_machine
    from alexsim.plan.spec import PlanSpec
    from alexsim.simulate.simulator import on_machine

    configuration = PlanSpec(network=load_network("alexnet-2012"), gpus=2, batch_size=batch)
    return on_machine(configuration, load_machine(machine), data="none").images_per_s

"""``alexsim data``: packing images into shards, and looking at what there is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from alexsim.cli import options, sources
from alexsim.cli.data_watch import ImageProgress

app = typer.Typer(
    rich_markup_mode=None,
    help="""Image sets: pack them for training, look at them, time their loading.

    Example: alexsim data pack ILSVRC2012 packed

    Example: alexsim data inspect packed --verify --sheet sheet.png

    Example: alexsim train --data packed""",
)

Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Processes. Default: one per core."),
]


@app.command("pack")
def pack_data(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC",
            help="Class folders, train/ and val/, ILSVRC's tars, WebDataset tars, or Hugging Face"
            " parquet: a folder or one file.",
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the shards.")],
    side: Annotated[int, typer.Option("--side", metavar="PIXELS", help="Of the squares.")] = 256,
    quality: Annotated[int, typer.Option("--quality", metavar="N", help="Of the JPEGs.")] = 85,
    shard_images: Annotated[
        int, typer.Option("--shard-images", metavar="N", help="Images per shard.")
    ] = 1024,
    order: Annotated[
        str,
        typer.Option(
            "--order",
            metavar="ORDER",
            help="`shuffled` mixes the classes, by --seed; `file` keeps the source's order.",
        ),
    ] = "shuffled",
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the order.")] = 0,
    names: sources.Names = None,
    val_labels: sources.ValLabels = None,
    label_scheme: sources.LabelSchemeName = "",
    split: sources.SplitRule = None,
    image: sources.ImageEnding = "",
    workers: Workers = None,
    json: options.Json = False,
) -> None:
    """Pack images into shards of 256 x 256 JPEGs, with mean image and principal colours.

    Shards are WebDataset's tars. After Ctrl-C or a kill the same command goes on, to the same
    bits. What cannot be read, or has no class of the training images, is left out and listed; the
    last line counts both. Where the source has no validation split, every tenth image of a class
    is held out.

    Example: alexsim data pack ILSVRC2012 packed

    Example: alexsim data pack ILSVRC2012_img_train.tar packed --workers 8
    """
    from alexsim.cli.parse import choice, positive
    from alexsim.data.packed.pack import pack
    from alexsim.data.packed.records import PACK_ORDERS, PackSettings, PackWatch
    from alexsim.errors import AlexsimError

    for option, value in (("--side", side), ("--shard-images", shard_images)):
        positive(option, value)
    if not source.exists():
        raise AlexsimError(f"{source}: no such file or folder")
    for option, file in (("--names", names), ("--val-labels", val_labels)):
        if file is not None and not file.is_file():
            raise AlexsimError(f"{option} {file}: no such file")
    if not 1 <= quality <= 95:
        raise AlexsimError(f"--quality must be 1 to 95, got {quality}")
    if order == "file":
        options.refuse(context, "is of --order shuffled; nothing is drawn for `file`", "seed")
    settings = PackSettings(
        side=side,
        quality=quality,
        order=choice("--order", order, PACK_ORDERS),
        seed=seed,
        shard_images=shard_images,
    )
    with ImageProgress() as shown:
        index = pack(
            source,
            target,
            settings,
            workers=_workers(workers),
            choices=sources.choices(names, val_labels, label_scheme, split, image),
            watch=PackWatch(note=shown.note, listing=shown.listing, packed=shown.images),
        )
    from alexsim.report.data import pack_summary
    from alexsim.report.documents.data import pack_document

    if json:
        from alexsim.cli.output import print_json

        print_json(pack_document(index, str(target)))
        return
    options.console().print(pack_summary(index, str(target)), soft_wrap=True)


@app.command("inspect")
def inspect_data(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A packed set, or a source.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare a packed set with its checksums.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            metavar="FILE.png",
            callback=options.checked_file,
            help="Write a contact sheet there.",
        ),
    ] = None,
    most: Annotated[
        int,
        typer.Option(
            "--most", metavar="N", help="Images of a source to decode, evenly spread, at most."
        ),
    ] = 10_000_000,
    names: sources.Names = None,
    val_labels: sources.ValLabels = None,
    label_scheme: sources.LabelSchemeName = "",
    split: sources.SplitRule = None,
    image: sources.ImageEnding = "",
    workers: Workers = None,
    json: options.Json = False,
) -> None:
    """Show counts, classes, sizes and broken files of a set; exit code 4 if --verify finds damage.

    Example: alexsim data inspect packed --verify --sheet sheet.png
    """
    from alexsim.cli.parse import positive
    from alexsim.data.packed.index import is_packed
    from alexsim.data.packed.inspect import contact_sheet, inspect
    from alexsim.data.workers import workers_for
    from alexsim.errors import AlexsimError, GateError

    positive("--most", most)
    if sheet is not None and sheet.suffix != ".png":
        raise AlexsimError(f"--sheet must name a .png file, got {sheet}")
    if not folder.exists():
        raise AlexsimError(f"{folder}: no such file or folder")
    choices = sources.choices(names, val_labels, label_scheme, split, image)
    if not is_packed(folder):
        options.refuse(context, f"needs a packed set; {folder} has no checksums", "verify")
    else:
        of_sources = ("most", "names", "val_labels", "label_scheme", "split", "image")
        options.refuse(context, f"is for sources; {folder} is packed", *of_sources)
        if not verify:
            options.refuse(context, "does nothing for a packed set without --verify", "workers")
    with ImageProgress() as shown, workers_for(_workers(workers)) as pool:
        found = inspect(
            folder,
            pool,
            choices=choices,
            most=most,
            check=verify,
            progress=lambda done, total: shown.images(done, total, done),
        )
    if sheet is not None:
        import io

        from alexsim.cli.output import write_bytes

        out = io.BytesIO()
        contact_sheet(folder, choices).save(out, "PNG")
        write_bytes(sheet, out.getvalue())
    from alexsim.report.data import inspection_tables
    from alexsim.report.documents.data import inspection_document

    if json:
        from alexsim.cli.output import print_json

        print_json(inspection_document(found))
    else:
        options.console().print(inspection_tables(found), soft_wrap=True)
    if found.damaged:
        raise GateError(f"{folder}: {len(found.damaged)} damaged; the first: {found.damaged[0]}")


@app.command("bench")
def bench_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A packed set, or a folder.")],
    workers: Annotated[
        str, typer.Option("--workers", metavar="N,N,...", help="Numbers of processes to try.")
    ] = "1,2",
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", help="For each measurement.")
    ] = 10,
    batch: options.Batch = 128,
    order: Annotated[
        str, typer.Option("--order", metavar="ORDER", help="As of `alexsim train`.")
    ] = "shuffled",
    here: Annotated[
        float,
        typer.Option("--here", metavar="RATE", help="Images/s that a step here trains."),
    ] = 43,
    json: options.Json = False,
) -> None:
    """Time the loading of 224 x 224 crops alone, beside what machines' steps need.

    Example: alexsim data bench packed --workers 1,2,4
    """
    from alexsim.cli.parse import MOST_AT_ONCE, above_zero, choice, positive, whole_numbers
    from alexsim.data.bench import loader_rate
    from alexsim.data.discover import discover
    from alexsim.data.images import worker_pool
    from alexsim.data.loader import ORDERS, refuse_order
    from alexsim.report.data import loader_tables
    from alexsim.report.documents.data import loader_document

    counts = whole_numbers("--workers", workers)
    positive("--workers", max(counts), most=MOST_AT_ONCE)
    above_zero("--seconds", seconds)
    above_zero("--here", here)
    found, side = discover(folder, most_classes=sys.maxsize), 224
    way = choice("--order", order, ORDERS)
    refuse_order(way, found)
    measured = found.known(side, 3)
    if measured is None:
        from alexsim.data.statistics import statistics

        with worker_pool(max(counts)) as pool:
            measured = statistics(found.train, side, 3, pool, lambda _done, _total: None)
    paces = {"this machine": here} | {name: _needed(name, batch) for name in ("gtx580x2", "h200")}
    runs = [(count, 0.0) for count in counts] + [(max(counts), pace) for pace in paces.values()]
    timed = []
    with options.counting("loading", len(runs)) as done:
        for count, pace in runs:
            timed.append(
                loader_rate(
                    found,
                    measured,
                    workers=count,
                    seconds=seconds,
                    batch_size=batch,
                    crop_side=side,
                    order=way,
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
    if json:
        from alexsim.cli.output import print_json

        print_json(loader_document(rates, needs, budget))
        return
    options.console().print(loader_tables(rates, needs, budget))


def _needed(machine: str, batch: int) -> float:
    """Images/s of AlexNet of 2012 on a machine, as the simulator has it, data left out."""
    from alexsim.machine.machine import load_machine
    from alexsim.network.editions import load_network
    from alexsim.plan.spec import PlanSpec
    from alexsim.simulate.simulator import on_machine

    configuration = PlanSpec(network=load_network("alexnet-2012"), gpus=2, batch_size=batch)
    return on_machine(configuration, load_machine(machine), data="none").images_per_s


def _workers(given: int | None) -> int:
    from alexsim.cli.parse import MOST_AT_ONCE, positive

    count = given if given is not None else os.cpu_count() or 1
    positive("--workers", count, most=MOST_AT_ONCE)
    return count

"""What commands share that ask trained networks something."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from alexsim.data.loader import Views
    from alexsim.evaluate.evaluate import Setup
    from alexsim.report.prediction import ClassNames
    from alexsim.train.weights import Weights


def checked_picture(path: Path | None) -> Path | None:
    """Refuse a name that is no picture's, before anything is computed."""
    from alexsim.cli.output import check_picture

    if path is not None:
        check_picture(path)
    return path


Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A run directory, or a .safetensors file of `alexsim export` or `alexsim import`.",
    ),
]
Images = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Files of images.")]
Split = Annotated[
    str,
    typer.Option(
        "--split",
        metavar="SPLIT",
        help="`held-out` (val/, else test/, else every tenth image), `train`, or the name of a"
        " folder beside train/.",
    ),
]
ViewCount = Annotated[
    int,
    typer.Option(
        "--views", metavar="N", help="1: the centre; 10: the corners too, and all mirrored."
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="FILE.png",
        callback=checked_picture,
        help="Draw a picture there, as a figure of the 2012 paper.",
    ),
]
Names = Annotated[
    Path | None,
    typer.Option(
        "--names",
        metavar="FILE",
        help="Names of classes, in lines such as `n01440764 tench, Tinca tinca`. Default: of"
        " WordNet ids, LOC_synset_mapping.txt or synset_words.txt beside the images.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Crops at a time.")]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="`cpu` or `cuda`: where they run.")
]
Backend = Annotated[
    str, typer.Option("--backend", metavar="BACKEND", help="Whose kernels: `aten` or `triton`.")
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="CPU threads. Default: all cores.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", metavar="N", help="Decoding processes. Default: cores, up to 4."),
]


def setup(batch: int, device: str, backend: str, threads: int | None, workers: int | None) -> Setup:
    """Where and how networks answer.

    Raises:
        AlexsimError: an option is out of range.
    """
    import torch

    from alexsim.cli.parse import MOST_AT_ONCE, choice, positive
    from alexsim.cli.train_settings import ready_for_triton
    from alexsim.errors import AlexsimError
    from alexsim.evaluate.evaluate import Setup
    from alexsim.execute.choices import BACKENDS, DEVICES
    from alexsim.train.records import Watcher

    cores = os.cpu_count() or 1
    threads = cores if threads is None else threads
    workers = min(4, cores) if workers is None else workers
    positive("--batch", batch)
    positive("--threads", threads, most=MOST_AT_ONCE)
    positive("--workers", workers, most=MOST_AT_ONCE)
    torch.set_num_threads(threads)
    where, by = choice("--device", device, DEVICES), choice("--backend", backend, BACKENDS)
    if where == "cuda" and threads is not None:
        raise AlexsimError("--threads are a CPU's; with --device cuda none computes")
    if by == "triton":
        ready_for_triton(where, Watcher(note=lambda text: typer.echo(f"alexsim: {text}", err=True)))
    return Setup(batch_size=batch, workers=workers, device=where, backend=by)


def view_count(given: int) -> Views:
    """One view or ten.

    Raises:
        AlexsimError: neither.
    """
    from alexsim.errors import AlexsimError

    if given not in (1, 10):
        raise AlexsimError(f"--views must be 1 or 10, got {given}")
    return 10 if given == 10 else 1


def names_of(classes: Sequence[str], near: Sequence[Path], given: Path | None) -> ClassNames:
    """What classes are called; names for WordNet ids from a file that is given or lies near.

    Raises:
        DataError: such a file cannot be read, or a given one names no class.
    """
    from alexsim.data.sources.classes import some
    from alexsim.data.words import words_of
    from alexsim.errors import DataError
    from alexsim.report.prediction import ClassNames

    words = words_of(classes, near, given)
    if given is not None and classes and not any(name in words for name in classes):
        raise DataError(
            f"{given}: none of its ids ({some(list(words))}) is a class ({some(classes)})"
        )
    return ClassNames(ids=classes, words=words)


def output_names(
    model: Path, weights: Weights, images: Sequence[Path], given: Path | None
) -> ClassNames:
    """What a network's outputs are called.

    Where its weights do not tell, and the given names are as many, they are those of ILSVRC: the
    sorted WordNet ids.

    Raises:
        DataError: a file of names cannot be read.
    """
    from alexsim.train.checkpoint import RunDirectory

    near = [*dict.fromkeys(path.absolute().parent.parent for path in images)]
    if model.is_dir():
        near.append(Path(RunDirectory(model).config().settings.data))
    found = names_of(weights.classes, near, given)
    if not weights.classes and len(found.words) == weights.outputs:
        return names_of(sorted(found.words), near, given)
    return found


def write_picture(path: Path, image: Image.Image, *, said: bool) -> None:
    """A whole PNG file or none; ``said`` prints its name and size.

    Raises:
        AlexsimError: the file cannot be written.
    """
    from alexsim.cli.output import write_bytes
    from alexsim.report.pictures import png

    write_bytes(path, png(image))
    if said:
        typer.echo(f"{path}: {image.width} x {image.height} pixels")

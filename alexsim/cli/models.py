"""What commands share that ask trained networks something."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alexsim.command.fields import AT_ONCE, REQUIRED, Options, argument, option
from alexsim.command.output import check_picture, write_bytes
from alexsim.command.run_options import DeviceOptions, chosen_backend, say
from alexsim.data.choices import Views
from alexsim.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from alexsim.data.dataset import Dataset, Sample
    from alexsim.data.sources.listing import Skipped
    from alexsim.evaluate.setup import Setup
    from alexsim.report.prediction import ClassNames
    from alexsim.train.weights import Weights


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """A trained network."""

    model: Path = argument(
        "MODEL", "A run directory, or a .safetensors file of `model export` or `model import`."
    )


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(DeviceOptions):
    """How networks answer."""

    batch: int = option("N", "Crops at a time.", 128)
    workers: int | None = option("N", "Decoding processes. Default: cores, up to 4.", rules=AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class ViewOptions(Options):
    """What of an image is looked at."""

    views: Views = option("N", "1: the centre; 10: the corners too, and all mirrored.", 1)


@dataclass(frozen=True, kw_only=True)
class SetOptions(Options):
    """An image set."""

    data: Path = option("DIR", "Images, as for `alexsim train`.", REQUIRED)
    split: str = option(
        "SPLIT",
        "`held-out` (val/, else test/, else every tenth image), `train`, or the name of a folder"
        " beside train/.",
        "held-out",
    )


@dataclass(frozen=True, kw_only=True)
class ImageOptions(ModelOptions, AnswerOptions):
    """Single images, of which a network is asked."""

    images: list[Path] = argument("IMAGE...", "Files of images.")
    output: Path | None = option(
        "FILE.png",
        "Draw a picture there, as a figure of the 2012 paper.",
        names="-o --output",
        callback=check_picture,
    )
    names: Path | None = option(
        "FILE",
        "Names of classes, in lines such as `n01440764 tench, Tinca tinca`. Default: of WordNet"
        " ids, LOC_synset_mapping.txt or synset_words.txt beside the images.",
    )


def setup(options: AnswerOptions, *models: Weights) -> Setup:
    """Where and how networks answer, which is said.

    Raises:
        AlexsimError: an option is of no use.
    """
    import torch

    from alexsim.editions.load import load_network
    from alexsim.evaluate.setup import Setup, setup_text

    device = options.device_here()
    networks = [load_network(weights.network) for weights in models]
    torch.set_num_threads(options.cores())
    made = Setup(
        batch_size=options.batch,
        workers=options.workers or min(4, os.cpu_count() or 1),
        device=device,
        backend=chosen_backend(options.backend, device, say),
        triton_ops=options.faster_by_triton(networks, options.batch),
    )
    if not options.json:
        say(setup_text(made, networks))
    return made


def split_of(dataset: Dataset, split: str) -> tuple[Sequence[Sample], tuple[Skipped, ...]]:
    """The images of a split, and what was left out of it, which is said.

    Raises:
        DataError: there is no such split.
    """
    from alexsim.data import discover
    from alexsim.data.sources.listing import left_out_lines

    samples, left_out = discover.split_of(dataset, split)
    for line in left_out_lines(left_out):
        say(f"{split}: {line}")
    return samples, left_out


def names_of(classes: Sequence[str], near: Sequence[Path], given: Path | None) -> ClassNames:
    """What classes are called; names for WordNet ids from a file that is given or lies near.

    Raises:
        DataError: such a file cannot be read, or a given one names no class.
    """
    from alexsim.data.sources.classes import some
    from alexsim.data.words import words_of
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
    names = names_of(weights.classes, near, given)
    if not weights.classes and len(names.words) == weights.outputs:
        return names_of(sorted(names.words), near, given)
    return names


def write_picture(path: Path, image: Image.Image, *, said: bool) -> None:
    """A whole PNG file or none; ``said`` prints its name and size.

    Raises:
        AlexsimError: the file cannot be written.
    """
    from alexsim.report.pictures import png

    write_bytes(path, png(image))
    if said:
        typer.echo(f"{path}: {image.width} x {image.height} pixels")

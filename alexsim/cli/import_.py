"""``alexsim model import``: weights of another format as alexsim's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alexsim.command import options as shared
from alexsim.command.fields import argument, flag, option
from alexsim.command.options import NetOptions
from alexsim.command.output import check_file, print_json
from alexsim.data.augmentation import Normalisation
from alexsim.errors import AlexsimError, unreadable

if TYPE_CHECKING:
    from alexsim.interchange.convert import Imported


@dataclass(frozen=True, kw_only=True)
class ImportOptions(NetOptions):
    """What is read, as what, and where to."""

    file: Path = argument(
        "FILE",
        "A state_dict as torch.save or safetensors write it, in a checkpoint or alone"
        " (torchvision's AlexNet too, for alexnet-owt), or a .caffemodel; whatever its ending.",
    )
    out: Path = argument("OUT", "A .safetensors file to write.")
    key: str | None = option(
        "KEY",
        "Where in a checkpoint the weights are, as `state_dict_ema`. Default: where their names"
        " are, averages last.",
    )
    classes: Path | None = option("FILE", "Names of the classes, one in each line.")
    normalise: Normalisation | None = option(
        "HOW",
        "What images were trained: less the `mean-image`, or by `channels`. Default: what the"
        " format usually has.",
    )
    mean: str | None = option(
        "MEAN", "The mean image: Caffe's .binaryproto, or red, green and blue as 123,117,104."
    )
    allow_nan: bool = flag("Take weights that are not finite, too.")


def import_(options: ImportOptions) -> None:
    """Read weights that others trained.

    docs/interchange.md says what is changed.

    Example: alexsim model import bvlc_alexnet.caffemodel caffe.safetensors --net alexnet-caffe
    """
    from alexsim.documents.interchange import import_document
    from alexsim.report.interchange import conversion_text

    out, net, mean = options.out, options.net, options.mean
    if out.suffix != ".safetensors":
        raise AlexsimError(f"OUT must end in .safetensors, got {out}")
    check_file(out)
    if mean is not None and options.normalise == "channels":
        raise AlexsimError("--mean is for --normalise mean-image")

    from alexsim.editions.load import load_network
    from alexsim.editions.variants import without_head
    from alexsim.interchange.convert import imported
    from alexsim.interchange.mean import mean_of
    from alexsim.network.part import square_side
    from alexsim.train.weights import Weights, save_weights

    read = imported(options.file, load_network(net), key=options.key, allow_nan=options.allow_nan)
    network = read.network
    if network.classes != load_network(net).classes:
        net = f"{without_head(net)}+{network.classes}-classes"
    normalisation, note = _normalisation(read, options.normalise, mean)
    channels, side = network.input_shape[0], square_side(network.input_shape[1])
    zeros = ",".join(["0"] * channels)
    image = mean_of(mean or zeros, network, side) if normalisation == "mean-image" else None
    save_weights(
        out,
        Weights(
            network=net,
            state=read.state,
            classes=_names(options.classes, network.classes),
            normalisation=normalisation,
            mean=image,
        ),
    )
    files, notes = {out: out.stat().st_size}, (*read.notes, note)
    if options.json:
        print_json(
            import_document(network, files, read.changes, notes=notes, normalisation=normalisation)
        )
        return
    text = conversion_text(network, files, read.changes, notes)
    shared.console().print(text, markup=False, soft_wrap=True)


def _normalisation(
    read: Imported, asked: Normalisation | None, mean: str | None
) -> tuple[Normalisation, str]:
    """How images are to be normalised, and what is to be said of it."""
    usual = "mean-image" if mean is not None else read.normalisation or "channels"
    how = asked or usual
    if how == "mean-image" and mean is None:
        return how, "images keep their pixels of 0...255, as no --mean was given"
    if asked or mean is not None:
        return how, f"images are normalised by {how}"
    return how, f"images are normalised by {how}; --normalise or --mean says otherwise"


def _names(path: Path | None, count: int) -> tuple[str, ...]:
    """Names of the outputs; none where nobody gives them: then the data's classes count."""

    if path is None:
        return ()
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise AlexsimError(unreadable(path, error)) from error
    if len(names) != count:
        raise AlexsimError(f"{path} names {len(names)} classes, the weights have {count}")
    return names

"""``alexsim import``: weights of another format as alexsim's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options

if TYPE_CHECKING:
    from alexsim.data.augmentation import Normalisation
    from alexsim.interchange.convert import Imported


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A state_dict as torch.save or safetensors write it, in a checkpoint or alone"
            " (torchvision's AlexNet too, for alexnet-owt), or a .caffemodel; whatever its ending.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file to write.")],
    net: options.Net = "alexnet-2012",
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Where in a checkpoint the weights are, as `state_dict_ema`. Default: where their"
            " names are, averages last.",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option("--classes", metavar="FILE", help="Names of the classes, one in each line."),
    ] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            "--normalise",
            metavar="HOW",
            help="What images were trained: less the `mean-image`, or by `channels`. Default: what"
            " the format usually has.",
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            metavar="MEAN",
            help="The mean image: Caffe's .binaryproto, or red, green and blue as 123,117,104.",
        ),
    ] = None,
    allow_nan: Annotated[
        bool, typer.Option("--allow-nan", help="Take weights that are not finite, too.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Read weights that others trained; docs/interchange.md says what is changed.

    Example: alexsim import bvlc_alexnet.caffemodel caffe.safetensors --net alexnet-caffe
    """
    from alexsim.cli.output import check_file, print_json
    from alexsim.cli.parse import as_normalisation
    from alexsim.errors import AlexsimError
    from alexsim.report.documents.interchange import import_document
    from alexsim.report.interchange import conversion_text

    if out.suffix != ".safetensors":
        raise AlexsimError(f"OUT must end in .safetensors, got {out}")
    check_file(out)
    asked = None if normalise is None else as_normalisation(normalise)
    if mean is not None and asked == "channels":
        raise AlexsimError("--mean is for --normalise mean-image")

    from alexsim.interchange.convert import imported
    from alexsim.interchange.mean import mean_of
    from alexsim.network.editions import load_network
    from alexsim.network.network import square_side
    from alexsim.network.variants import without_head
    from alexsim.train.weights import Weights, save_weights

    found = imported(file, load_network(net), key=key, allow_nan=allow_nan)
    network = found.network
    if network.classes != load_network(net).classes:
        net = f"{without_head(net)}+{network.classes}-classes"
    normalisation, note = _normalisation(found, asked, mean)
    channels, side = network.input_shape[0], square_side(network.input_shape[1])
    zeros = ",".join(["0"] * channels)
    image = mean_of(mean or zeros, network, side) if normalisation == "mean-image" else None
    save_weights(
        out,
        Weights(
            network=net,
            state=found.state,
            classes=_names(classes, network.classes),
            normalisation=normalisation,
            mean=image,
        ),
    )
    files, notes = {out: out.stat().st_size}, (*found.notes, note)
    if json:
        print_json(
            import_document(network, files, found.changes, notes=notes, normalisation=normalisation)
        )
        return
    text = conversion_text(network, files, found.changes, notes)
    options.console().print(text, markup=False, soft_wrap=True)


def _normalisation(
    found: Imported, asked: Normalisation | None, mean: str | None
) -> tuple[Normalisation, str]:
    """How images are to be normalised, and what is to be said of it."""
    usual = "mean-image" if mean is not None else found.normalisation or "channels"
    how = asked or usual
    if how == "mean-image" and mean is None:
        return how, "images keep their pixels of 0...255, as no --mean was given"
    if asked or mean is not None:
        return how, f"images are normalised by {how}"
    return how, f"images are normalised by {how}; --normalise or --mean says otherwise"


def _names(path: Path | None, count: int) -> tuple[str, ...]:
    """Names of the outputs; none where nobody gives them: then the data's classes count."""
    from alexsim.errors import AlexsimError

    if path is None:
        return ()
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise AlexsimError(f"cannot read {path}: {error}") from error
    if len(names) != count:
        raise AlexsimError(f"{path} names {len(names)} classes, the weights have {count}")
    return names

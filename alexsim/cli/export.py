"""``alexsim export``: a run's weights as a file of another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexsim.cli import options


def export(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(metavar="RUN|FILE", help="A run directory, or a .safetensors of weights."),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Its ending says the format: .safetensors, .pt or .pth (plain state_dicts), .onnx,"
            " or .caffemodel (a .prototxt and the mean image stand beside it).",
        ),
    ],
    names: Annotated[
        str,
        typer.Option("--names", metavar="WHOSE", help="Of a .pt: `alexsim`, or `torchvision`."),
    ] = "alexsim",
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check", help="Run an ONNX file by onnxruntime, if that is installed."
        ),
    ] = True,
    json: options.Json = False,
) -> None:
    """Write trained weights for others to read; docs/interchange.md says what is changed.

    Example: alexsim export runs/today alexnet.onnx

    Example: alexsim export alexnet.safetensors alexnet.caffemodel
    """
    from alexsim.cli.output import check_file, print_json, write_bytes
    from alexsim.cli.parse import choice
    from alexsim.errors import AlexsimError
    from alexsim.report.documents.interchange import export_document
    from alexsim.report.interchange import conversion_text

    check_file(out)
    choice("--names", names, ("alexsim", "torchvision"))
    if names == "torchvision" and out.suffix not in (".pt", ".pth"):
        raise AlexsimError(f"--names torchvision is for .pt and .pth, got {out}")
    if out.suffix not in (".safetensors", ".pt", ".pth", ".onnx", ".caffemodel"):
        raise AlexsimError(
            f"OUT must end in .safetensors, .pt, .pth, .onnx or .caffemodel; got {out}"
        )
    if out.suffix != ".onnx":
        options.refuse(context, f"is for .onnx, got {out}", "check")

    from alexsim.interchange.convert import Exported, Inputs, exported
    from alexsim.network.editions import load_network
    from alexsim.train.weights import load_weights, save_weights

    weights = load_weights(source)
    network = load_network(weights.network)
    if out.suffix == ".safetensors":
        save_weights(out, weights)
        made, files = Exported(network=network, files={}, changes=()), {out: out.stat().st_size}
    else:
        made = exported(
            network,
            weights.state,
            out.suffix,
            Inputs(normalisation=weights.normalisation, mean=weights.mean, classes=weights.classes),
            torchvision_names=names == "torchvision",
            check=check,
        )
        files = {}
        for ending, data in made.files.items():
            path = out.with_suffix(ending)
            write_bytes(path, data)
            files[path] = len(data)
    found = made.largest_difference
    if json:
        print_json(export_document(network, files, made.changes, found))
        return
    checked = () if found is None else (f"onnxruntime's probabilities differ by {found:.1e}",)
    text = conversion_text(network, files, (*made.changes, *checked))
    options.console().print(text, markup=False, soft_wrap=True)

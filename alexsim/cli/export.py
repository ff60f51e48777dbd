"""``alexsim model export``: a run's weights as a file of another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.fields import Options, argument, flag, option
from alexsim.command.output import check_file, print_json, write_bytes
from alexsim.errors import AlexsimError


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """What is written, and where to."""

    source: Path = argument("RUN|FILE", "A run directory, or a .safetensors of weights.")
    out: Path = argument(
        "OUT",
        "Its ending says the format: .safetensors, .pt or .pth (plain state_dicts), .onnx, or"
        " .caffemodel (a .prototxt and the mean image stand beside it).",
    )
    names: Literal["alexsim", "torchvision"] = option(
        "WHOSE", "Of a .pt: `alexsim`, or `torchvision`.", "alexsim"
    )
    check: bool = flag(
        "Run an ONNX file by onnxruntime, if that is installed.", True, names="--check/--no-check"
    )


def export(context: typer.Context, options: ExportOptions) -> None:
    """Write trained weights in another format, for others.

    docs/interchange.md says what is changed.

    Example: alexsim model export runs/today alexnet.onnx

    Example: alexsim model export alexnet.safetensors alexnet.caffemodel
    """
    from alexsim.documents.interchange import export_document
    from alexsim.report.interchange import conversion_text

    out = options.out
    check_file(out)
    if options.names == "torchvision" and out.suffix not in (".pt", ".pth"):
        raise AlexsimError(f"--names torchvision is for .pt and .pth, got {out}")
    if out.suffix not in (".safetensors", ".pt", ".pth", ".onnx", ".caffemodel"):
        raise AlexsimError(
            f"OUT must end in .safetensors, .pt, .pth, .onnx or .caffemodel; got {out}"
        )
    if out.suffix != ".onnx":
        fields.refuse(context, f"is for .onnx, got {out}", "check")

    from alexsim.editions.load import load_network
    from alexsim.interchange.convert import Exported, Inputs, exported
    from alexsim.train.weights import load_weights, save_weights

    weights = load_weights(options.source)
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
            torchvision_names=options.names == "torchvision",
            check=options.check,
        )
        files = {}
        for ending, data in made.files.items():
            path = out.with_suffix(ending)
            write_bytes(path, data)
            files[path] = len(data)
    difference = made.largest_difference
    if options.json:
        print_json(export_document(network, files, made.changes, difference))
        return
    checked = (
        () if difference is None else (f"onnxruntime's probabilities differ by {difference:.1e}",)
    )
    text = conversion_text(network, files, (*made.changes, *checked))
    shared.console().print(text, markup=False, soft_wrap=True)

"""``alexsim filters``: the first filters of a trained network, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexsim.cli import models as shared
from alexsim.cli import options


def filters(
    model: shared.Model,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.png",
            callback=shared.checked_picture,
            help="Draw them there.",
        ),
    ],
    json: options.Json = False,
) -> None:
    """Draw the first convolution's filters, the two GPUs' side by side (paper, figure 3).

    Example: alexsim filters runs/a -o filters.png
    """
    from alexsim.cli.output import print_json
    from alexsim.report.documents.evaluation import filters_document
    from alexsim.report.filters import filters_note, filters_picture, first_filters
    from alexsim.train.weights import load_weights

    weights = load_weights(model)
    found = first_filters(weights)
    shared.write_picture(output, filters_picture(found, weights.network), said=not json)
    if not json and (note := filters_note(found)):
        typer.echo(note)
    if json:
        print_json(filters_document(found, weights.network, model=str(model)))

"""``alexsim model filters``: the first filters of a trained network, as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from alexsim.cli import models
from alexsim.cli.models import ModelOptions
from alexsim.command.fields import REQUIRED, option
from alexsim.command.output import check_picture, print_json


@dataclass(frozen=True, kw_only=True)
class FiltersOptions(ModelOptions):
    """Whose, and where to."""

    output: Path = option(
        "FILE.png", "Draw them there.", REQUIRED, names="-o --output", callback=check_picture
    )


def filters(options: FiltersOptions) -> None:
    """Draw the first convolution's filters.

    The two GPUs' side by side, as in the paper's figure 3.

    Example: alexsim model filters runs/a -o filters.png
    """
    from alexsim.documents.evaluation import filters_document
    from alexsim.report.filters import filters_note, filters_picture, first_filters
    from alexsim.train.weights import load_weights

    weights = load_weights(options.model)
    first = first_filters(weights)
    picture = filters_picture(first, weights.network)
    models.write_picture(options.output, picture, said=not options.json)
    if options.json:
        print_json(filters_document(first, weights.network, model=str(options.model)))
    elif note := filters_note(first):
        typer.echo(note)

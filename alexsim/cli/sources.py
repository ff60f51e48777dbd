"""Options of commands that read a source of images: how, where it does not tell itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from alexsim.data.sources.source import SourceChoices

Names = Annotated[
    Path | None,
    typer.Option(
        "--names",
        metavar="FILE",
        help="What classes are called, a line each, as LOC_synset_mapping.txt has WordNet ids."
        " Default: such a file beside the data.",
    ),
]
ValLabels = Annotated[
    Path | None,
    typer.Option(
        "--val-labels",
        metavar="FILE",
        help="Labels of the validation images, wherever these lie: a line for each, with its name,"
        " as in LOC_val_solution.csv, or without, in the order of their names. Default: a file"
        " beside the data, where images lie in no class folder.",
    ),
]
LabelSchemeName = Annotated[
    str,
    typer.Option(
        "--label-scheme",
        metavar="SCHEME",
        help="What those labels are: `names` of classes (WordNet ids, say; the default), the"
        " `words` they are called, `ilsvrc`: ILSVRC's own ids, by its development kit, or places"
        " among the classes, `0-based` or `1-based`.",
    ),
]
SplitRule = Annotated[
    list[str] | None,
    typer.Option(
        "--split",
        metavar="NAME=SPLIT",
        help="Files or folders of this name, as in 'interval-*.tar=train', are `train`, `val`,"
        " `test` or `none`. Default: by a whole word of the name; else train.",
    ),
]
ImageEnding = Annotated[
    str,
    typer.Option(
        "--image",
        metavar="ENDING",
        help="Of WebDataset samples with several images take these, as in left.jpg. Default: jpg,"
        " jpeg, png, webp, then others; a plain ending before one with a dot.",
    ),
]


def choices(
    names: Path | None, labels: Path | None, scheme: str, split: list[str] | None, image: str
) -> SourceChoices:
    """How to read a source.

    Raises:
        AlexsimError: a scheme or split is none of those there are.
    """
    from alexsim.cli.parse import choice
    from alexsim.data.sources.classes import LABEL_SCHEMES
    from alexsim.data.sources.source import SourceChoices
    from alexsim.data.sources.splits import SOURCE_SPLITS
    from alexsim.errors import AlexsimError

    rules = []
    for text in split or ():
        pattern, equals, named = text.rpartition("=")
        if not equals or not pattern:
            raise AlexsimError(f"--split must be NAME=SPLIT, as in val.tar=train; got {text!r}")
        rules.append((pattern, choice(f"--split {pattern}=", named, SOURCE_SPLITS)))
    return SourceChoices(
        names=names,
        labels=labels,
        scheme=choice("--label-scheme", scheme, LABEL_SCHEMES) if scheme else None,
        splits=tuple(rules),
        image=image.removeprefix("."),
    )

"""``alexsim eval``: error rates of trained networks, alone and together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexsim.cli import models as shared
from alexsim.cli import options


def evaluate(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Run directories, or .safetensors files of `alexsim export` or `alexsim import`.",
        ),
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Images, as for `alexsim train`.")
    ],
    split: shared.Split = "held-out",
    views: shared.ViewCount = 1,
    shares: Annotated[
        str,
        typer.Option(
            "--shares", metavar="S,S,...", help="Of each network in the average. Default: equal."
        ),
    ] = "",
    tune: Annotated[
        str,
        typer.Option(
            "--tune", metavar="SPLIT", help="Take the shares that suit these images best."
        ),
    ] = "",
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions",
            metavar="FILE",
            callback=options.checked_file,
            help="Write every image's five best classes, as .csv, .json or .parquet.",
        ),
    ] = None,
    batch: shared.Batch = 128,
    device: shared.Device = "cpu",
    backend: shared.Backend = "aten",
    threads: shared.Threads = None,
    workers: shared.Workers = None,
    json: options.Json = False,
) -> None:
    """Test networks on images: top-1 and top-5 error of each, and of their average.

    Probabilities are averaged over views, then over networks, as in 2012. Guesses that tie share
    the credit. Files that cannot be read are named and left out.

    Example: alexsim eval runs/a --data DIR --views 10 --predictions predictions.csv

    Example: alexsim eval runs/a runs/b runs/c --data DIR --tune train
    """
    from dataclasses import replace

    from alexsim.cli.output import check_rows, print_json, write_rows
    from alexsim.data.discover import discover, split_of
    from alexsim.data.sources.listing import Skipped, left_out_lines
    from alexsim.errors import AlexsimError
    from alexsim.evaluate.evaluate import Answers, answers, class_names, combined
    from alexsim.report.documents.evaluation import evaluation_document
    from alexsim.report.evaluation import evaluation_tables, prediction_rows
    from alexsim.train.weights import load_weights

    if predictions is not None:
        check_rows("--predictions", predictions)
    chosen = shared.view_count(views)
    if tune and shares:
        raise AlexsimError("give --shares or --tune, not both")
    if tune == split:
        raise AlexsimError(f"--tune {tune}: these images are tested; tune on others")
    if (tune or shares) and len(models) == 1:
        raise AlexsimError("--tune and --shares are for several networks")
    given = _shares(shares, len(models)) if shares else None
    loaded = [load_weights(model) for model in models]
    found = discover(data, most_classes=max(one.outputs for one in loaded))
    names = class_names(loaded, found)
    setup = shared.setup(batch, device, backend, threads, workers)

    left_out: dict[str, tuple[Skipped, ...]] = {}

    def ask(which: str) -> list[Answers]:
        samples, left_out[which] = split_of(found, which)
        for line in left_out_lines(left_out[which]):
            typer.echo(f"alexsim: {which}: {line}", err=True)
        each = []
        for model, one in zip(models, loaded, strict=True):
            with options.counting(f"{which} images, {model.name}", len(samples)) as done:
                each.append(
                    replace(
                        answers(
                            one,
                            found.renumbered(samples, names),
                            setup,
                            views=chosen,
                            done=done,
                        ),
                        classes=len(names),
                    )
                )
        return each

    result = combined(ask(split), shares=given, tuned_on=ask(tune) if tune else None)
    document = evaluation_document(
        result, models, loaded, views=views, split=split, data=data, left_out=left_out[split]
    )
    if predictions is not None:
        rows = prediction_rows(result.together, names)
        write_rows(predictions, rows, document.document() | {"predictions": rows})
    if json:
        print_json(document)
        return
    options.console().print(
        evaluation_tables(result, models, loaded, views=views, split=split), soft_wrap=True
    )


def _shares(given: str, networks: int) -> tuple[float, ...]:
    from alexsim.errors import AlexsimError

    try:
        shares = tuple(float(text) for text in given.split(","))
    except ValueError:
        shares = ()
    if len(shares) != networks or not all(0 <= share < float("inf") for share in shares):
        raise AlexsimError(
            f"--shares must be {networks} numbers >= 0, one per network; got {given!r}"
        )
    total = sum(shares)
    if not total:
        raise AlexsimError("--shares are all 0")
    return tuple(share / total for share in shares)

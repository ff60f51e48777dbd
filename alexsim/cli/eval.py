"""``alexsim eval``: error rates of trained networks, alone and together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alexsim.cli import models as shared_models
from alexsim.cli.models import AnswerOptions, SetOptions, ViewOptions
from alexsim.command import options as shared
from alexsim.command.answer import Given, give
from alexsim.command.fields import argument, option
from alexsim.command.output import check_file, check_rows, write_rows
from alexsim.errors import AlexsimError

if TYPE_CHECKING:
    from alexsim.data.sources.listing import Skipped


@dataclass(frozen=True, kw_only=True)
class EvalOptions(SetOptions, ViewOptions, AnswerOptions):
    """Which networks are tested, and how."""

    models: list[Path] = argument(
        "MODEL...",
        "Run directories, or .safetensors files of `alexsim model export` or `alexsim model"
        " import`.",
    )
    shares: str = option("S,S,...", "Of each network in the average. Default: equal.", "")
    tune: str = option("SPLIT", "Take the shares that suit these images best.", "")
    predictions: Path | None = option(
        "FILE",
        "Write every image's five best classes, as .csv, .json or .parquet.",
        callback=check_file,
    )


def evaluate(options: EvalOptions) -> None:
    """Test networks on images, alone and averaged.

    Top-1 and top-5 error of each, and of their average: probabilities are averaged over views, then
    over networks, as in 2012. Guesses that tie share the credit. Files that cannot be read are
    named and left out.

    Example: alexsim eval runs/a --data DIR --views 10 --predictions predictions.csv

    Example: alexsim eval runs/a runs/b runs/c --data DIR --tune train
    """
    from alexsim.data.discover import discover
    from alexsim.documents.evaluation import evaluation_document
    from alexsim.evaluate.evaluate import Answers, answers, class_names, combined
    from alexsim.report.evaluation import evaluation_tables, prediction_rows
    from alexsim.train.weights import load_weights

    models, split, tune, views = options.models, options.split, options.tune, options.views
    if options.predictions is not None:
        check_rows("--predictions", options.predictions)
    if tune and options.shares:
        raise AlexsimError("give --shares or --tune, not both")
    if tune == split:
        raise AlexsimError(f"--tune {tune}: these images are tested; tune on others")
    if (tune or options.shares) and len(models) == 1:
        raise AlexsimError("--tune and --shares are for several networks")
    shares = _shares(options.shares, len(models)) if options.shares else None
    loaded = [load_weights(model) for model in models]
    dataset = discover(options.data, most_classes=max(weights.outputs for weights in loaded))
    names = class_names(loaded, dataset)
    setup = shared_models.setup(options, *loaded)
    left_out: dict[str, tuple[Skipped, ...]] = {}

    def ask(which: str) -> list[Answers]:
        samples, left_out[which] = shared_models.split_of(dataset, which)
        known = dataset.renumbered(samples, names)
        each = []
        for model, weights in zip(models, loaded, strict=True):
            with shared.counting(f"{which} images, {model.name}", len(samples)) as done:
                answered = answers(weights, known, setup, views=views, done=done)
            each.append(replace(answered, classes=len(names)))
        return each

    result = combined(ask(split), shares=shares, tuned_on=ask(tune) if tune else None)
    document = evaluation_document(
        result,
        models,
        loaded,
        views=views,
        split=split,
        data=options.data,
        left_out=left_out[split],
    )
    if options.predictions is not None:
        rows = prediction_rows(result.together, names)
        write_rows(options.predictions, rows, document.document() | {"predictions": rows})
    tables = evaluation_tables(result, models, loaded, views=views, split=split)
    answered = Given(document=lambda: document, tables=lambda _: tables)
    give(options, answered, soft_wrap=True)


def _shares(given: str, networks: int) -> tuple[float, ...]:

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

"""Error rates of networks as terminal tables, and every image's best guesses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.evaluate.evaluate import Answers, Combined, errors
from alexsim.report.tables import plain_table
from alexsim.train.settings import Evaluation
from alexsim.train.weights import Weights

_GUESSES = 5


def evaluation_tables(
    combined: Combined, models: Sequence[Path], loaded: Sequence[Weights], *, views: int, split: str
) -> RenderableType:
    """A row per network, and a row for their average."""
    images = len(combined.together.samples)
    title = f"{images:,} {split} images, {'10 views' if views == 10 else 'centre crop'}"
    several = len(combined.each) > 1
    out = plain_table(
        title, "model", "network", "top-1", "top-5", "loss", *(["share"] if several else [])
    )
    for model, weights, answers, share in zip(
        models, loaded, combined.each, combined.shares, strict=True
    ):
        out.add_row(
            model.name,
            weights.network,
            *_cells(errors(answers)),
            *([f"{share:.3f}"] if several else []),
        )
    if several:
        how = "tuned average" if combined.tuned else "average"
        out.add_row(how, f"of {len(models)}", *_cells(errors(combined.together)), "1.000")
    notes = [
        note
        for model, weights, answers in zip(models, loaded, combined.each, strict=True)
        for note in (
            nan_note(model.name, int((~answers.finite).sum()), images),
            unnamed_note(f"{model.name}: ", weights, float(mean_of(answers.elsewhere))),
        )
    ]
    if several:
        notes.append(nan_note("the average", int((~combined.together.finite).sum()), images))
    notes += [f"not read: {reason}" for reason in combined.together.broken]
    return Group(out, *(Text(note) for note in notes if note))


def nan_note(whose: str, count: int, images: int) -> str:
    """A line on images for which a network puts out NaN; empty where there are none."""
    if not count:
        return ""
    return f"{whose} puts out NaN for {count} of {images} images: wrong, and without a loss"


def unnamed_note(whose: str, weights: Weights, probability: float) -> str:
    """A line on outputs without a class, which are no guesses; empty where all have a class."""
    count = weights.outputs - weights.named
    if not count:
        return ""
    share = f"{100 * probability:.2f} %"
    return f"{whose}{share} of probability on {count} of {weights.outputs} outputs without a class"


def mean_of(values: np.ndarray) -> float:
    """The mean of the finite values; NaN where none is finite."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _cells(evaluation: Evaluation) -> tuple[str, ...]:
    loss = "NaN" if math.isnan(evaluation.loss) else f"{evaluation.loss:.4f}"
    return f"{100 * evaluation.top1:.2f} %", f"{100 * evaluation.top5:.2f} %", loss


def prediction_rows(answers: Answers, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every image with its class, and the best guesses with their probabilities.

    Every row has equally many guesses: behind classes come outputs without a class. Guesses are
    None for an image for which the network puts out NaN.
    """
    rows = []
    count = min(_GUESSES, answers.probabilities.shape[1])
    for sample, values in zip(answers.samples, answers.probabilities, strict=True):
        row: dict[str, Any] = {
            "file": sample.place,
            "class": names[sample.label],
        }
        guesses: Sequence[tuple[str, float] | tuple[None, None]] = best(values[: len(names)], names)
        if guesses:
            unnamed = [f"output {n}" for n in range(len(names), len(values))]
            left_out = best(values[len(names) :], unnamed)
            guesses = [*guesses, *left_out][:count]
        else:
            guesses = [(None, None)] * count
        for place, (name, probability) in enumerate(guesses, start=1):
            row |= {f"guess{place}": name, f"probability{place}": probability}
        rows.append(row)
    return rows


def best(probabilities: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
    """The five likeliest classes, the first of equals first; empty where a value is not finite."""
    if not np.isfinite(probabilities).all():
        return []
    order = np.argsort(-probabilities, kind="stable")[:_GUESSES]
    return [(names[i] if i < len(names) else f"output {i}", float(probabilities[i])) for i in order]

"""Error rates of networks: terminal tables, a document, and every image's best guesses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.report.documents import head
from alexsim.report.tables import plain_table
from alexsim.train.evaluate import Answers, Combined, errors
from alexsim.train.records import Evaluation
from alexsim.train.weights import Weights

_GUESSES = 5


def evaluation_tables(
    found: Combined, models: Sequence[Path], loaded: Sequence[Weights], *, views: int, split: str
) -> RenderableType:
    """A row per network, and one for their average."""
    images = len(found.together.samples)
    title = f"{images:,} {split} images, {'10 views' if views == 10 else 'centre crop'}"
    several = len(found.each) > 1
    out = plain_table(
        title, "model", "network", "top-1", "top-5", "loss", *(["share"] if several else [])
    )
    for model, one, own, share in zip(models, loaded, found.each, found.shares, strict=True):
        out.add_row(
            model.name, one.network, *_cells(errors(own)), *([f"{share:.3f}"] if several else [])
        )
    if several:
        how = "tuned average" if found.tuned else "average"
        out.add_row(how, f"of {len(models)}", *_cells(errors(found.together)), "1.000")
    broken = found.together.broken
    notes = [Text(f"not read: {reason}") for reason in broken]
    return Group(out, *notes)


def _cells(found: Evaluation) -> tuple[str, ...]:
    return f"{100 * found.top1:.2f} %", f"{100 * found.top5:.2f} %", f"{found.loss:.4f}"


def evaluation_document(
    found: Combined,
    models: Sequence[Path],
    loaded: Sequence[Weights],
    *,
    views: int,
    split: str,
    data: Path,
) -> dict[str, Any]:
    """The same for scripts; errors are fractions 0...1."""
    network = loaded[0].network if len({one.network for one in loaded}) == 1 else "several"
    return (
        head(network, len(found.together.samples))
        | {"data": str(data), "split": split, "views": views}
        | {"images": len(found.together.samples)}
        | asdict(errors(found.together))
        | {
            "tuned": found.tuned,
            "models": [
                {"model": str(model), "network": one.network, "share": share} | asdict(errors(own))
                for model, one, own, share in zip(
                    models, loaded, found.each, found.shares, strict=True
                )
            ],
            "broken": list(found.together.broken),
        }
    )


def prediction_rows(of: Answers, names: Sequence[str]) -> list[dict[str, Any]]:
    """Every image with its class, and the best guesses with their probabilities."""
    rows = []
    for sample, own in zip(of.samples, of.probabilities, strict=True):
        row: dict[str, Any] = {
            "file": sample.place,
            "class": names[sample.label],
        }
        for place, (name, probability) in enumerate(best(own, names), start=1):
            row |= {f"guess{place}": name, f"probability{place}": probability}
        rows.append(row)
    return rows


def best(probabilities: np.ndarray, names: Sequence[str]) -> list[tuple[str, float]]:
    """The five likeliest classes; of equal ones, the first."""
    order = np.argsort(-probabilities, kind="stable")[:_GUESSES]
    return [(names[i] if i < len(names) else f"output {i}", float(probabilities[i])) for i in order]

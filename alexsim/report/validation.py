"""Predictions of published figures as terminal text, and as a CSV file."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from alexsim.report.tables import plain_table
from alexsim.simulate.judging import Group, Summary
from alexsim.simulate.rows import Excluded
from alexsim.simulate.validation import Prediction

_UNITS = {"ms per batch": "ms", "ms per image": "ms/i", "images/s": "im/s", "hours": "h"}


def validation_tables(
    summaries: Sequence[Summary],
    groups: Sequence[Group],
    excluded: Sequence[Excluded],
    *,
    every_row: bool,
) -> RenderableType:
    """Every row, then the errors by device and library and by kind; why rows were left out."""
    parts: list[RenderableType] = []
    if every_row:
        parts += [Text(_rows_of(group)) for group in groups]
    if any(group.summary.rows for group in groups):
        parts += [_groups(groups), _summaries(summaries)]
    predicted = sum(len(group.predictions) for group in groups)
    parts.append(Text(f"\n{predicted} of {predicted + len(excluded)} rows predicted"))
    if excluded:
        why: dict[str, int] = defaultdict(int)
        for row in excluded:
            why[row.why] += 1
        left = plain_table("Not predicted, by a rule on the row's conditions", "why", "rows")
        for text, count in sorted(why.items(), key=lambda item: -item[1]):
            left.add_row(text if len(text) < 66 else f"{text[:63]}...", str(count))
        parts.append(left)
    return Lines(*parts)


def _rows_of(group: Group) -> str:
    lines = [
        f"\n{group.device}, {group.library}",
        f"  {'row':9s} {'what':19s} {'batch':>5s} {'pass':10s} {'measured':>8s}"
        f" {'predicted':>9s} {'':4s} {'error':>7s}",
    ]
    for prediction in group.predictions:
        case, row = prediction.case, prediction.case.row
        several = f"{row.n_gpus} x " if row.n_gpus > 1 else ""
        what = f"{several}{row.layer or case.network.name}"
        measured = "" if row.value is None else f"{row.value:.5g}"
        error = "" if row.value is None else f"{100 * prediction.error:+.0f} %"
        lines.append(
            f"  {row.id:9.9s} {what:19.19s} {case.batch_size:5d} {row.passes:10s} {measured:>8s}"
            f" {f'{prediction.value:.4g}':>9s} {_UNITS[row.unit]:4s} {error:>7s}"
        )
    return "\n".join(lines)


def _groups(groups: Sequence[Group]) -> RenderableType:
    out = plain_table(
        "Errors of times, %, by device and library; beside them the roofline's mean",
        "device", "library", "n", "median", "mean", "worst", "bias", "roofline",
    )  # fmt: skip
    out.columns[1].justify = "left"
    for group in groups:
        summary = group.summary
        if not summary.rows:
            continue
        figures = (summary.median_absolute_error, summary.mean_absolute_error)
        out.add_row(
            group.device,
            group.library,
            str(summary.rows),
            *(f"{100 * figure:.1f}" for figure in figures),
            f"{100 * summary.worst:+.0f}",
            f"{100 * summary.bias:+.1f}",
            f"{100 * group.roofline.mean_absolute_error:.0f}",
        )
    return out


def _summaries(summaries: Sequence[Summary]) -> RenderableType:
    out = plain_table(
        "Errors of times by kind of row and by fit; trusted float32 rows of one GPU",
        "what", "rows", "median", "mean", "worst", "bias", "in 90 %",
    )  # fmt: skip
    for summary in summaries:
        out.add_row(
            summary.name,
            str(summary.rows),
            f"{100 * summary.median_absolute_error:.1f} %",
            f"{100 * summary.mean_absolute_error:.1f} %",
            f"{100 * summary.worst:+.0f} %",
            f"{100 * summary.bias:+.1f} %",
            f"{100 * summary.coverage:.0f} %",
        )
    return out


def predictions_csv(predictions: Iterable[Prediction], excluded: Iterable[Excluded]) -> str:
    """One line per row: the prediction in the row's unit and its bounds, or why there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "predicted", "low", "high", "reason", "unit", "measured", "error"])
    for prediction in predictions:
        row = prediction.case.row
        writer.writerow(
            [
                row.id,
                *(f"{value:.6g}" for value in (prediction.value, prediction.low, prediction.high)),
                "",
                row.unit,
                "" if row.value is None else f"{row.value:g}",
                "" if row.value is None else f"{prediction.error:.4f}",
            ]
        )
    for left in excluded:
        measured = "" if left.row.value is None else f"{left.row.value:g}"
        writer.writerow([left.row.id, "", "", "", left.why, left.row.unit, measured, ""])
    return text.getvalue()

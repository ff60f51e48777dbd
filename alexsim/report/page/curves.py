"""Loss, error and times of a run's steps, and what its cards said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

from alexsim.report.documents.profile import ProfileDocument
from alexsim.report.documents.run import StepMetrics
from alexsim.report.figures.curves import NOISY, QUANTITIES, said, window
from alexsim.report.figures.text import digits, milliseconds
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Section,
    Table,
    number_columns,
    text_columns,
    words,
)
from alexsim.report.page.inputs import Subject
from alexsim.report.page.steps import time

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_MOST_ROWS = 200


def curve_section(subject: Subject, plots: Mapping[str, Plot]) -> Section | None:
    """A run's curves; None where it left no step."""
    metrics = subject.metrics
    if not metrics:
        return None
    first, last = metrics[0], metrics[-1]
    mean = ""
    if len(metrics) >= NOISY:
        mean = f" The strong line is a mean over {window(metrics)} steps."
    tested = wrong = ""
    if subject.held_out:
        scores = subject.held_out[-1].scores
        tested = f" On held-out images {digits(scores.loss, 4)}."
        wrong = f" On held-out images top-1 {_percent(scores.top1)}, top-5 {_percent(scores.top5)}."
    times = [each.step_s for each in metrics]
    waited = sum(each.data_wait_s for each in metrics) / sum(times)
    texts = {
        "loss": f"From {digits(first.loss, 4)} at step {first.step:,} to {digits(last.loss, 4)} at"
        f" step {last.step:,}.{tested}{mean}",
        "error": f"Top-1 from {_percent(first.top1)} to {_percent(last.top1)}, top-5 from"
        f" {_percent(first.top5)} to {_percent(last.top5)}.{wrong}{mean}",
        "step-times": f"Median {milliseconds(median(times))} ms; steps waited for data"
        f" {_percent(waited)} of the time.",
    }
    titles = {"loss": "Loss", "error": "Error", "step-times": "Time of each step"}
    return Section(
        id="curves",
        title="Loss and error",
        figures=tuple(
            Figure(
                id=f"{name}-figure",
                title=titles[name],
                text=text,
                drawing=plots[name],
                wide=name == "step-times",
            )
            for name, text in texts.items()
        ),
        tables=(metric_table(metrics),),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def metric_table(
    metrics: Sequence[StepMetrics], id_: str = "metrics-table", name: str = ""
) -> Table:
    """Steps of a run; of many, every n-th and the last."""
    stride = -(-len(metrics) // _MOST_ROWS)
    kept = list(metrics[::stride])
    if kept[-1] is not metrics[-1]:
        kept.append(metrics[-1])
    every = "Every step" if stride == 1 else f"One step in {stride}"
    return Table(
        id=id_,
        caption=every + (f" of {name}" if name else ""),
        columns=number_columns(
            "step", "loss", "top-1 error, %", "top-5 error, %", "step, ms", "data wait, ms"
        ),
        rows=tuple(
            (
                Cell(text=f"{each.step:,}", value=each.step),
                Cell(text=f"{each.loss:.4f}", value=each.loss),
                Cell(text=f"{100 * each.top1:.1f}", value=each.top1),
                Cell(text=f"{100 * each.top5:.1f}", value=each.top5),
                time(each.step_s),
                time(each.data_wait_s),
            )
            for each in kept
        ),
        folded=True,
    )


def telemetry_section(subject: Subject, plots: Mapping[str, Plot]) -> Section | None:
    """What the cards said, quantity by quantity; None where no card says anything."""
    if not subject.samples:
        return None
    figures, rows = [], []
    for quantity in QUANTITIES:
        field, title, unit, _ = quantity
        texts = []
        for card, points in said(subject.samples, quantity).items():
            values = [value for _, value in points]
            name = subject.cards[card] if card < len(subject.cards) else f"card {card}"
            summary = (min(values), fmean(values), max(values))
            rows.append((*words(f"{title}, {unit}", name), *words(*map(digits, summary))))
            texts.append(f"card {card}: {digits(summary[1])} {unit} on average")
        if texts:
            id_ = f"card-{field.replace('_', '-')}"
            figures.append(
                Figure(
                    id=id_, title=title, text="; ".join(texts) + ".", drawing=plots[id_],
                    wide=False,
                )
            )  # fmt: skip
    document = subject.document
    told = document.telemetry if isinstance(document, ProfileDocument) else None
    joules = told.joules_per_image if told else None
    table = Table(
        id="telemetry-table",
        caption="What the cards said",
        columns=text_columns("quantity", "card") + number_columns("lowest", "mean", "highest"),
        rows=tuple(rows),
    )
    return Section(
        id="telemetry",
        title="Cards",
        text=f"{joules:.3f} J per image." if joules is not None else "",
        figures=tuple(figures),
        tables=(table,),
    )

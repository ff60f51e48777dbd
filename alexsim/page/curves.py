"""Loss, error and times of a run's steps, and what its cards said."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from alexsim.documents.run import StepMetrics
from alexsim.page.elements import Figure, Section, Table, ms, number, table
from alexsim.page.figures.curves import NOISY, QUANTITIES, said, window
from alexsim.page.figures.text import digits, milliseconds
from alexsim.page.inputs import Subject

_MOST_ROWS = 200


def curve_section(subject: Subject) -> Section | None:
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
    loss = (
        f"From {digits(first.loss, 4)} at step {first.step:,} to {digits(last.loss, 4)} at"
        f" step {last.step:,}.{tested}{mean}"
    )
    error = (
        f"Top-1 from {_percent(first.top1)} to {_percent(last.top1)}, top-5 from"
        f" {_percent(first.top5)} to {_percent(last.top5)}.{wrong}{mean}"
    )
    step = (
        f"Median {milliseconds(median(times))} ms; steps waited for data {_percent(waited)} of"
        " the time."
    )
    figures = [
        Figure("loss", "Loss", loss, wide=False),
        Figure("error", "Error", error, wide=False),
        Figure("step-times", "Time of each step", step),
    ]
    return Section("curves", "Loss and error", figures=figures, tables=[metric_table(metrics)])


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
    return table(
        id_, every + (f" of {name}" if name else ""), kept,
        {
            "step": lambda each: number(each.step, "{:,}".format),
            "loss": lambda each: number(each.loss, "{:.4f}".format),
            "top-1 error, %": lambda each: number(100 * each.top1, "{:.1f}".format),
            "top-5 error, %": lambda each: number(100 * each.top5, "{:.1f}".format),
            "step, ms": lambda each: ms(each.step_s),
            "data wait, ms": lambda each: ms(each.data_wait_s),
        },
        folded=True,
    )  # fmt: skip


def telemetry_section(subject: Subject) -> Section | None:
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
            rows.append((f"{title}, {unit}", name, values))
            texts.append(f"card {card}: {digits(fmean(values))} {unit} on average")
        if texts:
            id_ = f"card-{field.replace('_', '-')}"
            figures.append(Figure(id_, title, "; ".join(texts) + ".", wide=False))
    told = subject.measured.telemetry if subject.measured else None
    joules = told.joules_per_image if told else None
    text = f"{joules:.3f} J per image." if joules is not None else ""
    summary = table(
        "telemetry-table", "What the cards said", rows,
        {
            "quantity": lambda row: row[0],
            "card": lambda row: row[1],
            "lowest": lambda row: number(min(row[2])),
            "mean": lambda row: number(fmean(row[2])),
            "highest": lambda row: number(max(row[2])),
        },
    )  # fmt: skip
    return Section("telemetry", "Cards", text, figures, [summary])

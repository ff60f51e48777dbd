"""The page of ``alexsim check validate``: predicted against measured times, and errors by group."""

from __future__ import annotations

from collections.abc import Sequence

from plotly.graph_objects import Figure as Plot

from alexsim.fidelity.groups import AXES, ErrorGroup
from alexsim.fidelity.judged import WHOLE, Judged
from alexsim.fidelity.sample import Sample
from alexsim.page.elements import Cell, Figure, Section, Table, number, share, table
from alexsim.page.figures.text import percent, seconds
from alexsim.page.figures.validation import coverage, dots_of, residuals, scatter, signed
from alexsim.page.page import rendered
from alexsim.report.groups import common_line, cut_line, parting, sample_line

_FARTHEST = 30
"""So many rows are listed as farthest off."""
_ENOUGH = 20
"""Of fewer rows, how many lie in intervals says nothing."""


def validation_page(
    rows: Sequence[Judged],
    groups: Sequence[ErrorGroup],
    measurements: str,
    fitted_to: str,
    sample: Sample | None = None,
) -> str:
    """HTML of rows of which some have a measured time; ``groups`` are theirs."""
    known = [row for row in rows if row.measured_s is not None]
    dots, every = dots_of(known)
    sections = [
        _summary(rows, groups, sample),
        _scatter(known, dots, every),
        _distribution(),
        _groups(groups),
        _farthest(known),
        Section(
            "what-ran", "What was predicted from what",
            pairs=[("measurements", measurements), ("correction fitted to", fitted_to)],
            folded=True,
        ),
    ]  # fmt: skip
    name = "published figures" if measurements == "published" else measurements
    return rendered(f"Predictions beside {name}", "Validation", sections, _plots(known, dots))


def _plots(known: Sequence[Judged], dots: Sequence[Judged]) -> dict[str, Plot]:
    by_generation = next(axis.of for axis in AXES if axis.name == "generation")
    sets = {
        "networks": [row for row in known if row.op == WHOLE],
        "layers": [row for row in known if row.op != WHOLE],
        "devices seen": [row for row in known if row.device_seen],
        "devices never seen": [row for row in known if not row.device_seen],
    }
    kinds = {name: sets[name] for name in ("networks", "layers") if sets[name]}
    many = {name: members for name, members in sets.items() if len(members) >= _ENOUGH}
    return {
        "by-op": scatter(dots, lambda row: (float(row.op != WHOLE), row.op)),
        "by-generation": scatter(dots, by_generation),
        "residuals": residuals(kinds),
        "coverage": coverage({"every row": known, **many}),
    }


def _summary(
    rows: Sequence[Judged], groups: Sequence[ErrorGroup], sample: Sample | None
) -> Section:
    errors, alike = groups[0].plain, groups[0].alike
    blind = len(rows) - errors.rows
    bound = errors.roofline_median_absolute_error
    facts = [
        ("Rows", f"{errors.rows:,}", f"{blind:,} more have no measured time" if blind else ""),
        (
            "Median error",
            percent(errors.median_absolute_error),
            f"{percent(alike.median_absolute_error)} where each device of each source counts alike",
        ),
        (
            "Mean error",
            percent(errors.mean_absolute_error),
            f"{percent(alike.mean_absolute_error)} where each device of each source counts alike",
        ),
        (
            "In their 90 % interval",
            percent(errors.coverage),
            f"{percent(alike.coverage)} where each device of each source counts alike",
        ),
    ]
    if bound is not None:
        facts.append(
            ("The roofline's median error", percent(bound), "what data sheets alone would say")
        )
    text = (
        "Errors are predicted over measured time, minus one; medians and means are of their"
        f" absolute values. {cut_line(groups)}"
    )
    return Section(
        "summary", "In short", text, facts=facts, notes=[sample_line(sample)] if sample else []
    )


def _scatter(known: Sequence[Judged], dots: Sequence[Judged], every: int) -> Section:
    said = "A dot for each row: above the line it is predicted too slow, below too fast."
    if every > 1:
        said = (
            f"{len(dots):,} of {len(known):,} rows are drawn: one in {every} of each op of each"
            " device of each source, and at least one, chosen by a hash of their ids. Every"
            f" other figure on this page is of all rows. {said}"
        )
    if any(not row.device_seen for row in dots):
        said = f"{said} Hollow: the fit has seen no row of the device."
    figures = [
        Figure("by-op", "By op", "A click in the legend leaves a group out."),
        Figure("by-generation", "By generation of the card", "The same dots."),
    ]
    return Section("times", "Predicted against measured", said, figures=figures)


def _distribution() -> Section:
    figures = [
        Figure(
            "residuals", "How far off", "Bars at the ends hold all that is farther.", wide=False
        ),
        Figure(
            "coverage", "How sure",
            "Under the diagonal a prediction is less sure than its interval says; the interval that"
            " is printed is for 90 %.",
            wide=False,
        ),
    ]  # fmt: skip
    return Section("distribution", "Errors and intervals", figures=figures)


def _groups(groups: Sequence[ErrorGroup]) -> Section:
    """A table for every axis that parts the rows."""
    tables = [
        _table(axis.name, axis.title, members, groups[0])
        for axis, members in parting(groups).items()
    ]
    text = (
        'Per cent of the measured time. "Alike": each device of each source counts alike, whatever'
        f" the number of its rows. {common_line(groups)}"
    )
    return Section("groups", "Errors by group", text, tables=tables)


def _table(id_: str, title: str, members: Sequence[ErrorGroup], every: ErrorGroup) -> Table:
    return table(
        f"errors-by-{id_.replace('_', '-')}", title.capitalize(), members,
        {
            title: lambda group: group.name,
            "rows": lambda group: number(group.plain.rows, lambda count: f"{count:,.0f}"),
            "median": lambda group: share(group.plain.median_absolute_error),
            "mean": lambda group: share(group.plain.mean_absolute_error),
            "median, alike": lambda group: share(group.alike.median_absolute_error),
            "mean, alike": lambda group: share(group.alike.mean_absolute_error),
            "bias": lambda group: number(group.plain.bias, signed),
            "in 90 %": lambda group: share(group.plain.coverage),
            "in 90 %, alike": lambda group: share(group.alike.coverage),
            "roofline's median": lambda group: share(group.plain.roofline_median_absolute_error),
        },
        foot=[every], sortable=True,
    )  # fmt: skip


def _farthest(known: Sequence[Judged]) -> Section:
    """The rows that are farthest off, as a factor either way."""
    rows = sorted(known, key=lambda row: -abs(row.log_ratio))[:_FARTHEST]
    return Section(
        "farthest", "Farthest off", "As a factor, either way.",
        tables=[
            table(
                "farthest-rows", f"{len(rows)} rows of {len(known):,}", rows,
                {
                    "row": lambda row: row.id,
                    "device": lambda row: row.device,
                    "library": lambda row: row.library,
                    "op": lambda row: f"{row.op}, {row.passes}",
                    "batch": lambda row: number(row.batch_size, lambda batch: f"{batch:,.0f}"),
                    "predicted": lambda row: _time(row.predicted_s),
                    "measured": lambda row: _time(row.measured_s),
                    "error": lambda row: number(row.error, signed),
                    "source": lambda row: row.source,
                    "what": lambda row: row.what,
                },
                sortable=True,
            )
        ],
        folded=True,
    )  # fmt: skip


def _time(value: float | None) -> Cell:
    return number(value, seconds)

"""Errors by groups of rows as a terminal table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from alexsim.fidelity.groups import AXES, CUT, ErrorGroup, Errors
from alexsim.fidelity.sample import Sample
from alexsim.report.tables import plain_table

_WIDEST = 30
"""Longer names are cut: figures stay whole in 80 columns."""


def sample_line(sample: Sample) -> str:
    """What a quick look looked at."""
    return (
        f"A sample, {sample.rows:,} of {sample.of:,} rows: one in {sample.every} of each device"
        " with each library, and at least one. All sums are the sample's."
    )


def cut_line(groups: Sequence[ErrorGroup]) -> str:
    """What means leave out, if anything."""
    count = groups[0].plain.cut if groups else 0
    if not count:
        return ""
    errors = "1 error" if count == 1 else f"{count:,} errors"
    return f"{errors} over {100 * CUT:,.0f} % count as {100 * CUT:,.0f} % in these means."


def groups_tables(groups: Sequence[ErrorGroup]) -> RenderableType:
    """Every axis that parts the rows; under "alike" what it is where each device of each source
    counts alike, if that says something else."""
    out = plain_table(
        "Errors of times, %, by group; \"alike\": median/mean where each device of each source"
        " counts alike; \"roof\": the roofline's median",
        "group", "rows", "median", "mean", "bias", "in 90 %", "alike", "roof",
    )  # fmt: skip
    for axis, title in [("all", ""), *((axis.name, axis.title) for axis in AXES)]:
        members = [group for group in groups if group.axis == axis]
        if title and len(members) < 2:
            continue
        if title:
            out.add_row(title)
        for group in members:
            out.add_row(f"{'  ' * bool(title)}{group.name:.{_WIDEST}}", *_figures(group))
    cut = cut_line(groups)
    return Lines(out, Text(f"{cut}\n")) if cut else out


def _figures(group: ErrorGroup) -> list[str]:
    plain, bound = group.plain, group.plain.roofline_median_absolute_error
    here, alike = _both(plain), _both(group.alike)
    return [
        str(plain.rows),
        *here,
        f"{100 * plain.bias:+.1f}",
        f"{100 * plain.coverage:.0f}",
        "" if alike == here else "/".join(alike),
        "" if bound is None else f"{100 * bound:.0f}",
    ]


def _both(errors: Errors) -> tuple[str, str]:
    return (
        f"{100 * errors.median_absolute_error:.1f}",
        f"{100 * errors.mean_absolute_error:.1f}",
    )

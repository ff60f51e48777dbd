"""Rows of one's own beside both predictions, as terminal text."""

from __future__ import annotations

from statistics import fmean, median

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.fidelity.given import Given
from alexsim.report.tables import milliseconds, plain_table

_SHOWN = 20


def given_tables(given: Given) -> RenderableType:
    """The sums first, then the rows, and what was left out."""
    rows = given.beside
    shipped, conditioned = (
        [abs(seconds / row.measured_s - 1) for row, seconds in pairs]
        for pairs in (
            [(row, row.shipped_s) for row in rows],
            [(row, row.given_s) for row in rows],
        )
    )
    table = plain_table(
        f"Errors of {len(rows):,} rows of {given.file}", "predicted by", "median", "mean"
    )
    for name, errors in (("the shipped fit", shipped), ("given the other rows", conditioned)):
        table.add_row(name, f"{100 * median(errors):.1f} %", f"{100 * fmean(errors):.1f} %")
    each = plain_table("", "row", "measured ms", "shipped ms", "given ms")
    for row in rows[:_SHOWN]:
        times = (row.measured_s, row.shipped_s, row.given_s)
        each.add_row(row.id, *(milliseconds(seconds) for seconds in times))
    parts: list[RenderableType] = [table, each]
    if len(rows) > _SHOWN:
        parts.append(Text(f"... and {len(rows) - _SHOWN:,} more (--json has all)"))
    if given.left_out:
        rules = "; ".join(f"{rule} ({count:,})" for rule, count in given.left_out.items())
        parts.append(Text(f"Left out: {rules}"))
    return Group(*parts)

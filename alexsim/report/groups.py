"""Errors by groups of rows as a terminal table."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.text import Text

from alexsim.fidelity.groups import AXES, CUT, Axis, ErrorGroup, Errors
from alexsim.fidelity.sample import Sample
from alexsim.report.tables import plain_table, shortened

_WIDEST = 30
"""Longer names are cut: figures stay whole in 80 columns."""


def sample_line(sample: Sample) -> str:
    """What a quick look looked at."""
    return (
        f"A sample, {sample.rows:,} of {sample.of:,} rows: one in {sample.every} of each device"
        " with each library, and at least one. All sums are the sample's."
    )


def wrapped(line: str) -> Text:
    """A sentence as a terminal has it."""
    return Text(fill(line, 79))


def cut_line(groups: Sequence[ErrorGroup]) -> str:
    """What means leave out, if anything."""
    count = groups[0].plain.cut if groups else 0
    if not count:
        return ""
    most = f"{100 * CUT:,.0f} %"
    counts = f"1 error over {most} counts" if count == 1 else f"{count:,} errors over {most} count"
    return f"{counts} as {most} in these means."


def parting(groups: Sequence[ErrorGroup]) -> dict[Axis, list[ErrorGroup]]:
    """The axes that part the rows, and their groups."""
    members = {axis: [group for group in groups if group.axis == axis.name] for axis in AXES}
    return {axis: each for axis, each in members.items() if len(each) > 1}


def common_line(groups: Sequence[ErrorGroup]) -> str:
    """What all rows have in common: the axes that do not part them."""
    parted = parting(groups)
    alone = [axis for axis in AXES if axis not in parted]
    names = {group.axis: group.name for group in groups}
    said = "; ".join(f"{axis.title}: {names[axis.name]}" for axis in alone)
    return f"All rows: {said}." if said else ""


def groups_tables(groups: Sequence[ErrorGroup]) -> RenderableType:
    """Every axis that parts the rows; under "alike" what it is where each device of each source
    counts alike, if that says something else."""
    out = plain_table(
        "Errors of times, %, by group; held: in the 90 % interval; alike: median/mean\n"
        "where each device of each source counts alike; roof: the roofline's median",
        "group", "rows", "median", "mean", "bias", "held", "alike", "roof",
    )  # fmt: skip
    out.add_row(groups[0].name, *_figures(groups[0]))
    for axis, members in parting(groups).items():
        out.add_row(axis.title)
        for group in members:
            out.add_row(f"  {shortened(group.name, _WIDEST)}", *_figures(group))
    said = [line for line in (cut_line(groups), common_line(groups)) if line]
    return Lines(out, *(wrapped(line) for line in said), Text())


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

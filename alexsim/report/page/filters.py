"""The first convolution's filters as pictures, as in figure 3 of the 2012 paper."""

from __future__ import annotations

import base64

from alexsim.report.figures.text import digits
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Image,
    Section,
    Table,
    number_columns,
    text_columns,
    words,
)
from alexsim.report.page.inputs import Subject
from alexsim.report.pictures import Filters, grid, png


def filter_section(subject: Subject) -> Section | None:
    """One picture per column, and their numbers; None without a checkpoint."""
    filters = subject.filters
    if not filters:
        return None
    alone = len(filters) == 1
    return Section(
        id="filters",
        title="First filters",
        figures=tuple(_figure(each, subject.checkpoint, alone=alone) for each in filters),
        tables=(_table(filters),),
    )


def _table(filters: tuple[Filters, ...]) -> Table:
    return Table(
        id="filter-table",
        caption="Weights of the first convolution",
        columns=text_columns("column", "shape")
        + number_columns("lowest", "mean", "highest", "standard deviation"),
        rows=tuple(
            (
                *words(f"{each.layer}.{each.column}", " × ".join(map(str, each.weights.shape))),
                *(
                    Cell(text=digits(float(value)))
                    for value in (
                        each.weights.min(), each.weights.mean(), each.weights.max(),
                        each.weights.std(),
                    )
                ),
            )
            for each in filters
        ),
    )  # fmt: skip


def _figure(filters: Filters, checkpoint: str, *, alone: bool) -> Figure:
    count, channels, height, width = filters.weights.shape
    kind = "colour" if channels == 3 else "grey"
    place = f", {filters.device} (column {filters.column})"
    image = grid(filters.weights)
    source = base64.b64encode(png(image)).decode("ascii")
    return Figure(
        id=f"filters-{filters.column}",
        title=filters.layer + ("" if alone else place),
        text=f"{count} filters of {height} × {width}, in {kind}, from {checkpoint}. Each on its own"
        " scale; mid-grey is zero.",
        drawing=Image(
            source=f"data:image/png;base64,{source}", width=image.shape[1], height=image.shape[0]
        ),
        wide=False,
    )

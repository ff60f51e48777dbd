"""The first convolution's filters as pictures, as in figure 3 of the 2012 paper."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from alexsim.report.page.elements import Cell, Figure, Table, number_columns, tag, text_columns
from alexsim.report.page.text import digits

if TYPE_CHECKING:
    from alexsim.report.pictures import Filters


def filter_figures(found: tuple[Filters, ...], checkpoint: str) -> tuple[Figure, ...]:
    """One picture per column."""
    return tuple(_figure(one, checkpoint, alone=len(found) == 1) for one in found)


def filter_table(found: tuple[Filters, ...]) -> Table:
    """The pictures' numbers in short."""
    return Table(
        id="filter-table",
        caption="Weights of the first convolution",
        columns=text_columns("column", "shape")
        + number_columns("lowest", "mean", "highest", "standard deviation"),
        rows=tuple(
            (
                Cell(text=f"{one.layer}.{one.column}"),
                Cell(text=" × ".join(map(str, one.weights.shape))),
                Cell(text=digits(float(one.weights.min()))),
                Cell(text=digits(float(one.weights.mean()))),
                Cell(text=digits(float(one.weights.max()))),
                Cell(text=digits(float(one.weights.std()))),
            )
            for one in found
        ),
    )


def _figure(one: Filters, checkpoint: str, *, alone: bool) -> Figure:
    # Pages without filters do without Pillow.
    from alexsim.report.pictures import grid, png

    count, channels, height, width = one.weights.shape
    kind = "colour" if channels == 3 else "grey"
    title = f"{one.layer}, {one.device}" if not alone else one.layer
    if not alone:
        title += f" (column {one.column})"
    text = (
        f"{count} filters of {height} × {width}, in {kind}, from {checkpoint}. Each on its own"
        " scale; mid-grey is zero."
    )
    image = grid(one.weights)
    source = base64.b64encode(png(image)).decode("ascii")
    drawing = tag(
        "img",
        src=f"data:image/png;base64,{source}",
        alt=f"{title}: {text}",
        width=str(image.shape[1]),
        height=str(image.shape[0]),
        class_="filters",
    )
    return Figure(id=f"filters-{one.column}", title=title, text=text, drawing=drawing, wide=False)

"""The first convolution's filters as pictures, as in figure 3 of the 2012 paper."""

from __future__ import annotations

import base64

from alexsim.page.elements import Figure, Image, Section, number, table
from alexsim.page.inputs import Subject
from alexsim.report.pictures import Filters, grid, png


def filter_section(subject: Subject) -> Section | None:
    """One picture per column, and their numbers; None without a checkpoint."""
    filters = subject.filters
    if not filters:
        return None
    alone = len(filters) == 1
    figures = [_figure(each, subject.checkpoint, alone=alone) for each in filters]
    numbers = table(
        "filter-table", "Weights of the first convolution", filters,
        {
            "column": lambda of: f"{of.layer}.{of.column}",
            "shape": lambda of: " × ".join(map(str, of.weights.shape)),
            "lowest": lambda of: number(float(of.weights.min())),
            "mean": lambda of: number(float(of.weights.mean())),
            "highest": lambda of: number(float(of.weights.max())),
            "standard deviation": lambda of: number(float(of.weights.std())),
        },
    )  # fmt: skip
    return Section("filters", "First filters", figures=figures, tables=[numbers])


def _figure(filters: Filters, checkpoint: str, *, alone: bool) -> Figure:
    count, channels, height, width = filters.weights.shape
    kind = "colour" if channels == 3 else "grey"
    title = filters.layer + ("" if alone else f", {filters.device} (column {filters.column})")
    text = (
        f"{count} filters of {height} × {width}, in {kind}, from {checkpoint}. Each on its own"
        " scale; mid-grey is zero."
    )
    pixels = grid(filters.weights)
    source = f"data:image/png;base64,{base64.b64encode(png(pixels)).decode('ascii')}"
    image = Image(source, pixels.shape[1], pixels.shape[0])
    return Figure(f"filters-{filters.column}", title, text, wide=False, image=image)

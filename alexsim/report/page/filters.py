"""The first convolution's filters as pictures, as in figure 3 of the 2012 paper."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING

from alexsim.report.page.elements import Cell, Figure, Table, number_columns, tag, text_columns
from alexsim.report.page.text import digits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from alexsim.report.page.inputs import Filters


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
    count, channels, height, width = one.weights.shape
    kind = "colour" if channels == 3 else "grey"
    title = f"{one.layer}, {one.device}" if not alone else one.layer
    if not alone:
        title += f" (column {one.column})"
    text = (
        f"{count} filters of {height} × {width}, in {kind}, from {checkpoint}. Each on its own"
        " scale; mid-grey is zero."
    )
    image = _grid(one.weights)
    source = base64.b64encode(_png(image)).decode("ascii")
    drawing = tag(
        "img",
        src=f"data:image/png;base64,{source}",
        alt=f"{title}: {text}",
        width=str(image.shape[1]),
        height=str(image.shape[0]),
        class_="filters",
    )
    return Figure(id=f"filters-{one.column}", title=title, text=text, drawing=drawing, wide=False)


def _grid(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Filters side by side, about four wide to three high, a pixel apart."""
    import numpy as np

    count, channels, height, width = weights.shape
    across = _across(count)
    down = math.ceil(count / across)
    # One channel is grey; of more than three, the first three are shown.
    shown = weights[:, :3] if channels >= 3 else np.repeat(weights[:, :1], 3, axis=1)
    largest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    levels = 127.5 + 127.5 * shown / np.where(largest == 0, 1, largest)
    grid = np.full((down * (height + 1) + 1, across * (width + 1) + 1, 3), 255, dtype=np.uint8)
    for index, one in enumerate(levels):
        top, left = (index // across) * (height + 1) + 1, (index % across) * (width + 1) + 1
        grid[top : top + height, left : left + width] = one.transpose(1, 2, 0).round()
    return grid


def _across(count: int) -> int:
    """Filters in a row: a divisor near four thirds of the square root, so that no row is short."""
    wanted = math.sqrt(count * 4 / 3)
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    best = min(divisors, key=lambda n: abs(math.log(n / wanted)))
    return best if abs(math.log(best / wanted)) < 0.7 else math.ceil(wanted)


def _png(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stored = io.BytesIO()
    Image.fromarray(image).save(stored, format="PNG", optimize=True)
    return stored.getvalue()

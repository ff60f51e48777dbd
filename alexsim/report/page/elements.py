"""What the page is made of: sections, figures, tables.

Nothing in here knows of networks: it is given names, numbers and texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table's column; numbers stand to the right."""

    name: str
    number: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What a cell shows, and the number that it sorts by."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under named columns; the first cell of a row is its heading."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[tuple[Cell, ...], ...] = ()
    sortable: bool = False
    folded: bool = False
    """Shown only when it is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture of pixels; ``source`` is its ``data:`` address."""

    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture, what it shows in words, and the same as a table."""

    id: str
    title: str
    text: str
    drawing: Plot | Image
    table: Table | None = None
    wide: bool = True
    """Takes the page's whole width; two others stand side by side."""

    @property
    def image(self) -> Image | None:
        """The drawing, where that is one of pixels."""
        return self.drawing if isinstance(self.drawing, Image) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, a few words, figures, tables."""

    id: str
    title: str
    text: str = ""
    facts: tuple[tuple[str, str, str], ...] = ()
    """Name, value, and a word on it."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Name and value, in short rows."""
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    folded: bool = False
    """Shown only when it is asked for, and in print."""


def text_columns(*names: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(name=name, number=False) for name in names)


def number_columns(*names: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(name=name) for name in names)


def words(*texts: str) -> tuple[Cell, ...]:
    """Cells of words."""
    return tuple(Cell(text=text) for text in texts)

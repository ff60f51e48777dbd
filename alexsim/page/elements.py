"""What the page is made of: sections, figures, tables.

Nothing in here knows of networks: it is given names, numbers and texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from alexsim.page.figures.text import digits, in_mib, milliseconds, percent

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Cell:
    """A number: what a table shows of it, and what it sorts by."""

    text: str
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under named columns, of texts and numbers; the first cell of a row is its heading."""

    id: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    foot: tuple[tuple[Cell | str, ...], ...] = ()
    sortable: bool = False
    folded: bool = False
    """Shown only when it is asked for."""

    @property
    def numbers(self) -> tuple[bool, ...]:
        """By column, whether it holds numbers; those stand to the right."""
        columns = zip(*self.rows, strict=True)
        return tuple(any(isinstance(cell, Cell) for cell in column) for column in columns)


def table(
    id_: str, caption: str, rows: Iterable[_Row],
    columns: Mapping[str, Callable[[_Row], Cell | str]], *,
    foot: Iterable[_Row] = (), sortable: bool = False, folded: bool = False,
) -> Table:  # fmt: skip
    """A table of records; each column is a function of a record."""

    def cells(of: Iterable[_Row]) -> tuple[tuple[Cell | str, ...], ...]:
        return tuple(tuple(column(row) for column in columns.values()) for row in of)

    return Table(
        id=id_, caption=caption, columns=tuple(columns), rows=cells(rows), foot=cells(foot),
        sortable=sortable, folded=folded,
    )  # fmt: skip


def number(value: float | None, write: Callable[[float], str] = digits) -> Cell:
    """A cell; empty for None."""
    return Cell("" if value is None else write(value), value)


ms = partial(number, write=milliseconds)
"""Seconds, as milliseconds."""
share = partial(number, write=percent)
mib = partial(number, write=in_mib)
"""Bytes, as MiB."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture of pixels; ``source`` is its ``data:`` address."""

    source: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture, what it shows in words, and the same as a table."""

    id: str
    """Of the plot of this name, where there is no image."""
    title: str
    text: str
    table: Table | None = None
    wide: bool = True
    """Takes the page's whole width; two others stand side by side."""
    image: Image | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a few words, figures, tables."""

    id: str
    title: str
    text: str = ""
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    facts: Sequence[tuple[str, str, str]] = ()
    """Name, value, and a word on it."""
    pairs: Sequence[tuple[str, str]] = ()
    """Name and value, in short rows."""
    notes: Sequence[str] = ()
    folded: bool = False
    """Shown only when it is asked for, and in print."""

"""What the page is made of: sections, figures, tables; and SVG elements that escape what they hold.

Nothing in here knows of networks: it is given names, numbers and texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape


def tag(name: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """An element; text among the children and attributes is escaped, None leaves one out.

    Attribute names: ``class_`` is class, underscores are hyphens.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = joined(children)
    return Markup(f"<{name}{given}>{inside}</{name}>") if inside else Markup(f"<{name}{given}/>")


def joined(children: Iterable[str | Markup]) -> Markup:
    """Children one after the other, text escaped."""
    return Markup("").join(children)


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return str(escape(value))
    return f"{value:.2f}".rstrip("0").rstrip(".")


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
class Key:
    """An entry of a legend: a style of the sheet, and what it stands for."""

    style: str
    name: str
    mark: str = "box"
    """``box``, ``idle``, ``line``, ``dashed``, or one of the shapes of ``symbol``."""
    hatched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture, what it shows in words, and the same as a table."""

    id: str
    title: str
    text: str
    drawing: Markup
    keys: tuple[Key, ...] = ()
    table: Table | None = None
    wide: bool = True
    """Takes the page's whole width; two others stand side by side."""


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
    notes: tuple[str, ...] = field(default=())


def text_columns(*names: str) -> tuple[Column, ...]:
    """Columns of words."""
    return tuple(Column(name=name, number=False) for name in names)


def number_columns(*names: str) -> tuple[Column, ...]:
    """Columns of numbers."""
    return tuple(Column(name=name) for name in names)


def words(*texts: str) -> tuple[Cell, ...]:
    """Cells of words."""
    return tuple(Cell(text=text) for text in texts)


def svg(
    id_: str, title: str, text: str, children: Sequence[Markup], *, size: tuple[float, float],
    least: float,
) -> Markup:  # fmt: skip
    """A drawing that shrinks to ``least`` pixels and no further; then its frame scrolls."""
    return tag(
        "svg",
        tag("title", title, id=f"{id_}-title"),
        tag("desc", text or title, id=f"{id_}-desc"),
        *children,
        role="img",
        aria_labelledby=f"{id_}-title {id_}-desc",
        viewBox=f"0 0 {size[0]:g} {size[1]:g}",
        width=size[0],
        height=size[1],
        style=f"min-width:{least:g}px;max-width:{size[0]:g}px",
    )


def symbol(shape: str, x: float, y: float, radius: float, **attributes: str | float) -> Markup:
    """A dot of some shape with about the same area as a circle of that radius."""
    if shape == "square":
        side = 1.77 * radius
        return tag("rect", x=x - side / 2, y=y - side / 2, width=side, height=side, **attributes)
    points: tuple[tuple[float, float], ...]
    if shape == "triangle":
        far = 1.55 * radius
        points = ((0, -far), (0.87 * far, far / 2), (-0.87 * far, far / 2))
    elif shape == "diamond":
        far = 1.25 * radius
        points = ((0, -far), (far, 0), (0, far), (-far, 0))
    else:
        return tag("circle", cx=x, cy=y, r=radius, **attributes)
    path = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in points)
    return tag("polygon", points=path, **attributes)

"""Images that a network finds alike: a table, and rows of pictures.

The rows are drawn as figure 4 of the 2012 paper (right): an image, then the images of a set whose
features in the last hidden layer are nearest to its features.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.evaluate.explain import Picture
from alexsim.evaluate.neighbours import Neighbours
from alexsim.report.pictures import FAINT, INK, Canvas, enlarged
from alexsim.report.prediction import ClassNames
from alexsim.report.tables import plain_table

_ROOM, _GAP, _MARGIN, _APART = 224, 12, 30, 60
"""Pixels: an image, between images, around all, between a query and the others."""
_HEADING, _CAPTION = 44, 40
_NONE = "no image is near: the network puts out NaN for this one, or for all of the others"
_OTHER = (178, 34, 34)
"""Of a class that is not the query's."""


def neighbour_tables(
    neighbours: Neighbours, names: ClassNames, *, layer: str, data: str, split: str
) -> RenderableType:
    """A table per query; files of the set are named from its folder on."""
    parts: list[RenderableType] = []
    for row in neighbours.rows:
        right = names.right(row.query.sample.label)
        known = f" ({names.whole(right)})" if right else ""
        parts.append(Text(f"{row.query.sample.place}{known}"))
        table = plain_table(f"nearest {split} images by {layer}", "", "distance", "class", "file")
        for column in table.columns[2:]:
            column.justify = "left"
        for place, neighbour in enumerate(row.nearest, start=1):
            sample = neighbour.picture.sample
            name = names.right(sample.label)
            table.add_row(
                str(place),
                f"{neighbour.distance:.2f}",
                Text(names.whole(name) if name else "", style="bold" if name == right else ""),
                Text(sample.place.removeprefix(f"{data}/")),
            )
        parts.append(table if row.nearest else Text(_NONE))
    if neighbours.nan_images:
        parts.append(
            Text(f"{layer} puts out NaN for {neighbours.nan_images} {split} images: left out")
        )
    return Group(*parts, *(Text(f"not read: {reason}") for reason in neighbours.broken))


def neighbour_picture(
    neighbours: Neighbours, names: ClassNames, *, layer: str, split: str
) -> Image.Image:
    """A row per query: the query, a gap, then its nearest, each over its class.

    A class that is not the query's is red.
    """
    side = enlarged(neighbours.rows[0].query.crop, _ROOM).width
    count = max(1, *(len(row.nearest) for row in neighbours.rows))
    step, height = side + _GAP, side + _CAPTION + _GAP
    first = _MARGIN + side + _APART
    canvas = Canvas(
        first + count * step - _GAP + _MARGIN,
        _MARGIN + _HEADING + len(neighbours.rows) * height + _GAP,
    )
    middle = _MARGIN + _HEADING // 2 - _GAP // 2
    canvas.text(_MARGIN, middle, "image", size=24, room=side + _APART - _GAP, fill=FAINT)
    canvas.text(
        first, middle, f"nearest {split} images by {layer}", size=24, room=count * step, fill=FAINT
    )
    for index, row in enumerate(neighbours.rows):
        top = _MARGIN + _HEADING + index * height
        right = names.right(row.query.sample.label)
        for place, picture in enumerate((row.query, *(near.picture for near in row.nearest))):
            left = first + (place - 1) * step if place else _MARGIN
            _draw_picture(canvas, picture, names, right, left, top)
    return canvas.image


def _draw_picture(
    canvas: Canvas, picture: Picture, names: ClassNames, right: str | None, left: int, top: int
) -> None:
    shown = enlarged(picture.crop, _ROOM)
    canvas.paste(shown, left, top)
    name = names.right(picture.sample.label)
    title = names.short(name) if name else Path(picture.sample.place).name
    colour = FAINT if name is None else _OTHER if right and name != right else INK
    canvas.text(
        left, top + shown.height + _CAPTION // 2, title, size=24, room=shown.width, at="m",
        fill=colour,
    )  # fmt: skip

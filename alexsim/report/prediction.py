"""A network's guesses for single images: text with bars, and a picture of them.

The picture is drawn as figure 4 of the 2012 paper (left): under every image its five likeliest
classes as bars, the right class in red. Beside it stand the filters that it excites most, each
with the place that does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alexsim.evaluate.explain import NO_CLASS, STRONGEST, Prediction, Response
from alexsim.report.evaluation import best, unnamed_note
from alexsim.report.pictures import FAINT, INK, Canvas, Pixels, enlarged, levels
from alexsim.train.weights import Weights

_NO_GUESS = "no guess: the network puts out NaN for this image"
_BAR = 28
"""Letters of a bar of 100 %."""
_NAME = 32
"""Letters of a class in the terminal."""
_ACROSS = 4
_ROOM, _GAP, _PAIR = 448, 40, 8
"""Pixels that an image is enlarged to, between images, between a filter and its place."""
_HEADING, _CAPTION, _ROW = 30, 48, 42
_PLAIN, _RIGHT = (176, 205, 232), (240, 150, 140)
"""Bars of the guesses, and of the right class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassNames:
    """Names of classes."""

    ids: Sequence[str]
    """As folders are named: of ILSVRC the WordNet ids. Empty if not known."""
    words: Mapping[str, str]
    """Names of some of them, as in ``tench, Tinca tinca``."""

    def right(self, label: int) -> str | None:
        """Name of an image's class, if it is known."""
        return None if label == NO_CLASS else self.ids[label]

    def short(self, name: str) -> str:
        """For a picture: the first of a class's words, or its id."""
        return self.words.get(name, name).partition(",")[0]

    def whole(self, name: str) -> str:
        """For a line of text: its id and, if it is known, the first of its words."""
        return f"{name} {self.short(name)}" if name in self.words else name


def prediction_text(
    predictions: Sequence[Prediction], names: ClassNames, weights: Weights, broken: Sequence[str]
) -> RenderableType:
    """Every image's five best classes with their probabilities as bars, within 80 columns."""
    parts: list[RenderableType] = []
    for prediction in predictions:
        right = names.right(prediction.picture.sample.label)
        known = f" ({names.whole(right)})" if right else ""
        parts.append(Text(f"{prediction.picture.sample.place}{known}"))
        if best(prediction.probabilities, names.ids):
            parts.append(_bars(prediction, names, right))
            note = unnamed_note("", weights, prediction.elsewhere)
            parts += [Text(f" {note}")] if note else []
        else:
            parts.append(Text(f" {_NO_GUESS}"))
        parts.append(Text())
    return Group(*parts, *(Text(f"not read: {reason}") for reason in broken))


def _bars(prediction: Prediction, names: ClassNames, right: str | None) -> Table:
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column(width=_NAME, no_wrap=True, overflow="ellipsis")
    table.add_column(width=8, justify="right")
    table.add_column(width=_BAR)
    table.add_column(width=5)
    for name, probability in best(prediction.probabilities, names.ids):
        style = "bold" if name == right else ""
        table.add_row(
            "",
            Text(names.whole(name), style=style),
            f"{100 * probability:.2f} %",
            _Bar(probability),
            Text("right" if name == right else "", style=style),
        )
    return table


@dataclass(frozen=True, slots=True)
class _Bar:
    share: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Half letters where the terminal can show them."""
        halves = round(2 * _BAR * self.share)
        if options.ascii_only:
            yield Text("#" * (halves // 2))
        else:
            yield Text("█" * (halves // 2) + "▌" * (halves % 2))


def prediction_picture(
    predictions: Sequence[Prediction], names: ClassNames, weights: Weights
) -> Image.Image:
    """A tile per image, up to four in a row."""
    side = enlarged(predictions[0].picture.crop, _ROOM).width
    filters = any(prediction.strongest for prediction in predictions)
    width = side + (2 * (_cell(side) + _PAIR) + _PAIR if filters else 0)
    height = _HEADING + side + _CAPTION + 5 * _ROW
    across = min(_ACROSS, len(predictions))
    canvas = Canvas(
        across * (width + _GAP) + _GAP,
        math.ceil(len(predictions) / across) * (height + _GAP) + _GAP,
    )
    for index, prediction in enumerate(predictions):
        row, column = divmod(index, across)
        left, top = _GAP + column * (width + _GAP), _GAP + row * (height + _GAP)
        canvas.paste(enlarged(prediction.picture.crop, _ROOM), left, top + _HEADING)
        if filters:
            _draw_strongest(
                canvas, prediction.strongest, weights, left + side + 2 * _PAIR, top, side
            )
        _draw_class(canvas, prediction, names, left, top + _HEADING + side, side)
        _draw_guesses(canvas, prediction, names, left, top + _HEADING + side + _CAPTION, width)
    return canvas.image


def _cell(side: int) -> int:
    """Room for a filter, when as many as are shown stand one under the other."""
    return (side - (STRONGEST - 1) * _PAIR) // STRONGEST


def _draw_strongest(
    canvas: Canvas, strongest: Sequence[Response], weights: Weights, left: int, top: int, side: int
) -> None:
    cell = _cell(side)
    places = (left, left + cell + _PAIR)
    for at, heading in zip(places, ("filter", "patch"), strict=True):
        canvas.text(at, top + _HEADING // 2, heading, size=20, room=cell, at="m", fill=FAINT)
    for index, response in enumerate(strongest):
        y = top + _HEADING + index * (cell + _PAIR)
        for at, pixels in zip(
            places, (filter_pixels(weights, response), response.patch), strict=True
        ):
            canvas.paste(enlarged(pixels, cell), at, y, cell)


def filter_pixels(weights: Weights, response: Response) -> Pixels:
    """A filter as in figure 3 of the paper, ``[size, size, 3]``."""
    whole = weights.state[f"{response.layer}.{response.column}.weight"]
    pixels: Pixels = levels(whole[response.filter : response.filter + 1].numpy())[0]
    return pixels


def _draw_class(
    canvas: Canvas, prediction: Prediction, names: ClassNames, left: int, top: int, side: int
) -> None:
    sample = prediction.picture.sample
    right = names.right(sample.label)
    # An image whose class is not known is named by its file.
    title = names.short(right) if right else Path(sample.place).name
    colour = INK if right else FAINT
    canvas.text(left, top + _CAPTION // 2, title, size=30, room=side, at="m", fill=colour)


def _draw_guesses(
    canvas: Canvas, prediction: Prediction, names: ClassNames, left: int, top: int, width: int
) -> None:
    right = names.right(prediction.picture.sample.label)
    x, room = left + _PAIR, width - 2 * _PAIR
    if not best(prediction.probabilities, names.ids):
        canvas.text(x, top + _ROW // 2, _NO_GUESS, size=22, room=room, fill=FAINT)
    for place, (name, probability) in enumerate(best(prediction.probabilities, names.ids)):
        y = top + place * _ROW
        colour = _RIGHT if name == right else _PLAIN
        canvas.box(left, y, round(probability * width), _ROW - 4, colour)
        middle = y + _ROW // 2 - 2
        share = f"{100 * probability:.1f} %" if probability >= 0.0005 else "< 0.1 %"
        used = canvas.text(x, middle, share, size=22, room=room, at="r", fill=FAINT)
        canvas.text(x, middle, names.short(name), size=26, room=room - used - 2 * _PAIR)

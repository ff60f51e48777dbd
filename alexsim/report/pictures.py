"""What pictures are made of: filters as pixels, images enlarged to whole pixels, text that fits."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from alexsim.errors import AlexsimError

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
"""Of text, of text that matters less, and behind all."""
_FRAME = (205, 205, 205)
_NOT_FINITE = (255, 0, 255)
"""Of a filter's pixel that is no number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """The first convolution of one column, ``[filters, channels, height, width]``."""

    layer: str
    column: str
    device: str
    weights: NDArray[np.float32]


def levels(weights: NDArray[np.float32]) -> Pixels:
    """Filters as pixels, ``[filters, channels, h, w]`` to ``[filters, h, w, 3]``.

    Each on its own scale; mid-grey is zero. One channel is grey; of more than three, the first
    three are shown. A pixel with a weight that is not finite is magenta.
    """
    shown = weights[:, :3] if weights.shape[1] >= 3 else np.repeat(weights[:, :1], 3, axis=1)
    finite = np.isfinite(shown)
    shown = np.where(finite, shown, 0)
    largest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    scaled = 127.5 + 127.5 * shown / np.where(largest == 0, 1, largest)
    pixels = scaled.transpose(0, 2, 3, 1).round().astype(np.uint8)
    pixels[~finite.all(1)] = _NOT_FINITE
    return pixels


def grid(weights: NDArray[np.float32]) -> Pixels:
    """Filters side by side, about four wide to three high, a white pixel around each."""
    count, _, height, width = weights.shape
    across = _across(count)
    down = math.ceil(count / across)
    pixels = np.full((down * (height + 1) + 1, across * (width + 1) + 1, 3), 255, dtype=np.uint8)
    for index, filter_pixels in enumerate(levels(weights)):
        top, left = (index // across) * (height + 1) + 1, (index % across) * (width + 1) + 1
        pixels[top : top + height, left : left + width] = filter_pixels
    return pixels


def _across(count: int) -> int:
    """Filters in a row: a divisor near four thirds of the square root, so that no row is short."""
    wanted = math.sqrt(count * 4 / 3)
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    best = min(divisors, key=lambda n: abs(math.log(n / wanted)))
    return best if abs(math.log(best / wanted)) < 0.7 else math.ceil(wanted)


def png(picture: Pixels | Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stored = io.BytesIO()
    image.save(stored, format="PNG", optimize=True)
    return stored.getvalue()


def enlarged(pixels: Pixels, room: int) -> Image.Image:
    """An image as many whole times its size as fit into ``room`` pixels, at least once.

    No pixel is mixed with its neighbours, so that what is drawn is what the network saw.
    ``pixels``: ``[h, w, 1 or 3]``.
    """
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    times = max(1, room // max(pixels.shape[:2]))
    return Image.fromarray(colour.repeat(times, 0).repeat(times, 1))


class Canvas:
    """A white picture to draw on."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width, height), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def paste(self, pixels: Image.Image, left: int, top: int, side: int = 0) -> None:
        """Put an image there, in the middle of a square where its ``side`` is given.

        A line around it shows where white images end.
        """
        x, y = (
            at + max(0, side - extent) // 2
            for at, extent in zip((left, top), pixels.size, strict=True)
        )
        self.box(x - 1, y - 1, pixels.width + 2, pixels.height + 2, _FRAME)
        self.image.paste(pixels, (x, y))

    def box(self, left: int, top: int, width: int, height: int, fill: Colour) -> None:
        """Fill a rectangle; none where it is less than a pixel wide."""
        if width >= 1:
            self._draw.rectangle((left, top, left + width - 1, top + height - 1), fill=fill)

    def text(
        self, left: int, middle: int, text: str, *, size: int, room: int, at: str = "l",
        fill: Colour = INK,
    ) -> int:  # fmt: skip
        """Write a line, shortened to ``room`` pixels, and return how many it took.

        ``at``: whether it begins (``l``), is centred (``m``) or ends (``r``) in the room.
        """
        shown = fitted(text, size, room)
        anchor = left + {"l": 0, "m": room // 2, "r": room}[at]
        self._draw.text((anchor, middle), shown, fill=fill, font=_font(size), anchor=f"{at}m")
        return math.ceil(_font(size).getlength(shown))


def fitted(text: str, size: int, room: int) -> str:
    """As much of a text as fits into ``room`` pixels, with dots for the rest."""
    # A name may have line breaks in it, and there is room for a single line.
    text = " ".join(text.split())
    if _font(size).getlength(text) <= room:
        return text
    kept = len(text)
    while kept and _font(size).getlength(text[:kept].rstrip() + "…") > room:
        kept -= 1
    return text[:kept].rstrip() + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise AlexsimError("pictures need a Pillow with FreeType; this one was built without")
    return font

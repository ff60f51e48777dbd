"""From JPEG files to crops, in worker processes. Imports no torch, so that workers start fast.

The paper's data path (section 2): the shorter side is scaled to 256 pixels, the central 256 x 256
cut out; training takes a random 224 x 224 crop of that and mirrors half of them. Other input
sizes scale alike: 28 pixels are cropped out of 32.
"""

from __future__ import annotations

import io
import os
import signal
import struct
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from alexsim.data.slots import Pixels, Place, mapped
from alexsim.names import name_text
from alexsim.network.part import square_side
from alexsim.spawn import SPAWN

MOST_PIXELS = 500_000_000
"""Larger files are refused, as decompression bombs."""
Image.MAX_IMAGE_PIXELS = MOST_PIXELS

TASK_IMAGES = 16
"""Files that a worker is given at a time."""
_LARGE = 50_000_000
_WORKER_NICE = 10
_PLAIN = (("JPEG", "L"), ("JPEG", "RGB"))
"""Formats and modes of Pillow that simplejpeg decodes to the same bits."""
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    Image.DecompressionBombError,
    EOFError,
    # From the depths of its parsers, for headers that lie.
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
)
"""What Pillow raises for a file that is not a whole image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An image as bytes on disk: a whole file, or a part of a shard."""

    path: str
    offset: int = 0
    length: int = -1
    """Bytes; -1: the whole file."""
    crc: int = 0
    """CRC-32 of a shard's part; damage is not left for the decoder to miss."""

    @property
    def place(self) -> str:
        """A name that tells it from all others, as text: its file, or a byte of a shard."""
        path = name_text(self.path)
        return path if self.length < 0 else f"{path}@{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop(Piece):
    """What to cut out of one image: offsets into the square."""

    top: int
    left: int


def load_square(source: str | Path | io.BytesIO, side: int, channels: int) -> Pixels:
    """Decode a file and cut out its central square: ``[side, side, channels]``.

    EXIF rotation is applied, transparency, CMYK and 16 bits become RGB, an animation its first
    picture, grey three equal channels (or colour grey where ``channels`` is 1), and images smaller
    than the square grow.

    Raises:
        OSError, SyntaxError, ValueError: the file is no whole image, or is over the limit of size.
    """
    mode = "L" if channels == 1 else "RGB"
    with Image.open(source) as opened:
        width, height = opened.size
        if width * height > MOST_PIXELS:
            raise ValueError(
                f"{width} x {height} pixels, more than the {MOST_PIXELS:,} that are read"
            )
        # A shorter side of just this length needs no scaling.
        if min(width, height) == side and (whole := _plain_jpeg(opened, channels)) is not None:
            return _central(whole, side)
        # JPEG decodes straight to a half, quarter or eighth of its size, if that still suffices.
        opened.draft(mode, (side, side))
        ImageOps.exif_transpose(opened, in_place=True)
        image = _eight_bits(opened)
        shrink = min(image.size) // (4 * side)
        # Before it takes three channels: they would be 1.2 GB for 20,000 x 20,000.
        if width * height > _LARGE and shrink > 1 and image.mode in ("L", "RGB", "CMYK"):
            image = image.reduce(shrink)
        if image.mode in ("RGBA", "LA", "P", "PA"):
            image = image.convert("RGBA").convert("RGB")
        if image.mode != mode:
            image = image.convert(mode)
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels: too long for its shorter side")
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(image)
    return _central(pixels.reshape(*pixels.shape[:2], channels), side)


def _central(pixels: Pixels, side: int) -> Pixels:
    top, left = ((extent - side) // 2 for extent in pixels.shape[:2])
    return pixels[top : top + side, left : left + side]


def _plain_jpeg(opened: Image.Image, channels: int) -> Pixels | None:
    """The pixels of a grey or colour JPEG that stands upright, by simplejpeg.

    They are the bits of Pillow in two thirds of its time; None where Pillow must have a look.
    """
    if not isinstance(opened, JpegImageFile) or (opened.format, opened.mode) not in _PLAIN:
        return None
    if opened.getexif().get(ExifTags.Base.Orientation, 1) != 1 or opened.fp is None:
        return None
    opened.fp.seek(0)
    return _decoded(opened.fp.read(), channels)


def _decoded(data: bytes, channels: int) -> Pixels | None:
    """A JPEG's pixels, ``[height, width, channels]``; None if simplejpeg cannot read it all."""
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB")
    except ValueError:
        # No JPEG, or a kind that simplejpeg does not read: Pillow decides whether it is an image.
        return None
    return pixels


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I;16"):
        # Pillow's conversion clips: 16-bit grey would come out white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image


def read_square(piece: Piece, side: int, channels: int) -> Pixels:
    """The central square of an image, ``[side, side, channels]``, wherever it lies.

    A shard's squares of just this side are decoded by simplejpeg: the same bits as Pillow's in
    about half the time (``tests/benchmarks/decoders.py``). Everything else is Pillow's.

    Raises:
        OSError, SyntaxError, ValueError: it is no whole image, or not the packed image.
    """
    if piece.length < 0:
        return load_square(piece.path, side, channels)
    data = read_piece(piece)
    if zlib.crc32(data) != piece.crc:
        raise ValueError(f"damaged at byte {piece.offset}: its checksum is another")
    if _jpeg_size(data) == (side, side) and (square := _decoded(data, channels)) is not None:
        return square
    return load_square(io.BytesIO(data), side, channels)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return width, height


def read_piece(piece: Piece) -> bytes:
    """A piece's bytes; fewer where the file ends early."""
    with Path(piece.path).open("rb", buffering=0) as file:
        return os.pread(file.fileno(), piece.length, piece.offset)


def reason(error: Exception) -> str:
    """Why an image cannot be read, in one line that is the same every time."""
    # Pillow's text has the address of a buffer in it.
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return str(error).partition("\n")[0].strip() or type(error).__name__


def load_crops(
    crops: Sequence[Crop], crop_side: int, channels: int
) -> tuple[Pixels, list[str | None]]:
    """Crops of several files, ``[n, side, side, channels]``, and why each failed, if it did."""
    pixels = np.zeros((len(crops), crop_side, crop_side, channels), dtype=np.uint8)
    return pixels, cut(crops, pixels)


def cut(crops: Sequence[Crop], pixels: Pixels) -> list[str | None]:
    """Write crops of several files into ``pixels``, ``[n, side, side, channels]``.

    Returns:
        Why each failed, if it did; its pixels are then as they were.
    """
    _, crop_side, _, channels = pixels.shape
    side = square_side(crop_side)
    failures: list[str | None] = []
    last: tuple[str, int] | None = None
    square: Pixels | None = None
    failure: str | None = None
    for crop, out in zip(crops, pixels, strict=True):
        # Several views of one image come one after the other.
        if last != (crop.path, crop.offset):
            last, failure = (crop.path, crop.offset), None
            try:
                square = read_square(crop, side, channels)
            except UNREADABLE as error:
                square, failure = None, f"{name_text(crop.path)}: {error}"
        failures.append(failure)
        if square is not None:
            out[:] = square[crop.top : crop.top + crop_side, crop.left : crop.left + crop_side]
    return failures


def cut_into(
    place: Place, first: int, crops: Sequence[Crop], crop_side: int, channels: int
) -> list[str | None]:
    """``cut`` for images from ``first`` on of a minibatch that several processes fill."""
    pixels = mapped(place).reshape(-1, crop_side, crop_side, channels)
    return cut(crops, pixels[first : first + len(crops)])


def square_statistics(
    pieces: Sequence[Piece], crop_side: int, channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Over the readable images: sum of their squares, of their pixels' products, and count."""
    side = square_side(crop_side)
    total, products, count = np.zeros((side, side, channels)), np.zeros((channels, channels)), 0
    for piece in pieces:
        try:
            square = read_square(piece, side, channels)
        except UNREADABLE:
            continue
        total += square
        pixels = square.reshape(-1, channels).astype(np.float64)
        products += pixels.T @ pixels
        count += 1
    return total, products, count


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that decode; each ends as soon as the process that began it does."""
    return ProcessPoolExecutor(workers, mp_context=SPAWN, initializer=_worker_start)


def _worker_start() -> None:
    parent = parent_process()
    assert parent is not None
    # The step's threads wait for each other: decoding takes the time that they leave.
    os.nice(_WORKER_NICE)
    # Ctrl-C reaches the whole group; only the main process answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()

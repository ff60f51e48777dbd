"""What a file of raw pixels holds, and reading one whole."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alexsim.errors import DataError

_CHUNK = 1 << 20
_MOST_BYTES = 4 << 30
"""Of a file, unpacked: some ten times the largest that these forms are distributed in."""


class Batch(NamedTuple):
    """Images of one size, and their labels."""

    pixels: NDArray[np.uint8]
    """``[images, height, width, channels]``; one channel is grey, three are RGB."""
    classes: Sequence[str]
    """Of each image."""
    names: Sequence[str]
    """What each image is called."""

    @property
    def side(self) -> int:
        """The images' shorter side, in pixels."""
        return min(map(int, self.pixels.shape[1:3]))

    def encoded(self, index: int) -> bytes:
        """An image as a PGM or PPM file, which holds the same pixels."""
        height, width, channels = self.pixels.shape[1:]
        kind = b"P5" if channels == 1 else b"P6"
        return b"%s %d %d 255\n%s" % (kind, width, height, self.pixels[index].tobytes())


class Arrays(NamedTuple):
    """What a file holds, or a tar of such files."""

    batches: Mapping[Path, Batch]
    """By their files; those of a tar as if it were a folder."""
    declared: tuple[str, ...] = ()
    """The classes in the order of their numbers; empty where they have no names."""


def whole(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in ``.gz``.

    Raises:
        DataError: it is damaged or cut off, or too large for what it should be.
        OSError: it cannot be read.
    """
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as file:
                return _read(file, path)
        with path.open("rb") as plain:
            return _read(plain, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged or cut off: {error}") from error


def _read(file: BinaryIO | gzip.GzipFile, path: Path) -> bytes:
    data = bytearray()
    while chunk := file.read(_CHUNK):
        data += chunk
        if len(data) > _MOST_BYTES:
            raise DataError(f"{path}: more than {_MOST_BYTES:,} bytes, unpacked")
    return bytes(data)

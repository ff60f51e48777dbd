"""What an entry of a source is, by its name and first bytes: an image, hidden, or else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from alexsim.errors import DataError

IMAGE_ENDINGS = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "png", "apng", "bmp", "dib", "gif", "webp", "tif",
    "tiff", "avif", "avifs", "heic", "heif", "hif", "jxl", "jp2", "j2k", "j2c", "jpc", "jpf",
    "jpx", "ppm", "pgm", "pbm", "pnm", "pfm", "tga", "ico", "cur", "icns", "pcx", "sgi", "xbm",
    "xpm", "psd", "dds", "qoi", "svg", "exr", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2",
    "raf",
})  # fmt: skip
"""Without their dot. Some are not read by Pillow: then the image is named as left out."""

_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II\*\0|MM\0\*|8BPS|qoif"
    rb"|\0\0\0\x0cjP  |\0\0\0\x0cJXL |.{4}ftyp(?:avi[fs]|hei[cxms]|mif1|msf1)"
    rb"|BM.{4}\0\0\0\0",
    re.DOTALL,
)
"""First bytes of JPEG, PNG, GIF, WebP, TIFF, PSD, QOI, JPEG 2000, JPEG XL, AVIF and HEIF, BMP."""
HEAD_BYTES = 16

_SYSTEM_FOLDERS = frozenset({
    "__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin",
    "system volume information", "lost+found",
})  # fmt: skip
"""What systems leave beside people's files: macOS's archives, Synology's and QNAP's servers,
Windows, ext4."""


class Entry(NamedTuple):
    """A file below a folder."""

    name: str
    """Its path from there."""
    reason: str = ""
    """Why it cannot be taken; empty if it can."""
    images: int = 1
    """How many it stands for: all of a hidden folder's."""


def ending(name: str) -> str:
    """What stands behind the last dot of a path's last part, in small letters."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return last.lower() if stem and dot else ""


def is_hidden(name: str) -> bool:
    """Whether a part of a path is hidden, or the system's: ``._0.jpg``, ``__MACOSX/0.jpg``."""
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.lower() in _SYSTEM_FOLDERS
        for part in name.split("/")
    )


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    """Whether an entry claims to be an image: by its ending, or else by its first bytes."""
    return ending(name) in IMAGE_ENDINGS or _MAGIC.match(head()) is not None


def entries(folder: Path, others: Callable[[Path], None]) -> Iterator[Entry]:
    """Whatever claims to be an image below a folder, however deep, in the order of their paths.

    A hidden folder is one entry. Links are followed, but never in circles.

    Args:
        others: called with every file that does not claim to be an image.

    Raises:
        DataError: a folder cannot be read.
    """
    yield from _below(folder, "", (), others)


def _below(
    root: Path,
    prefix: str,
    above: tuple[str, ...],
    others: Callable[[Path], None],
) -> Iterator[Entry]:
    try:
        children = sorted(os.scandir(root / prefix), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read {root / prefix}: {error.strerror}") from error
    real = os.path.realpath(root / prefix)
    if real in above:
        return
    for entry in children:
        name = f"{prefix}{entry.name}"
        kind = _kind(entry)
        if kind == "folder":
            inner = list(_below(root, f"{name}/", (*above, real), others))
            if is_hidden(entry.name):
                if images := sum(image.images for image in inner):
                    yield Entry(name, "in a hidden folder", images)
            else:
                yield from inner
        elif kind != "file":
            # A link may have led to a folder of any number of images.
            claims = ending(name) in IMAGE_ENDINGS
            if claims or kind == _NOWHERE:
                yield Entry(name, kind, int(claims))
        elif is_image(name, lambda path=entry.path: _head(path)):  # type: ignore[misc]
            yield Entry(name, "a hidden file" if is_hidden(entry.name) else "")
        else:
            others(root / name)


_NOWHERE = "a link that leads nowhere"


def _kind(entry: os.DirEntry[str]) -> str:
    """``folder`` or ``file``, through links; else why it is neither."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        nowhere = entry.is_symlink() and not Path(entry.path).exists()
    except OSError:
        # A link to itself.
        nowhere = True
    return _NOWHERE if nowhere else "not a file"


def _head(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(HEAD_BYTES)

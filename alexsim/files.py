"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def write_whole(path: Path, *parts: bytes) -> None:
    """A whole file, or what was there before; pipes and devices are written into.

    Raises:
        OSError: it cannot be written.
    """
    write_parts(path, parts)


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """As ``write_whole``, each part as it is made.

    Raises:
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.writelines(parts)
        return
    with unfinished(path) as beside, beside.open("wb") as file:
        file.writelines(parts)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Where to write what then appears at ``path``: beside it. Synced, renamed, the folder synced.

    Raises:
        OSError: it cannot be.
    """
    # A killed process's worker may still be at it for a moment: not in the same file.
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.rename(path)
    except BaseException:
        # Where the folder is none, unlinking fails as well.
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def drop_unfinished(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)

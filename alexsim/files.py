"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, *parts: bytes) -> None:
    """Write beside, sync, rename, sync the folder; pipes and devices are written into.

    Raises:
        OSError: it cannot be written; what was there before stays.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            file.writelines(parts)
        return
    # A killed process's worker may still be at it for a moment: not in the same file.
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.writelines(parts)
        settle(beside, path)
    except OSError:
        # Where the folder is none, unlinking fails as well.
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def settle(finished: Path, target: Path) -> None:
    """Make a finished file appear under its name, so that a crash leaves the old one or the new.

    Raises:
        OSError: it cannot.
    """
    with finished.open("rb") as file:
        os.fsync(file.fileno())
    finished.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

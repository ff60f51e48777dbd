"""What went into a file of another format, or came out of it, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING

from alexsim.units import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from alexsim.network.network import Network


def conversion_text(
    network: Network,
    files: Mapping[Path, int],
    changes: tuple[str, ...],
    notes: tuple[str, ...] = (),
) -> str:
    """A line per file, change and note."""
    head = f"{network.name}: {network.parameters:,} parameters, {network.classes:,} classes"
    written = (f"{path}: {format_bytes(size)}" for path, size in files.items())
    noted = (f"note: {note}" for note in notes)
    return "\n".join(map(_wrapped, (head, *written, *changes, *noted)))


def _wrapped(line: str) -> str:
    # Paths stay whole, to be copied.
    return textwrap.fill(
        line, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )

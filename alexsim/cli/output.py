"""What commands print: JSON documents, and files written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from alexsim.errors import AlexsimError


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    print(json_text(document), end="")


def json_text(document: dict[str, Any]) -> str:
    """A document as text."""
    return json.dumps(document, indent=2) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write beside, then rename.

    Raises:
        AlexsimError: the file cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write beside, sync, then rename.

    Raises:
        AlexsimError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise AlexsimError(f"cannot write {path}: {error.strerror}") from error

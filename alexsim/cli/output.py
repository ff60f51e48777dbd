"""What commands print: JSON documents, and files written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alexsim.errors import AlexsimError


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2))


def write_text(path: Path, text: str) -> None:
    """Write beside, then rename.

    Raises:
        AlexsimError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise AlexsimError(f"cannot write {path}: {error.strerror}") from error

"""What is left."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexsim.report.page.inputs import Subject

SCHEMA = 1


def head(network: str, batch_size: int) -> dict[str, Any]:
    """What every document on a network begins with."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "network": network,
        "batch_size": batch_size,
    }


def page_document(subjects: Sequence[Subject], path: Path, size_bytes: int) -> dict[str, Any]:
    """``alexsim report --json``: what the page is on, and where it is."""
    return {
        "schema": SCHEMA,
        "alexsim": version("alexsim"),
        "page": str(path),
        "bytes": size_bytes,
        "subjects": [
            {"name": one.name, "kind": one.kind, "network": one.document["network"]}
            for one in subjects
        ],
    }

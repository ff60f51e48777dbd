"""``alexsim report --json``: what a page is on, and where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from alexsim.documents.base import Document, From, Part


class SubjectRow(Part):
    """What is on the page."""

    name: str
    kind: str
    """``run``, ``profile`` or ``plan``."""
    network: Annotated[str, From("document.network")]


class PageDocument(Document):
    """``alexsim report --json``."""

    page: str
    """The file."""
    bytes: int
    subjects: tuple[SubjectRow, ...]


def page_document(subjects: Sequence[object], path: Path, size_bytes: int) -> PageDocument:
    """``alexsim report --json``; of each subject its name, its kind and its document."""
    return PageDocument.of(page=str(path), bytes=size_bytes, subjects=tuple(subjects))

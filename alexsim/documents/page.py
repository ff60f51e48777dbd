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


class ExportRow(Part):
    """A run's metrics in an experiment tracker."""

    run: str
    tracker: str
    """``tensorboard`` or ``wandb``."""
    place: str
    """A folder, or an address."""
    rows: int
    """Steps that something is told of."""
    tags: int


class PageDocument(Document):
    """``alexsim report --json``."""

    page: str | None
    """The file; null where metrics were only exported."""
    bytes: int | None
    subjects: tuple[SubjectRow, ...]
    exports: tuple[ExportRow, ...] = ()


def page_document(
    subjects: Sequence[object], page: Path | None, size_bytes: int, exports: Sequence[object]
) -> PageDocument:
    """``alexsim report --json``; of each subject its name, its kind and its document."""
    return PageDocument.of(
        page=str(page) if page else None,
        bytes=size_bytes if page else None,
        subjects=tuple(subjects),
        exports=tuple(exports),
    )

"""``alexsim model export --json`` and ``alexsim model import --json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from alexsim.documents.base import Document, From, Part
from alexsim.network.network import Network


class FileRow(Part):
    """A file that was written."""

    path: str
    bytes: int


class ConversionDocument(Document):
    """What was converted, and what had to be changed for it."""

    network: Annotated[str, From("network.name")]
    parameters: Annotated[int, From("network.parameters")]
    classes: Annotated[int, From("network.classes")]
    files: tuple[FileRow, ...]
    changes: tuple[str, ...]


class ExportDocument(ConversionDocument):
    """``alexsim model export --json``."""

    largest_difference: float | None
    """Of onnxruntime's probabilities from ours; null where it was not asked."""


class ImportDocument(ConversionDocument):
    """``alexsim model import --json``."""

    notes: tuple[str, ...]
    normalisation: str


def export_document(
    network: Network,
    files: Mapping[Path, int],
    changes: tuple[str, ...],
    largest_difference: float | None,
) -> ExportDocument:
    """``alexsim model export --json``; ``files`` by their bytes."""
    return ExportDocument.of(
        network=network,
        files=_rows(files),
        changes=changes,
        largest_difference=largest_difference,
    )


def import_document(
    network: Network,
    files: Mapping[Path, int],
    changes: tuple[str, ...],
    *,
    notes: tuple[str, ...],
    normalisation: str,
) -> ImportDocument:
    """``alexsim model import --json``; ``files`` by their bytes."""
    return ImportDocument.of(
        network=network,
        files=_rows(files),
        changes=changes,
        notes=notes,
        normalisation=normalisation,
    )


def _rows(files: Mapping[Path, int]) -> list[dict[str, str | int]]:
    return [{"path": str(path), "bytes": size} for path, size in files.items()]

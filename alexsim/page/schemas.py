"""JSON Schemas of documents; ``python -m alexsim.page.schemas docs`` writes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from alexsim.documents.base import Document
from alexsim.documents.bench import BaselineDocument, BenchDocument
from alexsim.documents.calibration import CalibrationDocument, KernelsDocument
from alexsim.documents.counters import ComparedFlopsDocument
from alexsim.documents.data import InspectionDocument, LoaderDocument, PackDocument
from alexsim.documents.evaluation import (
    EvaluationDocument,
    FiltersDocument,
    NeighboursDocument,
    PredictionDocument,
)
from alexsim.documents.fit import FitDocument
from alexsim.documents.given import GivenDocument
from alexsim.documents.hardware import (
    DeviceDocument,
    HardwareDocument,
    LinkDocument,
    MachineDocument,
)
from alexsim.documents.interchange import ExportDocument, ImportDocument
from alexsim.documents.networks import LayersDocument, NetworksDocument
from alexsim.documents.page import PageDocument
from alexsim.documents.plan import FlopsDocument, MemoryDocument
from alexsim.documents.profile import ProfileDocument
from alexsim.documents.recommend import RecommendDocument
from alexsim.documents.simulation import SimulationDocument
from alexsim.documents.sweep import GridDocument, SweepDocument
from alexsim.documents.training import RecipesDocument, TrainDocument
from alexsim.documents.validation import ValidationDocument

DOCUMENTS: tuple[type[Document], ...] = (
    TrainDocument,
    EvaluationDocument,
    FlopsDocument,
    ComparedFlopsDocument,
    MemoryDocument,
    SimulationDocument,
    SweepDocument,
    GridDocument,
    RecommendDocument,
    ProfileDocument,
    PageDocument,
    PredictionDocument,
    NeighboursDocument,
    FiltersDocument,
    ExportDocument,
    ImportDocument,
    PackDocument,
    InspectionDocument,
    LoaderDocument,
    HardwareDocument,
    MachineDocument,
    DeviceDocument,
    LinkDocument,
    NetworksDocument,
    LayersDocument,
    RecipesDocument,
    ValidationDocument,
    CalibrationDocument,
    FitDocument,
    GivenDocument,
    BenchDocument,
    BaselineDocument,
    KernelsDocument,
)
"""In the order of ``alexsim --help``."""

_HEAD = """# JSON documents

Every command takes `--json` and prints one document on standard output, nothing else; progress
and notes go to standard error. Keys may be added, never renamed. Sizes are bytes, times seconds
unless a key ends otherwise, errors fractions 0 to 1. A number that is not finite is `null`, and the
key `not_finite` says of each, by its place, what it was:
`{"loss": null, "not_finite": {"loss": "NaN"}}`.

Each document has a JSON Schema (draft 2020-12), made from the same lines of code as the document.

| printed by | schema |
|---|---|
"""


def schema_of(document: type[Document]) -> dict[str, Any]:
    """The JSON Schema of a document as it is printed."""
    schema = document.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def file_name(document: type[Document]) -> str:
    """Of its schema."""
    return f"{document.__name__.removesuffix('Document').lower()}.json"


def written() -> dict[str, str]:
    """Every file by its path below ``docs``."""
    files = {
        f"schemas/{file_name(document)}": json.dumps(schema_of(document), indent=1, allow_nan=False)
        + "\n"
        for document in DOCUMENTS
    }
    rows = (
        f"| {(document.__doc__ or '').splitlines()[0].replace('``', '`').rstrip('.')} |"
        f" [{file_name(document)}](schemas/{file_name(document)}) |\n"
        for document in DOCUMENTS
    )
    return {"json.md": _HEAD + "".join(rows)} | files


if __name__ == "__main__":
    for path, text in written().items():
        target = Path(sys.argv[1]) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

"""The JSON document of ``alexsim check calibrate --given``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from alexsim.documents.base import Document, From, Part
from alexsim.fidelity.given import Given


class GivenRowSeconds(Part):
    """A given row beside both predictions."""

    id: str
    measured_s: float
    shipped_s: float
    """By the shipped fit."""
    given_s: float
    """By the fit that was given other rows alone."""


class GivenDocument(Document):
    """``alexsim check calibrate --given FILE --json``."""

    file: str
    conditioned_on: Annotated[int, From("rows")]
    """Rows of the file that condition the fit."""
    left_out: Mapping[str, int]
    """The others, by rule."""
    rows: Annotated[tuple[GivenRowSeconds, ...], From("beside")]


def given_document(given: Given) -> GivenDocument:
    """``alexsim check calibrate --given FILE --json``."""
    return GivenDocument.of(given)

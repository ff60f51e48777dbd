"""The JSON document of ``alexsim check fit``."""

from __future__ import annotations

from collections.abc import Mapping

from alexsim.costs.card import Card, ErrorClass, LeftOut
from alexsim.documents.base import Document


class FitDocument(Document):
    """``alexsim check fit --json``: the card of the fit that was made."""

    path: str
    """Where ``fit.npz`` and ``fit.json`` were written."""
    fitted_to: str
    data: Mapping[str, str]
    """SHA-256 of each file that taught."""
    devices: Mapping[str, int]
    """Rows that taught, by device."""
    classes: tuple[ErrorClass, ...]
    left_out: tuple[LeftOut, ...]


def fit_document(card: Card, *, path: str) -> FitDocument:
    """``alexsim check fit --json``."""
    return FitDocument.of(card, path=path)

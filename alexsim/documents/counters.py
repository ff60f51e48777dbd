"""``alexsim flops --compare --json``: other people's FLOP counters beside ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alexsim.documents.base import From, Part
from alexsim.documents.plan import FlopsDocument
from alexsim.ledger.tables import FlopTable

if TYPE_CHECKING:
    from alexsim.counters.comparison import Comparison


class TermRow(Part):
    """A difference from ours that has a reason."""

    term: str
    flop: int
    layers: tuple[str, ...]


def _of_training(name: str) -> From:
    return From(
        lambda counter: getattr(counter.training_account, name) if counter.training_account else ()
    )


class CounterRow(Part):
    """A counter's figures, and what explains that they are others."""

    name: str
    version: str
    unit: str
    forward: int
    training: int | None
    forward_ratio: float
    """Over ours."""
    training_ratio: float | None
    explanation: Annotated[tuple[TermRow, ...], From("forward_account.terms")]
    training_explanation: Annotated[tuple[TermRow, ...], _of_training("terms")]
    unexplained_flop: int
    unexplained: Annotated[tuple[TermRow, ...], From("forward_account.unexplained")]
    training_unexplained: Annotated[tuple[TermRow, ...], _of_training("unexplained")]
    uncounted: tuple[str, ...]
    uncounted_layers: tuple[str, ...]
    reported_uncounted: Annotated[tuple[str, ...], From("reported")]


class FailedCounter(Part):
    """A counter that could not count."""

    name: str
    version: str
    reason: str


class ComparedFlopsDocument(FlopsDocument):
    """``alexsim flops --compare --json``."""

    counters: Annotated[tuple[CounterRow, ...], From("comparison.counters")]
    failed_counters: Annotated[tuple[FailedCounter, ...], From("comparison.failed")]
    not_installed: Annotated[tuple[str, ...], From("comparison.not_installed")]
    without_formula: Annotated[tuple[str, ...], From("comparison.without_formula")]


def compared_flops_document(table: FlopTable, comparison: Comparison) -> ComparedFlopsDocument:
    """``alexsim flops --compare --json``."""
    return ComparedFlopsDocument.of(table, comparison=comparison)

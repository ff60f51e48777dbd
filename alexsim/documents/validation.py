"""``alexsim check validate --json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from alexsim.documents.base import Document, From, Part
from alexsim.fidelity.groups import ErrorGroup
from alexsim.fidelity.judging import Group, Summary
from alexsim.fidelity.rows import Excluded
from alexsim.fidelity.sample import Sample
from alexsim.report.validation import by_network, left_out


class GroupErrors(Part):
    """Errors of a library on a device, beside those of the roofline."""

    device: str
    library: str
    name: Annotated[str, From("summary.name")]
    rows: Annotated[int, From("summary.rows")]
    mean_absolute_error: Annotated[float, From("summary.mean_absolute_error")]
    median_absolute_error: Annotated[float, From("summary.median_absolute_error")]
    worst: Annotated[float, From("summary.worst")]
    bias: Annotated[float, From("summary.bias")]
    coverage: Annotated[float, From("summary.coverage")]
    roofline_mean_absolute_error: Annotated[float, From("roofline.mean_absolute_error")]


class ErrorsOfNetwork(Part):
    """Errors of a whole network's passes on a device in a framework, as the rows name it."""

    network: str
    device: str
    framework: str
    rows: Annotated[int, From("summary.rows")]
    mean_absolute_error: Annotated[float, From("summary.mean_absolute_error")]
    median_absolute_error: Annotated[float, From("summary.median_absolute_error")]


class PredictedRow(Part):
    """A published row beside its prediction, in the row's unit."""

    id: Annotated[str, From("case.row.id")]
    unit: Annotated[str, From("case.row.unit")]
    measured: Annotated[float | None, From("case.row.value")]
    """null in a blind row."""
    predicted: Annotated[float, From("value")]
    interval: Annotated[tuple[float, float], From(lambda row: (row.low, row.high))]


class ExcludedRow(Part):
    """A row that is not predicted, and the rule that says so."""

    id: Annotated[str, From("row.id")]
    why: str


class Rule(Part):
    """A rule that leaves rows out."""

    rule: str
    rows: int


class ValidationDocument(Document):
    """``alexsim check validate --json``."""

    sample: Sample | None
    """null where every row was looked at; else all that follows is the sample's."""
    rows: Annotated[int, From(lambda of: len(of.predictions) + len(of.excluded))]
    predicted: Annotated[int, From(lambda of: len(of.predictions))]
    summaries: tuple[Summary, ...]
    groups: Annotated[
        tuple[GroupErrors, ...], From(lambda of: [g for g in of.groups if g.summary.rows])
    ]
    by_axis: tuple[ErrorGroup, ...]
    """All rows with a value, then each group of each axis that a reader may ask by."""
    networks: Annotated[tuple[ErrorsOfNetwork, ...], From(lambda of: by_network(of.predictions))]
    predictions: tuple[PredictedRow, ...]
    excluded_by_rule: Annotated[
        tuple[Rule, ...],
        From(
            lambda of: [
                {"rule": rule, "rows": sum(whats.values())}
                for rule, whats in left_out(of.excluded).items()
            ]
        ),
    ]
    excluded: tuple[ExcludedRow, ...]


def validation_document(
    summaries: Sequence[Summary],
    groups: Sequence[Group],
    by_axis: Sequence[ErrorGroup],
    excluded: Sequence[Excluded],
    *,
    sample: Sample | None,
) -> ValidationDocument:
    """``alexsim check validate --json``."""
    return ValidationDocument.of(
        sample=sample,
        summaries=tuple(summaries),
        groups=groups,
        by_axis=tuple(by_axis),
        predictions=[p for group in groups for p in group.predictions],
        excluded=tuple(excluded),
    )

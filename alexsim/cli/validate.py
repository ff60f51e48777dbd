"""``alexsim check validate``: predictions beside published figures, and a gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.answer import Given, give
from alexsim.command.fields import Options, flag, option, written_to
from alexsim.command.options import output_to
from alexsim.command.output import write_lines, write_text
from alexsim.errors import AlexsimError, GateError

if TYPE_CHECKING:
    from alexsim.fidelity.judging import Gate, Summary
    from alexsim.fidelity.rows import Case, Excluded
    from alexsim.fidelity.sample import Sample


_ROWS, _PAGE = "every row's prediction, or why there is none", "opens in any browser"
"""What is said of files."""


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(Options):
    """Beside what, and how."""

    output: Path | None = output_to(".csv")
    measurements: str = option(
        "FILE",
        "CSV file of figures of kernels, of layers or of whole networks, plain or gzipped, with or"
        " without values; `published` are those that ship with alexsim.",
        "published",
    )
    rows: bool = flag(
        "Every row with its error, or the sums alone.", True, names="--rows/--summary"
    )
    gate: float = option(
        "PERCENT",
        "Fail (exit code 4) if the mean error of whole-network steps is larger, or more than half"
        " of the roofline's.",
        20.0,
    )
    quick: bool = flag(
        "A sample that is the same every time: one row in 20 of each device with each library, and"
        " at least one; 2,000 or so of large tables. Nothing is gated."
    )
    html: Path | None = written_to(
        "Also draw predicted against measured times on an HTML page, with the groups' errors.",
        ".html",
        ".htm",
    )


def validate(context: typer.Context, options: ValidateOptions) -> None:
    """Predict published figures, and say how far off.

    Every row with its error; then the errors by network, by device and library, the roofline's
    beside, by group (old and new cards, seen by the fit or not, op, size ...), and by kind of row.
    With -o, every row's prediction and its 90 % bounds go to a CSV file. Rows without a value (a
    blind table) are predicted only.

    Example: alexsim check validate --quick --html page.html

    Example: alexsim check validate --measurements kernels.csv.gz --summary
    """
    from alexsim.costs.correction import load_correction
    from alexsim.documents.validation import validation_document
    from alexsim.fidelity import groups, judged, judging, kernel_rows, validation
    from alexsim.report.validation import Judgement, predictions_csv, validation_tables

    if options.json:
        fields.refuse(context, "is for the tables: -o FILE has every row", "rows")
    measurements = options.measurements
    if kernel_rows.are_kernels(measurements):
        _kernels(context, options)
        return
    cases, excluded, sample = _chosen(context, options)
    correction = load_correction()
    with shared.counting("predicting rows", len(cases)) as done:
        predictions = validation.predict_all(cases, correction, done=done)
    with shared.counting("by the roofline", len(cases)) as done:
        bounds = judging.roofline_of(predictions, done=done)
    groups_of = judging.by_device_and_library(predictions, bounds)
    if options.output:
        write_lines(options.output, predictions_csv(predictions, excluded), _ROWS)
    if not predictions:
        raise AlexsimError(
            f"{measurements}: none of its {len(excluded)} rows can be predicted:"
            f" {excluded[0].why if excluded else 'it is empty'}"
        )
    rows = judged.of_predictions(predictions, bounds, judged.seen_by(correction))
    by_axis = groups.by_axis(rows)
    if options.html:
        from alexsim.page.validation import validation_page

        page = validation_page(rows, by_axis, measurements, correction.card.fitted_to, sample)
        write_text(options.html, page, _PAGE)
    summaries = judging.judge(predictions, correction)
    gate = None if sample else _gate(context, options, summaries)
    answer = Given(
        document=lambda: validation_document(
            summaries, groups_of, by_axis, excluded, sample=sample
        ),
        tables=lambda _: validation_tables(
            Judgement(summaries, groups_of, by_axis, gate),
            excluded,
            correction.card,
            every_row=options.rows,
            sample=sample,
        ),
    )
    give(options, answer, soft_wrap=True)
    if gate and not gate.passed:
        raise GateError(gate.words)


def _kernels(context: typer.Context, options: ValidateOptions) -> None:
    """Beside a table of kernels: errors by group, and a file of predictions."""
    from alexsim.costs.correction import load_correction
    from alexsim.documents.validation import validation_document
    from alexsim.fidelity import groups
    from alexsim.fidelity.kernel_judged import judge_kernels
    from alexsim.fidelity.kernel_rows import read_kernels
    from alexsim.fidelity.sample import quick_kernels
    from alexsim.report.validation import Judgement, kernels_csv, validation_tables

    fields.refuse(context, "judges whole-network steps; this is a table of kernels", "gate")
    if options.rows:
        fields.refuse(context, "is for rows of layers and networks: -o FILE has every row", "rows")
    rows, sample = [*read_kernels(options.measurements)], None
    if options.quick:
        rows, sample = quick_kernels(rows)
    correction = load_correction()
    with shared.counting("predicting kernels", len(rows)) as done:
        judged, excluded = judge_kernels(rows, correction, done=done)
    if options.output:
        write_lines(options.output, kernels_csv(judged, excluded), _ROWS)
    if not judged:
        raise AlexsimError(
            f"{options.measurements}: none of its {len(excluded)} rows can be predicted"
        )
    by_axis = groups.by_axis(judged)
    if options.html:
        from alexsim.page.validation import validation_page

        if not by_axis:
            raise AlexsimError(f"--html draws what was measured; {options.measurements} has none")
        told = (options.measurements, correction.card.fitted_to, sample)
        write_text(options.html, validation_page(judged, by_axis, *told), _PAGE)
    answer = Given(
        document=lambda: validation_document((), (), by_axis, excluded, sample=sample),
        tables=lambda _: validation_tables(
            Judgement((), (), by_axis), excluded, correction.card, every_row=False, sample=sample
        ),
    )
    give(options, answer, soft_wrap=True)


def _chosen(
    context: typer.Context, options: ValidateOptions
) -> tuple[Sequence[Case], Sequence[Excluded], Sample | None]:
    """Rows that are predicted, those that cannot be, and what a quick look took of all."""
    from alexsim.fidelity import validation
    from alexsim.fidelity.row_files import read_rows
    from alexsim.fidelity.sample import quick

    rows, sample = read_rows(options.measurements), None
    if options.quick:
        fields.refuse(context, "is for all rows, and --quick takes a sample", "gate")
        rows, sample = quick(rows)
    cases, excluded = validation.cases(rows)
    if options.html and all(case.row.value is None for case in cases):
        raise AlexsimError(
            f"--html draws what was measured; {options.measurements} has no row with a value that"
            " can be predicted"
        )
    return cases, excluded, sample


def _gate(
    context: typer.Context, options: ValidateOptions, summaries: Sequence[Summary]
) -> Gate | None:
    """None where nothing is judged."""
    from alexsim.fidelity.judging import gate_of

    if gate := gate_of(summaries, options.gate):
        return gate
    fields.refuse(context, f"judges whole-network steps; {options.measurements} has none", "gate")
    return None

"""``alexsim check validate``: predictions beside published figures, and a gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from alexsim.command import fields
from alexsim.command import options as shared
from alexsim.command.fields import flag, option
from alexsim.command.options import OutputOptions
from alexsim.command.output import check_file, print_json, write_text
from alexsim.errors import AlexsimError, GateError


@dataclass(frozen=True, kw_only=True)
class ValidateOptions(OutputOptions):
    """Beside what, and how."""

    measurements: str = option(
        "FILE",
        "CSV file of figures of layers or of whole networks, plain or gzipped, with or without"
        " values; `published` are those that ship with alexsim.",
        "published",
    )
    rows: bool = flag(
        "Every row with its error, or the sums alone.", True, names="--rows/--summary"
    )
    leave_out: bool = flag("Also fit without each device and each library in turn (some seconds).")
    refit: bool = flag("Fit again, instead of using the shipped correction.")
    save_correction: Path | None = option(
        "FILE", "Write the correction in use.", callback=check_file
    )
    gate: float = option(
        "PERCENT",
        "Fail (exit code 4) if the mean error of whole-network steps is larger, or more than half"
        " of the roofline's.",
        20.0,
    )


def validate(context: typer.Context, options: ValidateOptions) -> None:
    """Predict published figures, and say how far off.

    Every row with its error; then the errors by network, by device and library, the roofline's
    beside, and by kind of row. With -o, every row's prediction and its 90 % bounds go to a CSV
    file. Rows without a value (a blind table) are predicted only.

    Example: alexsim check validate --leave-out
    """
    from operator import attrgetter

    from alexsim.documents.validation import validation_document
    from alexsim.fidelity import judging, validation
    from alexsim.report.validation import predictions_csv, validation_tables
    from alexsim.simulate.costs.correction import correction_text, load_correction

    if options.json:
        fields.refuse(context, "is for the tables: -o FILE has every row", "rows")
    measurements = options.measurements
    cases, excluded = validation.all_rows(measurements)
    correction = load_correction()
    if options.refit:
        correction = validation.fit_to(cases, fitted_to=f"{measurements}: one GPU, no GTX 580")
    with shared.counting("predicting rows", len(cases)) as done:
        predictions = validation.predict_all(cases, correction, done=done)
    with shared.counting("by the roofline", len(cases)) as done:
        groups_of = judging.by_device_and_library(predictions, done=done)
    if options.output:
        write_text(options.output, predictions_csv(predictions, excluded))
    if not predictions:
        raise AlexsimError(
            f"{measurements}: none of its {len(excluded)} rows can be predicted:"
            f" {excluded[0].why if excluded else 'it is empty'}"
        )
    summaries = judging.judge(predictions, correction)
    if options.leave_out:
        for name in ("device", "library"):
            key = attrgetter(name)
            with shared.counting(f"leaving out each {name}", len({*map(key, cases)})) as done:
                left = judging.leave_out(cases, key, done=done)
            summaries += judging.by_kind(f"leave-one-{name}-out", left)
    if options.save_correction:
        write_text(options.save_correction, correction_text(correction))
    if options.json:
        print_json(validation_document(summaries, groups_of, excluded))
    else:
        shared.console().print(
            validation_tables(summaries, groups_of, excluded, every_row=options.rows),
            soft_wrap=True,
        )
    by_name = {summary.name: summary for summary in summaries}
    ours, roofline = by_name.get("steps, fitted"), by_name.get("steps, roofline")
    if ours is None or roofline is None or not ours.rows:
        fields.refuse(context, f"judges whole-network steps; {measurements} has none", "gate")
        return
    error = 100 * ours.mean_absolute_error
    limit = min(options.gate, 50 * roofline.mean_absolute_error)
    # Not `error > limit`: an error that is no number passes nothing.
    if not error <= limit:
        raise GateError(
            f"mean error of {ours.rows} whole-network steps is {error:.1f} %,"
            f" the gate is {limit:.1f} %"
        )

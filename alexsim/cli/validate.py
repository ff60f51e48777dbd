"""``alexsim validate``: predictions beside published figures, and a gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alexsim.cli import options

GATE_PERCENT = 20.0


def validate(
    context: typer.Context,
    measurements: Annotated[
        str,
        typer.Option(
            "--measurements",
            metavar="FILE",
            help="CSV file of published figures, with or without values; `published` are those that"
            " ship with alexsim.",
        ),
    ] = "published",
    rows: Annotated[
        bool,
        typer.Option("--rows/--summary", help="Every row with its error, or the sums alone."),
    ] = True,
    leave_out: Annotated[
        bool,
        typer.Option(
            "--leave-out",
            help="Also fit without each device and each library in turn (some seconds).",
        ),
    ] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit again, instead of using the shipped correction.")
    ] = False,
    save_correction: Annotated[
        Path | None,
        typer.Option(
            "--save-correction",
            metavar="FILE",
            callback=options.checked_file,
            help="Write the correction in use.",
        ),
    ] = None,
    gate: Annotated[
        float,
        typer.Option(
            "--gate",
            metavar="PERCENT",
            help="Fail (exit code 4) if the mean error of whole-network steps is larger, or more"
            " than half of the roofline's.",
        ),
    ] = GATE_PERCENT,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Predict published figures, and say how far off the predictions are.

    Every row with its error; then the errors by device and library, the roofline's beside, and by
    kind of row. With -o, every row's prediction and its 90 % bounds go to a CSV file. Rows without
    a value (a blind table) are predicted only.

    Example: alexsim validate --leave-out
    """
    from operator import attrgetter

    from alexsim.cli.output import print_json, write_text
    from alexsim.cli.parse import above_zero
    from alexsim.errors import AlexsimError, GateError
    from alexsim.simulate import judging, validation
    from alexsim.simulate.costs.correction import correction_text, load_correction

    if json:
        options.refuse(context, "is for the tables: -o FILE has every row", "rows")
    above_zero("--gate", gate)
    found, excluded = validation.all_rows(measurements)
    if refit:
        correction = validation.fit_to(found, fitted_to=f"{measurements}: one GPU, no GTX 580")
    else:
        correction = load_correction()
    predictions = [validation.predict(case, correction) for case in found]
    if output:
        from alexsim.report.validation import predictions_csv

        write_text(output, predictions_csv(predictions, excluded))
    if not predictions:
        raise AlexsimError(
            f"{measurements}: none of its {len(excluded)} rows can be predicted:"
            f" {excluded[0].why if excluded else 'it is empty'}"
        )
    summaries = judging.judge(predictions, correction)
    if leave_out:
        for name in ("device", "library"):
            key = attrgetter(name)
            groups = len({key(case) for case in found})
            with options.counting(f"leaving out each {name}", groups) as done:
                left = judging.leave_out(found, key, done=done)
            summaries += judging.by_kind(f"leave-one-{name}-out", left)
    if save_correction:
        write_text(save_correction, correction_text(correction))
    groups_of = judging.by_device_and_library(predictions)
    if json:
        from alexsim.report.documents.validation import validation_document

        print_json(validation_document(summaries, groups_of, excluded))
    else:
        from alexsim.report.validation import validation_tables

        options.console().print(
            validation_tables(summaries, groups_of, excluded, every_row=rows), soft_wrap=True
        )
    by_name = {summary.name: summary for summary in summaries}
    ours, roofline = by_name.get("steps, fitted"), by_name.get("steps, roofline")
    if ours is None or roofline is None or not ours.rows:
        options.refuse(context, f"judges whole-network steps; {measurements} has none", "gate")
        return
    error = 100 * ours.mean_absolute_error
    limit = min(gate, 50 * roofline.mean_absolute_error)
    # Not `error > limit`: an error that is no number passes nothing.
    if not error <= limit:
        raise GateError(
            f"mean error of {ours.rows} whole-network steps is {error:.1f} %,"
            f" the gate is {limit:.1f} %"
        )

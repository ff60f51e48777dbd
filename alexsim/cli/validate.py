"""``alexsim validate``: predictions beside published figures, and a gate."""

from __future__ import annotations

from typing import Annotated

import typer

from alexsim.cli import options

GATE_PERCENT = 20.0


def validate(
    measurements: Annotated[
        str,
        typer.Option(
            "--measurements",
            metavar="FILE",
            help="CSV file of published figures, with or without values. Default: the built-in.",
        ),
    ] = "published",
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
        str,
        typer.Option("--save-correction", metavar="FILE", help="Write the correction in use."),
    ] = "",
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

    With -o, every row's prediction and its 90 % bounds go to a CSV file. Rows without a value
    (a blind table) are predicted only.

    Example: alexsim validate --leave-out
    """
    from operator import attrgetter
    from pathlib import Path

    from alexsim.cli.output import print_json, write_text
    from alexsim.errors import GateError
    from alexsim.simulate import validation
    from alexsim.simulate.correction import correction_text, load_correction

    found, excluded = validation.all_rows(measurements)
    if refit:
        correction = validation.fit_to(found, fitted_to=f"{measurements}: one GPU, no GTX 580")
    else:
        correction = load_correction()
    predictions = [validation.predict(case, correction) for case in found]
    summaries = validation.judge(predictions)
    if leave_out:
        for name in ("device", "library"):
            key = attrgetter(name)
            groups = len({key(case) for case in found})
            with options.counting(f"leaving out each {name}", groups) as done:
                left = validation.leave_out(found, key, done=done)
            summaries += validation.by_kind(f"leave-one-{name}-out", left)
    if output:
        from alexsim.report.simulation import predictions_csv

        write_text(output, predictions_csv(predictions, excluded))
    if save_correction:
        write_text(Path(save_correction), correction_text(correction))
    rows = len(found) + len(excluded)
    if json:
        from alexsim.report.documents import validation_document

        print_json(validation_document(summaries, excluded, rows=rows, predicted=len(found)))
    else:
        from alexsim.report.simulation import validation_tables

        options.console().print(
            validation_tables(summaries, excluded, rows=rows, predicted=len(found))
        )
    by_name = {summary.name: summary for summary in summaries}
    ours, roofline = by_name.get("steps, fitted"), by_name.get("steps, roofline")
    if ours is None or roofline is None:
        return
    error = 100 * ours.mean_absolute_error
    limit = min(gate, 50 * roofline.mean_absolute_error)
    if error > limit:
        raise GateError(
            f"mean error of {ours.rows} whole-network steps is {error:.1f} %,"
            f" the gate is {limit:.1f} %"
        )

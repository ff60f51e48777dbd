"""This machine's measurements as terminal tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.report.tables import plain_table

if TYPE_CHECKING:
    from alexsim.costs.measured import Calibration
    from alexsim.profile.calibrate import Check


_UNITS = {
    "FLOP": (1e9, "GFLOP/s"),
    "byte": (1e9, "GB/s"),
    "op": (1e3, "thousand/s"),
    "image": (1, "images/s"),
}


def _units(calibration: Calibration) -> str:
    if calibration.on_cores:
        return f"{calibration.threads} threads"
    return f"{calibration.cards} card(s)"


def _notes(calibration: Calibration) -> str:
    """What a reader should know of the card, or of those who took the cores."""
    notes = [calibration.clocks] if calibration.clocks else []
    if calibration.disturbed:
        notes.append(
            f"other processes disturbed {calibration.disturbed} steps: measure again when it is"
            " quiet"
        )
    return "".join(f"\n{note}" for note in notes)


def calibration_tables(
    calibration: Calibration, checks: Sequence[Check], path: str
) -> RenderableType:
    """What was measured, and how well it predicts batch sizes that it has not seen."""
    head = Text(
        f"{calibration.machine}, {_units(calibration)}, {calibration.date}:"
        f" {len(calibration.ops)} ops, {calibration.rounds} rounds, steps scatter by"
        f" {100 * calibration.scatter:.0f} %{_notes(calibration)}\nwritten to {path}"
    )
    table = plain_table("What it can do at best", "what", "shape", "ms", "rate", "")
    table.columns[1].justify = "left"
    table.columns[4].justify = "left"
    for rate in calibration.rates:
        scale, unit = _UNITS[rate.unit]
        table.add_row(
            rate.what,
            rate.shape,
            f"{1e3 * rate.seconds:,.3g}",
            f"{rate.per_second / scale:,.4g}",
            unit,
        )
    parts: list[RenderableType] = [head, table]
    for batch in dict.fromkeys(row.batch_size for row in checks):
        out = plain_table(
            f"Batch {batch}, not seen by the calibration: ms per step",
            "what", "predicted", "measured", "error", "share", "rounds, 90 %",
        )  # fmt: skip
        rows = [row for row in checks if row.batch_size == batch]
        for row in rows:
            out.add_row(
                row.name,
                f"{1e3 * row.predicted_s:,.2f}",
                f"{1e3 * row.measured_s:,.2f}",
                f"{100 * row.error:+.1f} %",
                f"{100 * row.measured_s / rows[0].measured_s:.1f} %",
                f"{100 * (row.low - 1):+.0f} to {100 * (row.high - 1):+.0f} %",
            )
        parts.append(out)
    return Group(*parts)

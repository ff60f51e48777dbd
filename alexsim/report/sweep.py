"""Sweeps as a terminal table, and as rows for CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.explore.pareto import Point, objectives
from alexsim.report.tables import milliseconds, plain_table
from alexsim.units import MIB

_FIGURES = (
    "gpus", "step_s", "low_s", "high_s", "images_per_s", "training_days", "utilisation",
    "utilisation_counts", "memory_bytes", "fits", "energy_kwh", "price_usd", "pareto",
)  # fmt: skip


def sweep_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """One flat record per configuration; what it has no figure for is None, and what
    has no result is not of the Pareto set.

    ``gpus`` is of all replicas, unless it is an axis: then as it was given.
    """
    keys = list(dict.fromkeys(key for point in points for key in point.settings))
    typed = {key: _type_of([point.settings.get(key, "") for point in points]) for key in keys}
    rows = []
    for point in points:
        row: dict[str, Any] = {
            key: typed[key](point.settings[key]) if key in point.settings else None for key in keys
        }
        names = [name for name in _FIGURES if name not in row]
        row |= {name: None if point.error else getattr(point, name) for name in names}
        rows.append(row | {"pareto": point.pareto, "error": point.error})
    return rows


def _type_of(texts: Sequence[str]) -> Callable[[str], Any]:
    """``int`` or ``float`` where every text of a column reads as such, else ``str``."""
    for kind in (int, float):
        try:
            for text in texts:
                kind(text)
        except ValueError:
            continue
        return kind
    return str


def grid_text(settings: Sequence[Mapping[str, str]], axes: Sequence[str]) -> str:
    """What a sweep would simulate."""
    lines = [" ".join(f"{axis}={values[axis]}" for axis in axes) for values in settings]
    return "\n".join([*lines, f"{len(lines)} configurations"])


def sweep_table(points: Sequence[Point], axes: Sequence[str], most: int = 40) -> RenderableType:
    """The first configurations, in order; what varies, and the result."""
    shown = points[:most]
    title = f"{len(points)} configurations"
    if len(points) > most:
        title += f", the first {most} (-o FILE has all)"
    if "partition" not in axes and any(point.partition == "replicas" for point in points):
        title = f"several GPUs: data parallel, each with its share of the batch\n{title}"
    several = any(point.gpus > 1 for point in points)
    # With several replicas the axis of that name is not all of them.
    counts = ["GPUs"] if several and ("gpus" not in axes or "replicas" in axes) else []
    priced = any(point.price_usd is not None for point in points)
    figures = ["ms", "images/s", "days", "MiB", "kWh", *(["USD"] if priced else []), ""]
    out = plain_table(title, *axes, *counts, *figures)
    for axis, column in zip(axes, out.columns, strict=False):
        # Names and choices are folded where they are many; figures stay whole.
        if _type_of([point.settings[axis] for point in shown]) is str:
            column.no_wrap, column.overflow, column.min_width = False, "fold", 3
    for point in shown:
        values = [point.settings[axis] for axis in axes]
        if point.error:
            out.add_row(*values, *([""] * (len(counts) + len(figures) - 1)), "-")
            continue
        price = "" if point.price_usd is None else f"{point.price_usd:,.0f}"
        out.add_row(
            *values,
            *([str(point.gpus)] if counts else []),
            milliseconds(point.step_s),
            f"{point.images_per_s:,.0f}",
            f"{point.training_days:.2f}",
            f"{point.memory_bytes / MIB:,.0f}",
            f"{point.energy_kwh:,.0f}",
            *([price] if priced else []),
            "*" if point.pareto else "" if point.fits else "full",
        )
    over = ", ".join(_WORDS[name] for name in objectives(points))
    by = "its policy" if "policy" in axes else "policy as-released; -a policy=reuse,pytorch: others"
    full = any(not point.fits for point in points if not point.error)
    notes = [
        Text(
            f"* none that fits is better in {over}.\n"
            + (f"full: does not fit by {by}.\n" if full else "")
            + "MiB: the fullest card. kWh: training, at data-sheet power."
            + ("\nUSD: the cards when they came out." if priced else "")
        )
    ]
    notes += [Text(f"no result: {error}") for error in _errors(points)[:5]]
    return Group(out, *notes)


def without_result(points: Sequence[Point]) -> str:
    """How many have none, and the first reasons, for the end of a line; empty where all have."""
    if not (count := sum(bool(point.error) for point in points)):
        return ""
    errors = _errors(points)
    others = f"; and {len(errors) - 2} other reasons" if len(errors) > 3 else ""
    shown = errors[: 2 if others else 3]
    return f", {count:,} without a result: {'; '.join(shown)}{others}"


def _errors(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.error for point in points if point.error))


_WORDS = {
    "training_days": "time",
    "memory_bytes": "memory",
    "energy_kwh": "energy",
    "price_usd": "price",
}

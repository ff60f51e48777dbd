"""What rows say that later runs choose by, in the form of ``alexsim_kernels.tables``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alexsim_kernels.bench.card.results import Entry, wrong
from alexsim_kernels.tables import Table, card_name


def card_of(entries: Sequence[Entry]) -> str:
    """The name that tables have for this card; nothing if no row says it."""
    for entry in entries:
        detail = entry.row.detail or {}
        if entry.row.op == "card" and detail.get("name"):
            return card_name(detail["name"], detail.get("triton", ""))
    return ""


def table_of(entries: Sequence[Entry]) -> Table:
    """Tiles and times of ops; the last of a name counts.

    A tile in a row was right, whatever others failed that were tried with it.
    """
    table: Table = {}
    for entry in entries:
        row, detail = entry.row, entry.row.detail or {}
        if wrong(replace(row, failed="") if entry.part == "tiles" else row):
            continue
        if entry.part == "tiles" and {"key", "tile"} <= detail.keys():
            table.setdefault("tiles", {})[detail["key"]] = detail["tile"]
        if entry.part == "layers" and {"op_name", "triton_ms", "aten_ms"} <= detail.keys():
            times = {"triton_ms": detail["triton_ms"], "aten_ms": detail["aten_ms"]}
            table.setdefault("ops", {})[detail["op_name"]] = times  # type: ignore[assignment]
    return table

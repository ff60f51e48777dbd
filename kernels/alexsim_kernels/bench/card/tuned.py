"""What rows say that later runs choose by, in the form of ``alexsim_kernels.tables``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from alexsim_kernels.bench.card.results import Entry, wrong
from alexsim_kernels.tables import Table, Times, card_name


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
        ours, theirs = detail.get("triton_ms"), detail.get("aten_ms")
        if entry.part == "layers" and "op_name" in detail and ours and theirs:
            times = Times(triton_ms=ours, aten_ms=theirs)
            table.setdefault("ops", {})[detail["op_name"]] = times
    return table

"""Rows of measured kernels, as tables print them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from alexsim.errors import ProfileError
from alexsim.fidelity.row_files import entries, header_of

KERNEL_COLUMNS = (
    "device", "device_clock_notes", "library", "op", "pass", "precision", "layout", "batch",
    "in_channels", "height", "width", "out_channels", "kernel_h", "kernel_w", "stride_h",
    "stride_w", "pad_h", "pad_w", "groups", "m", "n", "k", "extra", "algorithm", "notes",
)  # fmt: skip
"""Of a table of kernels; ``id``, ``source`` and ``time_s`` may be absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """A measured kernel, layer or pass, as printed; ``time_s`` is None in a blind row."""

    id: str
    source: str
    device: str
    library: str
    op: str
    passes: str
    precision: str
    algorithm: str
    notes: str
    time_s: float | None
    entry: Mapping[str, str]
    """All of its columns."""


def are_kernels(path: str) -> bool:
    """Whether a table is one of kernels, by its header."""
    return header_of(path).issuperset(KERNEL_COLUMNS)


def read_kernels(path: str) -> Iterator[KernelRow]:
    """Rows of a table of kernels, plain or gzipped, one at a time.

    Raises:
        ProfileError: the file cannot be read, lacks a column, or holds a malformed number.
    """
    for line, entry in entries(path, KERNEL_COLUMNS):
        yield kernel_row(entry, f"{path}, line {line}")


def kernel_row(entry: Mapping[str, str], where: str) -> KernelRow:
    """The row of a table's columns; a row without an id has its line's number.

    Raises:
        ProfileError: its time is no positive number.
    """
    text, time_s = entry.get("time_s", ""), None
    if text:
        try:
            time_s = float(text)
        except ValueError:
            time_s = math.nan
        if not 0 < time_s < math.inf:
            raise ProfileError(f"{where}: time_s must be above 0, got {text!r}")
    return KernelRow(
        id=entry.get("id") or where.rpartition(", ")[2],
        source=entry.get("source", ""),
        device=entry["device"],
        library=entry["library"],
        op=entry["op"],
        passes=entry["pass"],
        precision=entry["precision"],
        algorithm=entry["algorithm"],
        notes=entry["notes"],
        time_s=time_s,
        entry=entry,
    )

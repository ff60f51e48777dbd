"""Tables of measured kernels, made by hand or by the mechanism, and files of them."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from alexsim.fidelity.kernel_calls import call_of
from alexsim.fidelity.kernel_rows import KERNEL_COLUMNS, KernelRow, kernel_row

COLUMNS = ("id", "source", *KERNEL_COLUMNS, "time_s")
CONVOLUTION: Mapping[str, str] = {
    "device": "Tesla V100 SXM2 16GB", "library": "cudnn 7.6", "op": "conv", "pass": "forward",
    "precision": "fp32", "layout": "NCHW", "batch": "16", "in_channels": "64", "height": "28",
    "width": "28", "out_channels": "96", "kernel_h": "3", "kernel_w": "3", "stride_h": "1",
    "stride_w": "1", "pad_h": "1", "pad_w": "1", "groups": "1",
}  # fmt: skip
PRODUCT: Mapping[str, str] = {
    "device": "Tesla P100", "library": "cublas 9", "op": "gemm", "pass": "forward",
    "precision": "fp32", "m": "512", "n": "256", "k": "128",
}  # fmt: skip
MEMORY: Mapping[str, str] = {
    "device": "Tesla T4", "library": "PyTorch", "op": "elementwise", "pass": "forward",
    "precision": "fp32", "algorithm": "relu", "batch": "16", "in_channels": "64",
    "height": "56", "width": "56",
}  # fmt: skip


def entry_of(base: Mapping[str, str], **changed: str) -> dict[str, str]:
    """All columns of a row; ``passes`` is the column ``pass``."""
    if "passes" in changed:
        changed["pass"] = changed.pop("passes")
    return dict.fromkeys(COLUMNS, "") | {"id": "x", "source": "a/b"} | dict(base) | changed


def row_of(base: Mapping[str, str], **changed: str) -> KernelRow:
    """A row of a kernel."""
    return kernel_row(entry_of(base, **changed), "here")


def timed(row: KernelRow, factor: float) -> dict[str, str]:
    """A row's columns, with so many times its mechanism's seconds."""
    call = call_of(row)
    seconds = max(factor * (call.base_s + call.overhead_s), call.least_s)
    return {**row.entry, "time_s": repr(seconds)}


def table_text(entries: Sequence[Mapping[str, str]]) -> str:
    """As a CSV file."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return text.getvalue()


def write_table(path: Path, entries: Sequence[Mapping[str, str]]) -> Path:
    """A file of a table, zipped if its name says so."""
    text = table_text(entries).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return path


def some_kernels(count: int = 12) -> list[dict[str, str]]:
    """Rows of every kind, each with a time near its mechanism's."""
    rows = []
    for index in range(count):
        base = (CONVOLUTION, PRODUCT, MEMORY)[index % 3]
        row = row_of(base, id=f"k{index}", batch=str(8 + 4 * index), m=base.get("m", ""))
        rows.append(timed(row, 1.0 + 0.05 * (index % 4)))
    return rows


def with_time(row: KernelRow, seconds: float) -> KernelRow:
    """The same row, timed."""
    return replace(row, time_s=seconds)

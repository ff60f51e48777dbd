"""Compiled kernels as a terminal table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.report.tables import plain_table
from alexsim_kernels.code import KernelCode


def kernels_table(kernels: Sequence[KernelCode], *, arch: int) -> RenderableType:
    """Every kernel: its tile, warps and stages, and what its code takes."""
    out = plain_table(
        f"Kernels compiled for sm_{arch}",
        "op", "precision", "tile", "warps", "regs", "KiB", "spills", "unit",
    )  # fmt: skip
    for code in kernels:
        helper = code.kernel.strip("_").replace("_", " ")
        name = f"  {helper}" if helper in ("sum splits", "column sums") else code.op
        out.add_row(
            name,
            code.precision,
            code.block,
            f"{code.warps}x{code.stages}" if code.block else str(code.warps),
            str(code.registers),
            f"{code.shared_bytes / 1024:.0f}" if code.shared_bytes else "",
            str(code.spills) if code.spills else "",
            code.products,
        )
    spilled = sum(code.spills > 0 for code in kernels)
    note = (
        f"{len(kernels)} kernels, {spilled} of them spill. tile: rows x columns x depth; warps x"
        " stages of\nthe pipeline; regs of a thread; KiB of shared memory; spills: local-memory"
        "\ninstructions; unit: UTCHMMA, HGMMA and HMMA are tensor cores."
    )
    return Group(out, Text(note))

"""What a kernel compiled to; imports nothing, so that its readers start fast."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCode:
    """A kernel as an op launches it, compiled for one architecture.

    ``spills``: instructions that move a thread's values to and from memory; ``products``: its
    matrix instruction (``UTCHMMA``, ``HGMMA``, ``HMMA``), or ``FFMA``, ``FFMA2``; empty without
    products. ``instructions`` of all its code, and those of one turn of the innermost loop that has
    most products: ``turn_instructions``, of which ``turn_products`` multiply.
    """

    op: str
    kernel: str
    precision: str
    arch: int
    warps: int
    stages: int
    block: str
    registers: int
    shared_bytes: int
    spills: int
    products: str
    instructions: int
    turn_instructions: int
    turn_products: int

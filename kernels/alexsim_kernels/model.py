"""How long a kernel should take on a card, from what it compiled to: a model, to be compared.

A program of a product turns a loop; a multiprocessor holds as many programs as its registers,
shared memory and threads allow. A turn of all of them takes the longest of

* issuing its instructions, one per scheduler and clock (``turn_instructions``, from machine code);
* the multiply-adds, at the card's rate for the precision;
* fetching its tiles from the L2 cache;
* what the memory's latency leaves where few loads are in flight: ``stages`` of a pipeline hide it.

Programs run in waves; what moves through the card's memory at least bounds it all. Kernels without
products issue their instructions and move their bytes. Nothing is fitted to a card: latency, the
L2's rate and what a launch takes are round numbers, assumed; a card will say how wrong they are.

Imports neither torch nor triton.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from alexsim_kernels.code import KernelCode

LATENCY_CLOCKS = 600
"""From asking the L2 cache, or memory behind it, to having a tile."""
L2_BYTES_PER_CLOCK = 32
"""Of one multiprocessor, when all read."""
LAUNCH_S = 2e-6
"""Between the starts of two kernels of a stream, the first and last program's ramp included."""
SCHEDULERS = 4
"""Of a multiprocessor: each issues a warp's instruction per clock."""
BLOCK_SHARED_BYTES = 1024
"""That the driver takes of each program's shared memory, from sm_80 on."""
_WARP = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A card: rates as a sheet or a measurement has them.

    ``flop_per_s`` of products by precision: dense, at the clock given.
    """

    name: str
    multiprocessors: int
    clock_hz: float
    bytes_per_s: float
    flop_per_s: Mapping[str, float]
    shared_bytes: int
    """Of a multiprocessor."""
    registers: int
    """Of a multiprocessor, of 32 bits."""
    threads: int
    """Most of a multiprocessor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A kernel's launch: ``programs``, each with ``turns`` of a loop that multiplies ``flop`` and
    fetches ``fetched_bytes`` a turn; ``moved_bytes`` at least, over all."""

    programs: int
    moved_bytes: int
    turns: int = 0
    flop: int = 0
    fetched_bytes: int = 0
    warps: int = 0
    """That turn the loop; 0: all of a program."""
    kernels: int = 1
    """Launched one after another; those behind the first add what it computed in parts."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds, and what takes them: ``instructions``, ``products``, ``cache``, ``latency`` or
    ``memory``."""

    seconds: float
    bound: str


def resident(code: KernelCode, sheet: Sheet) -> int:
    """Programs that a multiprocessor holds at once."""
    threads = _WARP * code.warps
    # Registers are given to warps in units of 256.
    registers = math.ceil(code.registers * _WARP / 256) * 256 * code.warps
    return max(
        1,
        min(
            sheet.registers // max(1, registers),
            sheet.shared_bytes // (code.shared_bytes + BLOCK_SHARED_BYTES),
            sheet.threads // threads,
        ),
    )


def predict(code: KernelCode, launch: Launch, sheet: Sheet) -> Prediction:
    """How long one launch takes."""
    clock = sheet.clock_hz
    at_once = resident(code, sheet)
    slots = sheet.multiprocessors * at_once
    memory_s = launch.moved_bytes / sheet.bytes_per_s
    issued_s = code.warps * code.instructions / SCHEDULERS / clock
    if not launch.turns:
        busy_s, bound = launch.programs * issued_s / sheet.multiprocessors, "instructions"
    else:
        turn = {
            "instructions": (launch.warps or code.warps) * code.turn_instructions
            / SCHEDULERS / clock,
            "products": launch.flop * sheet.multiprocessors
            / sheet.flop_per_s[code.precision],
            "cache": launch.fetched_bytes / L2_BYTES_PER_CLOCK / clock,
        }  # fmt: skip
        bound, of_program_s = max(turn.items(), key=lambda item: item[1])
        waiting_s = LATENCY_CLOCKS / clock / max(1, code.stages - 1)

        def wave_s(programs: int) -> float:
            """Of so many programs on a multiprocessor."""
            turns_s = launch.turns * max(programs * of_program_s, waiting_s)
            return turns_s + programs * issued_s + 2 * LATENCY_CLOCKS / clock

        waves, rest = divmod(launch.programs, slots)
        last = math.ceil(rest / sheet.multiprocessors)
        busy_s = waves * wave_s(at_once) + (wave_s(last) if last else 0.0)
        if waiting_s > at_once * of_program_s:
            bound = "latency"
    if memory_s >= busy_s:
        busy_s, bound = memory_s, "memory"
    return Prediction(busy_s + launch.kernels * LAUNCH_S, bound)

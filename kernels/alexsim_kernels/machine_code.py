"""What a kernel's machine code says of it, by the tools that Triton brings."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import triton
from triton import knobs

_PRODUCTS = ("UTCHMMA", "HGMMA", "HMMA", "FFMA2", "FFMA")
"""Instructions that multiply, those of tensor cores first: Blackwell's, Hopper's, those of all; and
on ordinary lanes two at a time, or one."""
_LINE = re.compile(
    r"/\*(?P<at>[0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?(?P<word>[A-Z][A-Z0-9]*)"
    r"(?:[^;]*?(?P<to>0x[0-9a-f]+)\s*;)?"
)
_VERSION = "2"
"""Of what is read: results that are kept by another are not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineCode:
    """Fields of ``alexsim_kernels.code.KernelCode`` that the machine code has."""

    registers: int
    spills: int
    products: str
    instructions: int
    turn_instructions: int
    turn_products: int


def read(code: bytes) -> MachineCode:
    """What machine code says.

    Disassembling takes longer than compiling does with Triton's cache: so its result is kept.
    """
    content = hashlib.sha256(_VERSION.encode() + code).hexdigest()
    kept = Path(knobs.cache.dir) / "alexsim" / f"{content}.json"
    try:
        return MachineCode(**json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        made = _disassembled(code)
    kept.parent.mkdir(parents=True, exist_ok=True)
    beside = kept.with_name(f"{kept.name}.{os.getpid()}")
    beside.write_text(json.dumps(asdict(made), allow_nan=False), encoding="utf-8")
    beside.replace(kept)
    return made


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _disassembled(code: bytes) -> MachineCode:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        usage, text = (
            subprocess.run(
                [_tool("cuobjdump"), option, file.name], capture_output=True, text=True, check=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    registers = re.search(r"REG:(\d+)", usage)
    return parsed(text, int(registers[1]) if registers else 0)


def parsed(text: str, registers: int) -> MachineCode:
    """What a disassembly says: a line of it has an address, a mnemonic, and a branch's target."""
    places: dict[int, int] = {}
    words: list[str] = []
    branches: list[tuple[int, int]] = []
    for line in _LINE.finditer(text):
        places[int(line["at"], 16)] = len(words)
        if line["word"] == "BRA" and line["to"]:
            branches.append((len(words), int(line["to"], 16)))
        words.append(line["word"])
    products = next((name for name in _PRODUCTS if name in words), "")
    # A loop is what lies between a branch and the earlier place that it leads to. Loops around
    # the one that multiplies take a tile, or a warp's role, a turn.
    loops = [(places[to], at + 1) for at, to in branches if places.get(to, at) < at]
    multiplying = [loop for loop in loops if products in words[slice(*loop)]]
    inner = [
        words[first:last]
        for first, last in multiplying
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in multiplying)
    ]
    turn = max(inner, key=lambda loop: (loop.count(products), -len(loop)), default=[])
    turn_products = turn.count(products) if products else 0
    return MachineCode(
        registers=registers,
        spills=words.count("LDL") + words.count("STL"),
        products=products,
        instructions=len(words),
        turn_instructions=len(turn) if turn_products else 0,
        turn_products=turn_products,
    )

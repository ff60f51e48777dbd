"""Sizes in bytes: reading what a user types, printing what a user reads."""

from __future__ import annotations

import re

from alexsim.errors import AlexsimError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_SUFFIXES = {"B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    # A "3GB" card holds 3 GiB, on its box and in nvidia-smi: GB, GiB and G mean the same here.
    _SUFFIXES |= {f"{_letter}{tail}": 1024**_power for tail in ("", "B", "IB")}


def parse_bytes(text: str) -> int:
    """Bytes in a size such as ``3GB``, ``1.5GiB``, ``800MB`` or ``3221225472B``.

    Raises:
        AlexsimError: ``text`` is not a positive size with its unit: a bare number may mean any.
    """
    match = re.fullmatch(r"\s*([0-9]{1,30}(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if match and not match[2]:
        raise AlexsimError(f"a size needs its unit, as in 3GB, 800MB or 4096B; got {text!r}")
    unit = _SUFFIXES.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise AlexsimError(f"not a size: {text!r}; write a number and a unit, as in 3GB or 800MB")
    size = int(float(match[1]) * unit)
    if size <= 0:
        raise AlexsimError(f"a size must be at least one byte, got {text!r}")
    return size


def format_bytes(size: float) -> str:
    """Print a size as a person reads it: ``73.5 MiB``, ``3.00 GiB``."""
    if abs(size) >= GIB:
        return f"{size / GIB:.2f} GiB"
    if abs(size) >= 100 * KIB:
        return f"{size / MIB:.1f} MiB" if abs(size) >= 100 * MIB else f"{size / MIB:.2f} MiB"
    return f"{size / KIB:.1f} KiB" if abs(size) >= KIB else f"{size:.0f} B"


def mib(size: float) -> str:
    """Print a size in MiB with one decimal, without the unit, as in tables."""
    return f"{size / MIB:,.1f}"

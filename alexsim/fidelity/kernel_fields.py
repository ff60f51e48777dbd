"""What columns of a row of a measured kernel mean: card, clock, numbers, precision, version."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from alexsim.costs.cost import Precision
from alexsim.fidelity.kernel_rows import KernelRow
from alexsim.fidelity.rows import device_named
from alexsim.machine.device import Device, load_device
from alexsim.machine.sheet import Quantity


class Unlike(Exception):  # noqa: N818 - a reason, not a failure
    """Why a row is no call that can be predicted."""


_CLOCKS = (
    r"application clocks (?P<mhz>\d+) MHz",
    r"authors: (?P<mhz>\d+) MHz",
    r"boost level \((?P<mhz>\d+) MHz\)",
    r"SM (?P<mhz>\d+) MHz",
)


@lru_cache(maxsize=512)
def device_of(name: str, clock_notes: str) -> Device:
    """The sheet of a row's card, at the clock that the row states.

    Raises:
        Unlike: there is no sheet.
    """
    sheet = device_named(name)
    if not sheet:
        raise Unlike(f"no data sheet: {name}")
    device = load_device(sheet)
    stated = next((m for rule in _CLOCKS if (m := re.search(rule, clock_notes))), None)
    if stated is None:
        return device
    source = "the row's card at its stated clock"
    clock = Quantity(value=float(stated["mhz"]) * 1e6, kind="measured", source=source)
    return replace(device, clock_hz=clock)


def extra_of(text: str) -> dict[str, Any]:
    """The column ``extra``, JSON.

    Raises:
        Unlike: it is not.
    """
    try:
        extra = json.loads(text) if text else {}
    except ValueError as error:
        raise Unlike(f"extra is not JSON: {text[:40]}") from error
    return extra if isinstance(extra, dict) else {}


def amount(extra: Mapping[str, Any], key: str) -> float:
    """A positive number of ``extra``.

    Raises:
        Unlike: there is none.
    """
    value = extra.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unlike(f"{key} are not stated")
    if not 0 < value < math.inf:
        raise Unlike(f"{key} must be above 0: {value}")
    return float(value)


def pad_ends(extra: Mapping[str, Any]) -> list[int]:
    """How much wider the pads at the ends of height and width are.

    Raises:
        Unlike: it is no whole number, nor a pair of them.
    """
    end = extra.get("pad_end", 0)
    ends = end if isinstance(end, list) else [end, end]
    if len(ends) != 2 or not all(type(each) is int and each >= 0 for each in ends):
        raise Unlike(f"pad_end must be a whole number, or two: {end}")
    return ends


def number_of(row: KernelRow, column: str) -> int:
    """A whole number of a column.

    Raises:
        Unlike: there is none.
    """
    text = row.entry[column]
    try:
        value = float(text)
    except ValueError:
        raise Unlike(f"{column} is not stated: {row.op}") from None
    if not (math.isfinite(value) and value >= 0):
        raise Unlike(f"{column} must be a finite number: {text}")
    return int(value)


def precision_of(row: KernelRow) -> Precision:
    """Of the arithmetic or, where it is less, of the storage."""
    words = row.precision
    # Storage in half precision halves the bytes; arithmetic in half precision its own rate.
    return "fp16" if words.startswith(("fp16", "bf16")) or "in, tensor cores" in words else "fp32"


def version_of(row: KernelRow) -> float:
    """cuDNN's version, as a number; of CUDA where there is no cuDNN; 0 if neither is stated."""
    if m := re.search(r"cudnn v?(\d+)(?:\.(\d+))?", row.library):
        return 8.9 if m[1] == "8902" else float(f"{m[1]}.{m[2] or 0}")
    if m := re.search(r"(?:cublas |CUDA |cuda )(\d+)(?:\.(\d+))?", row.library):
        return float(f"{m[1]}.{m[2] or 0}") if float(m[1]) < 20 else 12.1
    return 0.0

"""Numbers as a reader of the page sees them: three digits that count, and a unit."""

from __future__ import annotations

import math

from alexsim.units import MIB

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SHORT = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def digits(value: float, count: int = 3) -> str:
    """``count`` significant digits, thousands apart: 1,235  81.5  0.0023; NaN is named."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}infinite"
    if not value:
        return "0"
    # Rounded first: 0.9996 has as many places as 1.00.
    rounded = float(f"{value:.{count}g}")
    places = max(0, count - 1 - math.floor(math.log10(abs(rounded))))
    return f"{value:,.{min(places, 8)}f}"


def seconds(value: float) -> str:
    """A duration: 1.23 s, 81.5 ms, 8.20 µs."""
    if not value:
        return "0 s"
    for unit, name in _SHORT:
        if abs(value) >= 0.9995 * unit:
            return f"{digits(value / unit)} {name}"
    return f"{digits(value / 1e-9)} ns"


def milliseconds(value: float | None) -> str:
    """Milliseconds without the unit, as in tables; empty for None."""
    if value is None:
        return ""
    return digits(1e3 * value) if value else "0"


def scaled(value: float, unit: str) -> str:
    """A quantity with a decimal prefix: 195 GFLOP/s, 43.3 GB/s."""
    for size, prefix in _STEPS:
        if abs(value) >= 0.9995 * size:
            return f"{digits(value / size)} {prefix}{unit}"
    return f"{digits(value)} {unit}"


def percent(share: float) -> str:
    """A share of one: 12 %, 3.4 %, 0.2 %; NaN is named."""
    value = 100 * share
    if not math.isfinite(value):
        return digits(value)
    if 0 < value < 0.05:
        return "<0.1 %"
    return f"{value:.0f} %" if abs(value) >= 9.95 else f"{value:.1f} %"


def in_mib(size: float) -> str:
    """Bytes in MiB without the unit, as in tables."""
    value = size / MIB
    return f"{value:,.1f}" if abs(value) >= 9.95 or not value else digits(value, 2)


def ratio(value: float | None) -> str:
    """A quotient: 5.42, 0.184; empty for None."""
    return "" if value is None else digits(value)

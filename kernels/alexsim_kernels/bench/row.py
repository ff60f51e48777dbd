"""A line of what a bench measured; imports nothing, so that its readers start fast."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing that was checked, timed or read, with what it is compared with; unset is unknown.

    ``error`` is a relative norm against float64 and ``limit`` the most that it may be. Times are
    medians in milliseconds, with their 20 % and 80 % quantiles: ours, the best of the others',
    the floor that this card's own ceilings set, and what was predicted before. Other figures have
    a ``value`` in a ``unit``, and what the plan or a sheet expects it to be. ``failed`` says in a
    line why there is no figure. ``detail`` is for programs.
    """

    op: str
    precision: str = ""
    batch: int | None = None
    error: float | None = None
    limit: float | None = None
    ours_ms: float | None = None
    ours_20_ms: float | None = None
    ours_80_ms: float | None = None
    other: str = ""
    other_ms: float | None = None
    floor_ms: float | None = None
    predicted_ms: float | None = None
    value: float | None = None
    unit: str = ""
    expected: float | None = None
    text: str = ""
    failed: str = ""
    detail: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Fields that are set, for JSON."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    def line(self) -> str:
        """As a line of text."""
        words = [f"{self.op:24s} {self.precision:7s} {self.batch or '':>5}"]
        if self.failed:
            return f"{words[0]}  failed: {self.failed}"
        if self.error is not None:
            words.append(f"error {self.error:.0e}")
        if self.ours_ms is not None:
            words.append(f"{self.ours_ms:8.3f} ms")
            if self.other_ms is not None:
                words.append(f"{self.other} {self.other_ms:8.3f}  {self.ratio:5.2f} x")
            if self.floor_ms is not None:
                words.append(f"floor {self.floor_ms:7.3f}")
        if self.predicted_ms is not None:
            words.append(f"predicted {self.predicted_ms:7.3f}")
        if self.value is not None:
            words.append(_figure(self.value, self.unit))
            if self.expected is not None:
                words.append(f"of {_figure(self.expected, self.unit)}")
        if self.text:
            words.append(self.text)
        return "  ".join(words)

    @property
    def ratio(self) -> float | None:
        """How many times ours is as fast as the best of the others."""
        if self.ours_ms is None or self.other_ms is None:
            return None
        return self.other_ms / self.ours_ms


def _figure(value: float, unit: str) -> str:
    """A value with its unit: rates in powers of a thousand, whole numbers of bytes."""
    if unit == "bytes":
        return f"{value:,.0f} bytes"
    if unit in ("B/s", "FLOP/s"):
        power, prefix = next(
            (step for step in ((12, "T"), (9, "G"), (6, "M")) if abs(value) >= 10.0 ** step[0]),
            (0, ""),
        )
        return f"{value / 10.0**power:.4g} {prefix}{unit}"
    return f"{value:.6g} {unit}".rstrip()


def row_of(document: dict[str, Any]) -> Row:
    """The row of a document; other keys, such as the part that it comes from, are left."""
    return Row(**{name: document[name] for name in Row.__slots__ if name in document})

"""The table that is printed last: what failed first, then a few lines of each part."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from alexsim_kernels.bench.card.results import Entry, line_of, name_of, wrong
from alexsim_kernels.bench.card.runner import Outcome
from alexsim_kernels.bench.row import Row

WIDTH = 100
_CHARACTERS = 10_000
"""Where only the end of the output is kept, all of it is."""


def summary(
    outcomes: Sequence[Outcome], entries: Sequence[Entry], head: Sequence[str], tail: Sequence[str]
) -> str:
    """Text of some 10,000 characters; lines on rows and parts have at most 100."""
    for most in (12, 8, 5, 3, 1):
        failed = _failures(outcomes, entries, 2 * most)
        parts = (line for outcome in outcomes for line in _part(outcome, entries, most))
        lines = [*map(_cut, failed), *head, *map(_cut, parts), *tail]
        text = "\n".join(lines) + "\n"
        if len(text) <= _CHARACTERS:
            break
    return text


def _cut(line: str) -> str:
    return " ".join(line.splitlines())[:WIDTH].rstrip()


def all_rows(entries: Iterable[Entry], outcomes: Sequence[Outcome]) -> str:
    """Every row of a part, a line each; what was read beside them is in the documents."""
    parts = {outcome.part.name for outcome in outcomes if not outcome.part.beside}
    return "".join(f"{e.part:10s} {e.row.line()}\n" for e in entries if e.part in parts)


def failures(outcomes: Sequence[Outcome], entries: Sequence[Entry]) -> list[str]:
    """Lines on parts that failed, then on rows that are wrong."""
    lines = [f"{each.part.title}: {each.failed}" for each in outcomes if each.failed]
    told = {(each.part.name, each.failed) for each in outcomes}
    lines += [
        f"{entry.part}: {name_of(entry.row)}: {bad}"
        for entry in entries
        if (bad := wrong(entry.row)) and (entry.part, bad) not in told
    ]
    return lines


def _failures(outcomes: Sequence[Outcome], entries: Sequence[Entry], most: int) -> list[str]:
    lines = failures(outcomes, entries)
    if not lines:
        return ["nothing failed"]
    more = [f"  and {len(lines) - most} more"] if len(lines) > most else []
    return [f"what failed ({len(lines)}):", *(f"  {line}" for line in lines[:most]), *more]


def _part(outcome: Outcome, entries: Sequence[Entry], most: int) -> Iterator[str]:
    part = outcome.part
    rows = [entry.row for entry in entries if entry.part == part.name]
    yield outcome.line()
    right = [row for row in rows if not wrong(row)]
    if part.beside:
        yield from _beside([e for e in entries if e.part == part.name and not wrong(e.row)])
        return
    if len(right) <= most:
        yield from _lines(right)
    else:
        yield from _errors(right)
        yield from _times(right)
        others = [row for row in right if row.ours_ms is None and row.error is None]
        yield from _lines(others[:most])
        if len(others) > most:
            yield f"  and {len(others) - most} more"
    yield from _spread(
        "measured over predicted", right, lambda row: _over(row.ours_ms, row.predicted_ms)
    )


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    width = max((len(name_of(row)) for row in rows), default=0)
    for row in rows:
        timed = row.ours_ms is not None
        yield f"  {line_of(replace(row, error=None) if timed else row, width)}"


def _errors(rows: Sequence[Row]) -> Iterator[str]:
    checked = [(row.error / row.limit, row) for row in rows if row.error is not None and row.limit]
    if checked:
        share, row = max(checked, key=lambda pair: pair[0])
        yield f"  {len(checked)} right, at most {share:.2f} of the error allowed: {name_of(row)}"


def _times(rows: Sequence[Row]) -> Iterator[str]:
    for precision in dict.fromkeys(row.precision for row in rows):
        of = [row for row in rows if row.precision == precision]
        name = f"{precision:6s} " if precision else ""
        yield from _spread(f"{name}others' time over ours", of, lambda row: row.ratio)
        yield from _spread(
            f"{name}floor over ours", of, lambda row: _over(row.floor_ms, row.ours_ms)
        )


def _spread(name: str, rows: Sequence[Row], ratio: Callable[[Row], float | None]) -> Iterator[str]:
    """Geometric mean, and the rows at both ends."""
    known = sorted(
        ((value, at) for at, row in enumerate(rows) if (value := ratio(row)) is not None and value),
    )
    if known:
        (low, first), (high, last) = known[0], known[-1]
        mean = math.exp(statistics.fmean(math.log(value) for value, _ in known))
        text = f"  {name}: {mean:.2f} ({len(known)} rows)"
        if len(known) > 1:
            text += f", {low:.2f} {name_of(rows[first])}, {high:.2f} {name_of(rows[last])}"
        yield text


def _over(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _beside(entries: Sequence[Entry]) -> Iterator[str]:
    """Figures that were read while each part was at work: medians, and both ends."""
    for part in dict.fromkeys(entry.during for entry in entries if entry.during):
        figures: dict[str, list[float]] = {}
        for entry in entries:
            if entry.during == part:
                for name, value in _figures(entry.row):
                    figures.setdefault(name, []).append(value)
        if figures:
            read = (
                f"{name} {statistics.median(values):.4g} ({min(values):.4g}..{max(values):.4g})"
                for name, values in figures.items()
            )
            yield f"  {part}: {', '.join(read)}"


def _figures(row: Row) -> Iterator[tuple[str, float]]:
    if row.value is not None:
        yield f"{row.op} {row.unit}".strip(), row.value
    for name, value in (row.detail or {}).items():
        if isinstance(value, int | float):
            yield name, float(value)

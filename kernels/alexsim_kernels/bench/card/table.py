"""The table that is printed last: what failed first, then a few lines of each part."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from alexsim_kernels.bench.card.results import Entry, line_of, name_of, wrong
from alexsim_kernels.bench.card.runner import Outcome
from alexsim_kernels.bench.row import Row

WIDTH = 100
_READ = {"power_w": "W", "sm_mhz": "MHz", "temperature_c": "C"}
"""What rows of a card's state have in their detail, and in which units."""
_CHARACTERS = 10_000
"""Where only the end of the output is kept, all of it is."""


def summary(
    outcomes: Sequence[Outcome], entries: Sequence[Entry], head: Sequence[str], tail: Sequence[str]
) -> str:
    """Text of some 10,000 characters; lines on rows and parts have at most 100."""
    for most in (24, 16, 12, 8, 5, 3, 1):
        failed = _failures(outcomes, entries, max(most, 4))
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
        others = [row for row in right if not _is_summed_up(row)]
        yield from _lines(others[:most])
        if len(others) > most:
            yield f"  and {len(others) - most} more"
    yield from _spread(
        "measured over predicted", right, lambda row: _over(row.ours_ms, row.predicted_ms)
    )


def _is_summed_up(row: Row) -> bool:
    return bool((row.error is not None and row.limit) or row.ratio or row.floor_ms)


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
    """What was read of cards while each part was at work, or the last that was said."""
    read = [entry for entry in entries if any(name in (entry.row.detail or {}) for name in _READ)]
    if entries and not read:
        yield from _lines([entries[-1].row])
    places = dict.fromkeys((entry.during, _detail(entry).get("card")) for entry in read)
    several = len({card for _, card in places}) > 1
    for during, card in places:
        of = [_detail(e) for e in read if (e.during, _detail(e).get("card")) == (during, card)]
        figures = [f"{during or 'between parts'}{f' card {card}' if several else ''}:"]
        for name, unit in _READ.items():
            if values := [each[name] for each in of if isinstance(each.get(name), int | float)]:
                low, median, high = min(values), statistics.median(values), max(values)
                figures.append(f"{median:.0f} {unit} ({low:.0f} to {high:.0f})")
        held = Counter(reason for each in of for reason in each.get("throttle") or ())
        figures += [f"{reason} {count} of {len(of)}" for reason, count in held.items()]
        yield "  " + " ".join(figures[:1]) + " " + ", ".join(figures[1:])


def _detail(entry: Entry) -> dict[str, Any]:
    return entry.row.detail or {}

"""How far a benchmark is, on stderr: a bar on a terminal, lines in a pipe or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alexsim.command.options import bar_console, counting

if TYPE_CHECKING:
    from alexsim.bench.runner import Progress, Selection

_EVERY_S = 10.0
"""Shortest time between two lines: a log is read from end to end."""
_CASE_S = (5, 30)
"""A case of 8 images, on two busy cores: 6 s of a small network, 21 s of AlexNet on average."""


@contextmanager
def measuring(selection: Selection, runs: int = 1) -> Iterator[Progress]:
    """Say what will be done and roughly how long it takes; then what a run may report to.

    Counted figures alone take a second: nothing is said of them.
    """
    if begin := _beginning(selection, runs):
        _say(begin)
    started = last = time.monotonic()
    first, lines = True, not bar_console()[1]
    with counting("measuring", 100) as done:

        def report(what: str, count: int, total: int) -> None:
            nonlocal first, last
            done(100 * count // max(1, total))
            now = time.monotonic()
            if lines and (first or now - last >= _EVERY_S):
                first, last = False, now
                _say(f"{what} ({count} of {total} done), after {now - started:.0f} s")

        yield report


def _beginning(selection: Selection, runs: int) -> str:
    """What will be measured, in which order; empty if that takes no time."""
    kernels, begin = selection.counted and selection.kernels, ""
    if selection.timed:
        from alexsim.bench.runner import case_names

        cases = len(case_names(selection))
        low, high = (cases * runs * seconds / 60 for seconds in _CASE_S)
        begin = (
            f"{cases} cases x {runs} run{'s' * (runs > 1)}, roughly {_CASE_S[0]} to {_CASE_S[1]} s"
            f" each: {low:.1f} to {high:.0f} minutes (--only counted: a second)"
        )
    first = "counted figures" * selection.counted + " with the Triton kernels" * kernels
    return ", then ".join(filter(None, (first, begin))) if kernels or begin else ""


def _say(line: str) -> None:
    sys.stderr.write(f"alexsim: {line}\n")
    sys.stderr.flush()

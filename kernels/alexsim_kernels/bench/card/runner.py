"""Parts one after another, each in its box of time, with what runs beside them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty
from typing import Any

from alexsim_kernels.bench.card.children import Child, Inbox
from alexsim_kernels.bench.card.parts import Part
from alexsim_kernels.bench.card.results import Entry, Results, line_of, wrong
from alexsim_kernels.bench.row import Row, row_of

_END_S = 5.0
"""Kept for the end: the last part may have to be killed, and the table is written."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(Exception):
    """A signal asks for the end."""


class NoCardError(Exception):
    """There is no card; the message says what was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a part went."""

    part: Part
    rows: int = 0
    box_s: float = 0.0
    took_s: float = 0.0
    cut: bool = False
    """Its box ended first."""
    failed: str = ""
    """Why it ended before it was done, or did not begin."""

    def line(self) -> str:
        """As a line of text."""
        if not self.box_s:
            return f"{self.part.title}: {self.failed}"
        rows = f"{self.rows} row{'' if self.rows == 1 else 's'}"
        box = "" if self.part.beside else f" of {self.box_s:.0f}"
        how = self.failed or ("its box ended" if self.cut else "")
        return f"{self.part.title}: {rows} in {self.took_s:.0f}{box} s{'; ' if how else ''}{how}"

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "part": self.part.name,
            "letter": self.part.letter,
            "rows": self.rows,
            "box_s": round(self.box_s, 2),
            "took_s": round(self.took_s, 2),
            "cut": self.cut,
            "failed": self.failed,
        }


def box_s(left_s: float, part: Part, after: Sequence[Part]) -> float:
    """A part's seconds: its share of what is left, so that what others did not use is shared."""
    return max(0.0, left_s) * part.share / (part.share + sum(other.share for other in after))


class Runner:
    """Runs parts, and has what they yielded.

    Args:
        parts: at least one that is not beside the others.
        probe: yields a row ``card`` if there is one; None in a rehearsal, which needs none.
        say: takes a line of progress.
        changed: called when a part has ended.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        minutes: float,
        probe: Part | None,
        environment: Mapping[str, str],
        results: Results,
        say: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.entries: list[Entry] = []
        self.outcomes: list[Outcome] = []
        self.signal = 0
        """The number of the signal that asked for the end."""
        self._parts = [part for part in parts if not part.beside]
        self._beside = [part for part in parts if part.beside]
        self._probe = probe
        self._environment = environment
        self._results = results
        self._say = say
        self._changed = changed
        self._inbox: Inbox = Inbox()
        self._children: list[Child] = []
        self._current: Part | None = None
        self._began = time.monotonic()
        self._total_s = 60 * minutes

    @property
    def at_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds until all must have ended."""
        return self._total_s - min(_END_S, 0.1 * self._total_s) - self.at_s

    def run(self) -> None:
        """Run all of them.

        Raises:
            NoCardError: nothing was run.
            StoppedError: a signal came; rows and outcomes until then are there.
        """
        with self._signals():
            try:
                probe = self._begin(self._probe) if self._probe else None
                following = self._begin(self._parts[0])
                beside = [self._begin(part) for part in self._beside]
                if probe:
                    self._find_card(probe)
                for child in beside:
                    child.tell(self._job(self.left_s))
                for at in range(len(self._parts)):
                    following = self._run(following, self._parts[at + 1 :])
            finally:
                self._end_all()

    def _find_card(self, probe: Child) -> None:
        probe.tell(self._job(self.left_s))
        self._until(lambda: False, probe, self.at_s + self.left_s / 2)
        self._end(probe)
        if not self.entries:
            raise NoCardError(probe.failed or probe.last_words)

    def _run(self, child: Child, rest: Sequence[Part]) -> Child:
        """One part until its end; the process of the one after it, if there is one."""
        following, began = child, self.at_s
        latest = began + max(box_s(self.left_s, child.part, rest), self.left_s / 4)
        try:
            self._until(lambda: child.ready, child, latest)
        finally:
            started, box = self.at_s, box_s(self.left_s, child.part, rest)
        try:
            if child.ready:
                self._say(f"{child.part.title}: {box:.0f} s")
                self._current = child.part
                child.tell(self._job(box))
            if rest:
                # Its imports take no time of its own then.
                following = self._begin(rest[0])
            if child.ready:
                self._until(lambda: False, child, started + box)
        finally:
            self._note(child, over=child.over, box_s=box, took_s=self.at_s - started)
        return following

    def _begin(self, part: Part) -> Child:
        environment = dict(self._environment)
        if self._probe is None and part.interpreted:
            environment["TRITON_INTERPRET"] = "1"

        def log(line: str) -> None:
            self._results.log(part.name, self.at_s, line.rstrip("\n"))

        child = Child(part, self._inbox, log, environment)
        self._children.append(child)
        return child

    def _job(self, seconds: float) -> dict[str, Any]:
        ended = {part.name for part in self._parts}
        rows = [(e.part, e.row.document()) for e in self.entries if e.part in ended]
        return {"box_s": seconds, "rehearse": self._probe is None, "rows": rows}

    def _until(self, done: Callable[[], bool], child: Child, latest_s: float) -> None:
        """Hear all children until it is done, one has ended, or the time has come."""
        while not (done() or child.over) and self.at_s < latest_s:
            self._hear(min(0.2, latest_s - self.at_s))
            if self.signal:
                raise StoppedError

    def _hear(self, seconds: float) -> bool:
        """The next that a child says; whether there was something."""
        try:
            child, said = self._inbox.get(timeout=max(0.0, seconds))
        except Empty:
            return False
        if child is None:
            self.signal = said["signal"]
            return True
        child.ready |= "ready" in said
        child.said_all |= "end" in said
        child.failed = said.get("failed", child.failed)
        if "row" in said:
            row = row_of(said["row"])
            self._keep(child.part, row, said=not child.part.beside or bool(wrong(row)))
        return True

    def _keep(self, part: Part, row: Row, *, said: bool) -> None:
        """Keep a row, and say it."""
        during = self._current.name if self._current and part.beside else ""
        entry = Entry(part=part.name, row=row, at_s=self.at_s, during=during)
        self.entries.append(entry)
        self._results.row(entry)
        bad = wrong(row)
        if said:
            mark = "WRONG: " if bad and not row.failed else ""
            self._say(f"{max(0.0, self.left_s):4.0f} s left  {part.name}: {mark}{line_of(row)}")

    def _end(self, child: Child) -> bool:
        by_itself = child.end()
        self._children.remove(child)
        while self._hear(0):
            pass
        return by_itself

    def _note(self, child: Child, *, over: bool, box_s: float, took_s: float) -> None:
        """End a part, and note how it went; ``over`` if it needs not be told to end."""
        part, by_itself = child.part, self._end(child)
        if over:
            failed = child.why_ended() if by_itself else child.failed
        elif self.signal:
            failed = "interrupted"
        else:
            failed = "" if child.ready else "its imports did not end"
        rows = sum(entry.part == part.name for entry in self.entries)
        if failed:
            self._keep(part, Row(op=part.name, failed=failed), said=part.beside)
        cut = not (over or part.beside)
        if not (failed or rows or part.beside):
            failed = "no row in its box" if cut else "no rows"
        self.outcomes.append(
            Outcome(part=part, rows=rows, box_s=box_s, took_s=took_s, cut=cut, failed=failed)
        )
        if not part.beside:
            self._say(self.outcomes[-1].line())
            self._current = None
        self._changed()

    def _end_all(self) -> None:
        """What runs beside the parts, and what a signal left."""
        over = [child for child in self._children if child.over]
        for child in self._children:
            child.terminate()
        for child in tuple(self._children):
            if child.part in self._beside and self.outcomes:
                took_s = self.at_s
                self._note(child, over=child in over, box_s=took_s, took_s=took_s)
            else:
                self._end(child)
        begun = {outcome.part for outcome in self.outcomes}
        self.outcomes += [
            Outcome(part=part, failed="not begun") for part in self._parts if part not in begun
        ]

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """What asks this process to end is said in the inbox, once; then it ends in peace."""
        # What is ignored stays so: nohup, and jobs in the background.
        heard = [each for each in _SIGNALS if signal.getsignal(each) != signal.SIG_IGN]

        def hear(number: int, _: object) -> None:
            for each in heard:
                signal.signal(each, signal.SIG_IGN)
            self._inbox.put((None, {"signal": number}))

        before = {number: signal.signal(number, hear) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

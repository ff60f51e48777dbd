"""Files of results: none of them stops a run that it cannot be written for."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from alexsim_kernels.bench.row import Row

ROWS, CARD, TUNED, TABLE, LOG = "rows.jsonl", "card.json", "tuned.json", "table.txt", "log.txt"
_LOG_CHARACTERS = 1 << 20
"""Of a part: what one says without end must not be in the way of what others say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row, where it comes from, and when it came."""

    part: str
    row: Row
    at_s: float
    during: str = ""
    """The part that was at work, if it was another."""

    def document(self) -> dict[str, Any]:
        """For JSON; ``row_of`` reads its row."""
        kept: dict[str, Any] = {"part": self.part, "at_s": round(self.at_s, 2)}
        if self.during:
            kept["during"] = self.during
        return kept | self.row.document()


def wrong(row: Row) -> str:
    """Why it is no good, or nothing."""
    if row.failed:
        return row.failed
    if row.error is not None and row.limit is not None and row.error > row.limit:
        return f"error {row.error:.1e}, at most {row.limit:.1e}"
    return ""


def name_of(row: Row) -> str:
    """What it is of."""
    return " ".join(filter(None, (row.op, row.precision, str(row.batch or ""))))


def line_of(row: Row, width: int = 0) -> str:
    """A row without the columns that long tables have; ``width`` of its name."""
    rest = replace(row, op="", precision="", batch=None).line()
    return f"{name_of(row):{width}s}  {' '.join(rest.split())}"


def earlier(folder: Path) -> list[str]:
    """Results that are there already."""
    return [
        name
        for name in (ROWS, CARD, TUNED, TABLE, LOG)
        if (folder / name).is_file() and (folder / name).stat().st_size
    ]


class Results:
    """A folder's files, written as far as they can be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.not_written: dict[str, str] = {}
        """Why not, by the names of files."""
        self._rows: list[str] = []
        self._open: dict[str, IO[str]] = {}
        self._logged: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._new = not folder.exists()
        with suppress(OSError):  # said of each file
            folder.mkdir(parents=True, exist_ok=True)
        for name in (ROWS, LOG):
            try:
                self._open[name] = (folder / name).open("a", encoding="utf-8")
            except OSError as error:
                self._failed(name, error)

    def row(self, entry: Entry) -> None:
        """Keep a row."""
        self._rows.append(_json(entry.document()))
        self._append(ROWS, self._rows[-1])

    def log(self, part: str, at_s: float, line: str) -> None:
        """Keep a line of what a part says; may be called by any thread."""
        with self._lock:
            before = self._logged[part]
            self._logged[part] += len(line)
            if before <= _LOG_CHARACTERS:
                cut = self._logged[part] > _LOG_CHARACTERS
                text = f"{line[:_LOG_CHARACTERS]} (cut here)" if cut else line
                self._append(LOG, f"{at_s:7.1f} {part}: {text}")

    def card(self, head: Mapping[str, Any]) -> None:
        """The document of the whole run so far, a row a line."""
        text = json.dumps(head, indent=1, allow_nan=False).removesuffix("\n}")
        self.write(CARD, f'{text},\n "rows": [\n  ' + ",\n  ".join(self._rows) + "\n ]\n}\n")

    def write(self, name: str, text: str) -> None:
        """A file, whole or not at all."""
        path = self.folder / name
        beside = path.with_name(f".{name}.{os.getpid()}")
        try:
            try:
                with beside.open("w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            self._failed(name, error)
        else:
            self.not_written.pop(name, None)

    def discard(self) -> None:
        """Leave nothing, as nothing was measured."""
        self._close()
        with suppress(OSError):
            for name in (ROWS, LOG):
                (self.folder / name).unlink(missing_ok=True)
            if self._new:
                self.folder.rmdir()

    def close(self) -> None:
        """What rows could not be added to a file may fit into one now."""
        self._close()
        if ROWS in self.not_written:
            self.write(ROWS, "".join(f"{row}\n" for row in self._rows))

    def written(self) -> Sequence[str]:
        """Files that are whole."""
        return [name for name in earlier(self.folder) if name not in self.not_written]

    def _close(self) -> None:
        with self._lock:
            for file in self._open.values():
                with suppress(OSError):
                    file.close()
            self._open.clear()

    def _append(self, name: str, line: str) -> None:
        if file := self._open.get(name):
            try:
                file.write(line + "\n")
                file.flush()
            except OSError as error:
                self._failed(name, error)
                del self._open[name]
                with suppress(OSError):  # it tries to write what it holds
                    file.close()

    def _failed(self, name: str, error: OSError) -> None:
        self.not_written[name] = error.strerror or str(error)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False)

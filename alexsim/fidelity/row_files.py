"""Files of published measurements: a reader for each kind of table, and the row that all give."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO, cast

from alexsim.errors import ProfileError, unreadable

COLUMNS = (
    "id", "network", "variant", "layer", "gpu", "n_gpus", "parallelism", "interconnect",
    "library", "precision", "batch_size", "pass", "input_size", "unit", "notes",
)  # fmt: skip
"""Of a table of layers and networks; ``value`` may be absent."""
NETWORK_COLUMNS = (
    "network", "framework", "device", "n_gpus", "batch", "precision", "pass", "notes",
)  # fmt: skip
"""Of a table of whole networks; ``id``, ``time_s`` and ``images_per_s`` may be absent."""
BUILT_IN = ("published", "fermi")
"""Tables that ship, by name."""
_PASSES = {
    "forward": "fwd",
    "backward": "bwd",
    "forward+backward": "fwd+bwd",
    "weight gradients only": "bwd-weight",
}
"""How a table of networks names passes, beside the other table's ``train-step``."""
_LEAST, _MOST, _DIGITS = 1e-9, 1e12, 9
"""Bounds of figures, and digits of counts: no measurement lies beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published figure and its conditions, as printed; ``value`` is None in a blind row."""

    id: str
    network: str
    variant: str = ""
    layer: str = ""
    gpu: str
    n_gpus: int
    parallelism: str = ""
    interconnect: str = ""
    library: str
    precision: str
    batch_size: str
    passes: str
    input_size: str = ""
    value: float | None
    unit: str
    notes: str
    source: str
    trust: str = ""


def read_rows(path: str) -> tuple[Row, ...]:
    """Rows of a CSV file, plain or gzipped, or of the built-in ``published``.

    Its header tells the kind of table.

    Raises:
        ProfileError: the file cannot be read, lacks a column, or holds a malformed number.
    """
    columns = header_of(path)
    kinds = ((COLUMNS, _figure), (NETWORK_COLUMNS, _step))
    row_of = next((row_of for needed, row_of in kinds if columns.issuperset(needed)), None)
    if row_of is None:
        raise ProfileError(f"{path} lacks {_lacking(columns)}")
    rows = []
    for line, entry in entries(path):
        entry.setdefault("id", f"line {line}")
        try:
            rows.append(row_of(entry))
        except ValueError as error:
            raise ProfileError(f"{path}, line {line}: {error} (row {entry['id']})") from error
    return tuple(rows)


def _lacking(columns: frozenset[str]) -> str:
    """What a header lacks of the kind of table that it is most like."""
    kinds = {"layers": COLUMNS, "whole networks": NETWORK_COLUMNS}
    near = max(kinds, key=lambda kind: len(columns.intersection(kinds[kind])) / len(kinds[kind]))
    missing = [name for name in kinds[near] if name not in columns]
    several = "s" * (len(missing) > 1)
    return f"the column{several} {', '.join(missing)} of a table of {near}: {','.join(kinds[near])}"


def header_of(path: str) -> frozenset[str]:
    """Columns of a table.

    Raises:
        ProfileError: the file cannot be read.
    """
    with closing(_lines(path)) as lines:
        return frozenset(csv.DictReader(lines).fieldnames or ())


def entries(path: str, needed: Iterable[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """A table's lines by column, with their numbers, one at a time.

    Raises:
        ProfileError: the file cannot be read, or lacks a column or a line's value.
    """
    reader = csv.DictReader(_lines(path))
    if missing := [column for column in needed if column not in (reader.fieldnames or ())]:
        raise ProfileError(f"{path} lacks the column {missing[0]}")
    for line, entry in enumerate(reader, start=2):
        if None in entry.values():
            raise ProfileError(f"{path}, line {line}: fewer columns than the header")
        yield line, entry


def _lines(path: str) -> Generator[str]:
    try:
        with _opened(path) as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            plain = cast("IO[bytes]", gzip.GzipFile(fileobj=stream)) if zipped else stream
            with io.TextIOWrapper(plain, encoding="utf-8") as lines:
                yield from lines
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ProfileError(unreadable(path, error)) from error


def _opened(path: str) -> IO[bytes]:
    if path in BUILT_IN:
        return (files("alexsim_profiles") / "measurements" / f"{path}.csv").open("rb")
    return Path(path).open("rb")


def digest(path: str) -> str:
    """SHA-256 of a table's text.

    Raises:
        ProfileError: the file cannot be read.
    """
    made = hashlib.sha256()
    for line in _lines(path):
        made.update(line.encode())
    return made.hexdigest()


def _figure(entry: dict[str, str]) -> Row:
    source = entry.get("source", "")
    trust = re.search(r"trust=(\w)", f"{source} {entry['notes']}")
    return Row(
        id=entry["id"],
        network=entry["network"],
        variant=entry["variant"],
        layer=entry["layer"],
        gpu=entry["gpu"],
        n_gpus=_whole(entry, "n_gpus"),
        parallelism=entry["parallelism"],
        interconnect=entry["interconnect"],
        library=entry["library"],
        precision=entry["precision"],
        batch_size=_digits(entry, "batch_size"),
        passes=entry["pass"],
        input_size=entry["input_size"],
        value=_value(entry, "value"),
        unit=entry["unit"],
        notes=entry["notes"],
        source=source,
        trust=trust[1] if trust else "",
    )


def _step(entry: dict[str, str]) -> Row:
    """A whole network's pass; ``batch`` counts the images of all cards, ``time_s`` is theirs."""
    seconds, rate = _value(entry, "time_s"), _value(entry, "images_per_s")
    by_rate = seconds is None and rate is not None
    return Row(
        id=entry["id"],
        network=entry["network"],
        gpu=entry["device"],
        n_gpus=_whole(entry, "n_gpus"),
        library=entry["framework"],
        precision=entry["precision"],
        batch_size=_digits(entry, "batch"),
        passes=_PASSES.get(entry["pass"], entry["pass"]),
        value=rate if seconds is None else seconds * 1e3,
        unit="images/s" if by_rate else "ms per batch",
        notes=entry["notes"],
        source=entry.get("source", ""),
    )


def _digits(entry: dict[str, str], column: str) -> str:
    """The text as printed; a number has few digits.

    Raises:
        ValueError: it has too many.
    """
    text = entry[column]
    if text.isascii() and text.isdigit() and len(text) > _DIGITS:
        raise ValueError(f"{column} must have at most {_DIGITS} digits, got {len(text)}")
    return text


def _whole(entry: dict[str, str], column: str) -> int:
    text = _digits(entry, column)
    if not (text.isascii() and text.isdigit() and int(text)):
        raise ValueError(f"{column} must be a positive whole number, got {text!r}")
    return int(text)


def _value(entry: dict[str, str], column: str) -> float | None:
    if not (text := entry.get(column)):
        return None
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"{column} must be positive and finite, got {text!r}")
    if not _LEAST <= value <= _MOST:
        raise ValueError(f"{column} must be between {_LEAST:g} and {_MOST:g}, got {text!r}")
    return value

"""What commands print: JSON documents, and files written whole or not at all."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexsim import strict_json
from alexsim.errors import AlexsimError
from alexsim.files import write_parts
from alexsim.names import STREAM_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alexsim.documents.base import Document
    from alexsim.report.chrome_trace import Clock


def print_json(document: Document | dict[str, Any]) -> None:
    """One JSON document on stdout."""
    print(json_text(document), end="")


def json_text(document: Document | dict[str, Any]) -> str:
    """A document as text; numbers that are not finite as ``strict_json`` has them."""
    tables = document if isinstance(document, dict) else document.document()
    return strict_json.json_text(tables, indent=2) + "\n"


def write_text(path: Path, text: str, said: str = "") -> None:
    """As ``write_bytes``.

    Raises:
        AlexsimError: the file cannot be written.
    """
    write_bytes(path, text.encode("utf-8", STREAM_ERRORS), said)


def write_bytes(path: Path, data: bytes, said: str = "") -> None:
    """A whole file or none; pipes and devices are written into.

    Args:
        path: where to.
        data: what.
        said: what it is, for a line on stderr; none where the command says it itself.

    Raises:
        AlexsimError: the file cannot be written.
    """
    _write(path, [data])
    tell_written(path, said)


def tell_written(path: Path, said: str) -> None:
    """A line on stderr, which ``--json`` leaves free: what stands in a file now."""
    if said:
        print(f"{path}: {said}", file=sys.stderr)


def write_lines(path: Path, lines: Iterable[str], said: str = "") -> None:
    """As ``write_text``, each line as it is made: nothing holds the whole text.

    Raises:
        AlexsimError: the file cannot be written.
    """
    _write(path, (line.encode("utf-8", STREAM_ERRORS) for line in lines))
    tell_written(path, said)


def _write(path: Path, parts: Iterable[bytes]) -> None:
    try:
        write_parts(path, parts)
    except OSError as error:
        raise AlexsimError(f"cannot write {path}: {error.strerror}") from error


def check_file(path: Path | None) -> Path | None:
    """Look at where a file is to be written, if anywhere, before anything is computed for it.

    Raises:
        AlexsimError: its folder is not there, or it is a folder.
    """
    if path is not None and path.is_dir():
        raise AlexsimError(f"cannot write {path}: it is a folder")
    if path is not None and not path.absolute().parent.is_dir():
        raise AlexsimError(f"cannot write {path}: there is no folder {path.parent}")
    return path


def check_format(option: str, path: Path | None, *endings: str) -> Path | None:
    """Likewise, where what is written has one format, of which the name must not say another; names
    without an ending, as those of pipes, say none.

    Raises:
        AlexsimError: it does, or the file cannot be written.
    """
    if path is not None and path.suffix.lower() not in ("", *endings):
        raise AlexsimError(f"{option} must name a {endings[0]} file, got {path}")
    return check_file(path)


_TABLES = (".csv", ".json", ".parquet")


def check_rows(option: str, path: Path) -> None:
    """Look at the name before anything is computed for it.

    Raises:
        AlexsimError: it says no format.
    """
    if path.suffix not in _TABLES:
        raise AlexsimError(f"{option} must name a file in {', '.join(_TABLES)}; got {path}")


def write_rows(
    path: Path, rows: Sequence[dict[str, Any]], document: Document | dict[str, Any], more: str = ""
) -> None:
    """Flat records as .csv or .parquet, or the document as .json, as the name says; how many, and
    what ``more`` has to say, goes to stderr.

    Raises:
        AlexsimError: the file cannot be written.
    """
    from alexsim.report.rows import csv_text, parquet_bytes

    said = f"{len(rows):,} {'row' if len(rows) == 1 else 'rows'}{more}"
    if path.suffix == ".parquet":
        write_bytes(path, parquet_bytes(rows), said)
    else:
        write_text(path, csv_text(rows) if path.suffix == ".csv" else json_text(document), said)


def check_picture(path: Path | None) -> Path | None:
    """Likewise, for a picture.

    Raises:
        AlexsimError: it does not end in .png, or its folder is not there.
    """
    if path is not None and path.suffix != ".png":
        raise AlexsimError(f"pictures go into a file that ends in .png; got {path}")
    return check_file(path)


def check_trace(path: Path | None) -> Path | None:
    """Likewise, for a trace.

    Raises:
        AlexsimError: it says neither a file nor a folder, or the file cannot be written.
    """
    if path is None or (path.is_dir() and not path.name.endswith(".json.gz")):
        return path
    if path.suffix and not path.name.endswith(".json.gz"):
        raise AlexsimError(f"--trace must end in .json.gz, or name a folder; got {path}")
    return check_file(path) if path.suffix else path


def write_trace(path: Path, clocks: Sequence[Clock], said: str = "") -> None:
    """One file with everything, or a folder with a file per clock and virtual GPU; ``said`` as of
    ``write_bytes``.

    Raises:
        AlexsimError: the name says neither, or it cannot be written.
    """
    from alexsim.report.chrome_trace import chrome_trace, packed, rank_traces

    check_trace(path)
    if path.name.endswith(".json.gz"):
        write_bytes(path, packed(chrome_trace(clocks)), said and f"{said}, for ui.perfetto.dev")
        return
    for clock in clocks:
        folder = path / clock.name.partition(":")[0]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AlexsimError(f"cannot write {folder}: {error.strerror}") from error
        for rank, document in enumerate(rank_traces(clock)):
            write_bytes(folder / f"rank{rank}.json.gz", packed(document))
    tell_written(path, said and f"{said}, a file per virtual GPU, for Holistic Trace Analysis")

"""A part's process: ``python -m alexsim_kernels.bench.card.part MODULE``.

It imports the module, says that it is ready, waits for its job in a line on stdin, and prints every
row as a line of JSON. That stdout is for rows alone: whatever else is printed, by libraries or by
what they start, goes to stderr.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import math
import os
import signal
import sys
import threading
import traceback
from typing import IO, Any, NoReturn

from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row, row_of

MARK = "ALEXSIM_CARD_CHILD"
"""Variable of the environment that whatever a part starts has too, so that it can be ended."""


def document_of(row: object) -> dict[str, Any]:
    """A row for strict JSON: one that holds something else than it may has failed."""
    if not isinstance(row, Row):
        return {"op": "row", "failed": f"a part yields rows, not a {type(row).__name__}"}
    wrong: list[str] = []
    try:
        document = {
            name: _allowed(value, name, wrong)
            for name, value in row.document().items()
            if _is_of_kind(value, name, wrong)
        }
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError) as error:
        document, wrong = {"op": str(row.op)}, [f"{error}"]
    if wrong:
        document["failed"] = "; ".join(filter(None, (document.get("failed"), *wrong)))
    return {"op": "row"} | {name: value for name, value in document.items() if value is not None}


def _is_of_kind(value: Any, name: str, wrong: list[str]) -> bool:
    # Fields are annotated "float | None", "int | None", "str" and "dict[str, Any] | None".
    kind = str(Row.__annotations__[name]).partition(" ")[0]
    allowed = {"float": int | float, "int": int, "str": str}.get(kind, dict)
    if isinstance(value, allowed):
        return True
    wrong.append(f"{name} is a {type(value).__name__}")
    return False


def _allowed(value: Any, name: str, wrong: list[str]) -> Any:
    """The value with None for numbers that are not finite, which are named in ``wrong``."""
    if isinstance(value, float) and not math.isfinite(value):
        wrong.append(f"{name} is {value}")
        return None
    if isinstance(value, dict):
        return {key: _allowed(kept, f"{name}.{key}", wrong) for key, kept in value.items()}
    if isinstance(value, list | tuple):
        return [_allowed(kept, f"{name}[{at}]", wrong) for at, kept in enumerate(value)]
    return value


def _apart() -> tuple[IO[str], IO[str]]:
    """Stdin and stdout that nothing else has: descriptor 0 is empty then, and 1 is stderr."""
    told, rows = (
        os.fdopen(os.dup(at), mode, encoding="utf-8") for at, mode in ((0, "r"), (1, "w"))
    )
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return told, rows


def _end_with(told: IO[str]) -> None:
    """Whoever began this has ended, when its stdin does."""
    told.read()
    os.killpg(0, signal.SIGKILL)


def _stop(*_: object) -> NoReturn:
    # As an exception, so that what the part opened is closed.
    sys.exit(128 + signal.SIGTERM)


def main(module: str) -> None:
    """Run a part."""
    told, rows = _apart()

    def send(document: dict[str, Any]) -> None:
        rows.write(json.dumps(document, allow_nan=False) + "\n")
        rows.flush()

    signal.signal(signal.SIGTERM, _stop)
    faulthandler.enable()
    try:
        part = importlib.import_module(module)
        send({"ready": True})
        line = told.readline()
        if not line:
            return
        if MARK in os.environ:
            threading.Thread(target=_end_with, args=(told,), daemon=True).start()
        job = json.loads(line)
        job["rows"] = tuple((name, row_of(row)) for name, row in job["rows"])
        for row in part.rows(Job(**job)):
            send({"row": document_of(row)})
    except Exception as error:  # a failure of one part never stops the rest
        traceback.print_exc()
        send({"failed": traceback.format_exception_only(error)[-1].strip().splitlines()[0]})
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])

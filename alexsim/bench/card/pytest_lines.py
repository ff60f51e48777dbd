"""A plugin of pytest: a line of JSON for every test that ended and every file that cannot be read.

    python -m pytest -p alexsim.bench.card.pytest_lines

The lines go to the file that ``ALEXSIM_TESTS`` names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LINES = "ALEXSIM_TESTS"


def pytest_collection_finish(session: Any) -> None:
    """How many there are, where this process has collected them: with workers, those have."""
    if session.items:
        _write({"collected": len(session.items)})


def pytest_collectreport(report: Any) -> None:
    """A file that cannot be imported."""
    if report.failed:
        _write({"test": report.nodeid or "collection", "failed": last_line(report.longreprtext)})


def pytest_runtest_logreport(report: Any) -> None:
    """A test that passed, was skipped, or failed in its body or on either side of it."""
    if report.failed:
        _write({"test": report.nodeid, "failed": last_line(report.longreprtext)})
    elif report.skipped:
        _write({"test": report.nodeid, "skipped": True})
    elif report.when == "call":
        _write({"test": report.nodeid, "seconds": round(report.duration, 2)})


def last_line(text: str) -> str:
    """What a failure says: the last line that pytest marks as the error's, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (errors or lines or ["no text"])[0][:300]


def _write(record: dict[str, Any]) -> None:
    # Workers of pytest-xdist report to the first process, which alone writes results.
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(os.environ[LINES]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

"""The tests that need a card, ``pytest -m gpu``: a row per file, and one per test that failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import alexsim
from alexsim.bench.card import pytest_lines
from alexsim_kernels.bench.card.job import Job
from alexsim_kernels.bench.row import Row

NEEDS = (
    "PIL", "annotated_types", "numpy", "platformdirs", "pydantic", "pytest", "rich", "safetensors",
    "simplejpeg", "torch", "triton", "typer",
)  # fmt: skip
_TESTS = Path(alexsim.__file__ or "").parents[1] / "tests"
_MARK = "pytest.mark.gpu"
_TIMED = ("test_calibrate.py",)
"""Files whose tests time what runs: not beside others."""
_PROCESSES = 4
_ENDING_S = 3.0
_LOOK_S = 0.2
_BEGUN_S = 15.0
"""Less than that is not worth beginning for."""


def rows(job: Job) -> Iterator[Row]:
    """Of the files whose tests may run side by side, then of those that time something."""
    if not _TESTS.is_dir():
        yield Row(op="tests", failed=f"there is no folder {_TESTS.name} beside alexsim")
        return
    if find_spec("pytest") is None:
        yield Row(op="tests", failed="pytest is not installed: pip install pytest")
        return
    files = [path for path in sorted(_TESTS.glob("test_*.py")) if _MARK in path.read_text("utf-8")]
    if job.rehearse:
        yield from _Run(files, ("--collect-only",), job).rows()
        return
    beside = [path for path in files if path.name not in _TIMED]
    several = ("-n", str(_PROCESSES)) if find_spec("xdist") else ()
    yield from _Run(beside, several, job).rows()
    yield from _Run([path for path in files if path not in beside], (), job).rows()


@dataclass(slots=True)
class _Run:
    """One run of pytest, as long as the box lasts."""

    files: Sequence[Path]
    options: Sequence[str]
    job: Job
    passed: Counter[str] = field(default_factory=Counter)
    """Tests by file, as ``skipped``, ``failed`` and ``seconds``."""
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def rows(self) -> Iterator[Row]:
        """As tests end; of files at the end."""
        if not self.files:
            return
        names = ", ".join(path.name for path in self.files)
        if self.job.left_s < _BEGUN_S and not self.job.rehearse:
            yield Row(op="tests", text=f"left out: {names}; {self.job.left_s:.0f} s are left")
            return
        with tempfile.TemporaryDirectory() as folder:
            lines, said = Path(folder) / "lines", Path(folder) / "said"
            lines.touch()
            with said.open("w") as to, lines.open(encoding="utf-8") as file:
                process = self._begun(lines, to)
                try:
                    while process.poll() is None and self.job.left_s > _ENDING_S:
                        yield from self._read(file.readlines())
                        time.sleep(_LOOK_S)
                finally:
                    code = _ended(process)
                yield from self._read(file.readlines())
            yield from self._of_files()
            if code is None:
                yield Row(op="tests", text="left out: those that the box had no time for")
            elif code not in (0, 1) and not self.failed:
                text = said.read_text("utf-8", errors="replace")
                yield Row(op="tests", failed=f"pytest: {pytest_lines.last_line(text)}")

    def _begun(self, lines: Path, to: Any) -> subprocess.Popen[bytes]:
        """Where modules are found is said once more: nothing need be installed. ``addopts`` of the
        project name plugins that need not be there."""
        command = [
            sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", pytest_lines.__name__,
            "-p", "no:cacheprovider", "-W", "default",
            "-o", "addopts=--import-mode=importlib --strict-markers",
            *self.options, *map(str, self.files),
        ]  # fmt: skip
        places = os.pathsep.join(dict.fromkeys(path for path in sys.path if path))
        # Whoever tests this does so with pytest, and tells its own processes so.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment = inherited | {"PYTHONPATH": places, pytest_lines.LINES: str(lines)}
        return subprocess.Popen(
            command, cwd=_TESTS.parent, env=environment, stdin=subprocess.DEVNULL, stdout=to,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def _read(self, lines: Sequence[str]) -> Iterator[Row]:
        for record in map(json.loads, lines):
            if "collected" in record:
                if self.job.rehearse:
                    yield Row(op="tests", value=record["collected"], unit="tests for a card")
                continue
            name = record["test"].partition("::")[0].rpartition("/")[2]
            if "failed" in record:
                self.failed[name] += 1
                yield Row(op=record["test"].rpartition("/")[2], failed=record["failed"])
            elif "skipped" in record:
                self.skipped[name] += 1
            else:
                self.passed[name] += 1
                self.seconds[name] += record["seconds"]

    def _of_files(self) -> Iterator[Row]:
        for path in self.files:
            counts = [
                f"{count} {what}"
                for what, of in (
                    ("passed", self.passed), ("failed", self.failed), ("skipped", self.skipped)
                )
                if (count := of[path.name])
            ]  # fmt: skip
            if counts:
                text = f"{', '.join(counts)}; {self.seconds[path.name]:.1f} s"
                yield Row(op=path.name, text=text)


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit code; None if it had to be told to end."""
    code = process.poll()
    if code is None:
        process.terminate()
        try:
            process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return code

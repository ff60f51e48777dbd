"""Processes of parts: begun, told their job, heard, and ended with all that they began."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from alexsim_kernels.bench.card.part import MARK
from alexsim_kernels.bench.card.parts import Part

GRACE_S = 2.0
"""Between being told to end and being killed."""

_numbers = count()

Inbox = SimpleQueue[tuple["Child | None", dict[str, Any]]]
"""What children say, as it comes; None says it of a signal that this process got."""


class Child:
    """A part's process.

    Args:
        log: what takes a line of its stderr.
        environment: in place of this process's variables.
    """

    def __init__(
        self, part: Part, inbox: Inbox, log: Callable[[str], None], environment: Mapping[str, str]
    ) -> None:
        self.part = part
        self.ready = False
        self.failed = ""
        self.said_all = False
        """Its stdout has ended."""
        self.last_words = ""
        self._mark = f"{os.getpid()}-{next(_numbers)}-{time.time_ns()}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "alexsim_kernels.bench.card.part", part.module],
            env={**environment, MARK: self._mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            process_group=0,  # a terminal's Ctrl-C is not for it
        )
        self._hears = threading.Thread(target=self._hear, args=(inbox,), daemon=True)
        self._logs = threading.Thread(target=self._log, args=(log,), daemon=True)
        self._hears.start()
        self._logs.start()

    def _hear(self, inbox: Inbox) -> None:
        with _stream(self._process.stdout) as stdout:
            for line in stdout:
                with suppress(ValueError):  # half a line, of a process that was killed
                    inbox.put((self, json.loads(line)))
        inbox.put((self, {"end": True}))

    def _log(self, log: Callable[[str], None]) -> None:
        dying = False
        with _stream(self._process.stderr) as stderr:
            for line in stderr:
                # Where it was is for the log; what was said before is why.
                dying |= line.startswith("Fatal Python error: ")
                if not dying:
                    self.last_words = line.strip() or self.last_words
                log(line)

    def tell(self, job: dict[str, Any]) -> None:
        """Its job; returns at once, however long the line is and whatever the process does."""

        def write() -> None:
            with suppress(OSError):  # it has ended, which is noticed otherwise
                stdin = _stream(self._process.stdin)
                stdin.write(json.dumps(job, allow_nan=False) + "\n")
                stdin.flush()

        threading.Thread(target=write, daemon=True).start()

    @property
    def over(self) -> bool:
        """Nothing more will be said, but for what is still to be heard."""
        return self.said_all or self._process.poll() is not None

    def terminate(self) -> None:
        """Tell it to end."""
        self._process.terminate()  # which sends nothing to a process that has ended

    def end(self) -> bool:
        """Tell it to end, then kill it and all that it began; whether it had ended by itself."""
        if self.said_all:  # it is about to
            self._wait()
        by_itself = self._process.poll() is not None
        if not by_itself:
            self.terminate()
            self._wait()
        self._kill()
        self._wait()  # one that the driver holds is left behind
        for thread in (self._hears, self._logs):
            thread.join(GRACE_S)
        with suppress(OSError):  # a job that it did not read
            _stream(self._process.stdin).close()
        return by_itself

    def _wait(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # Sessions of their own leave the group; what they inherit they keep.
        mark = f"{MARK}={self._mark}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def why_ended(self) -> str:
        """What was wrong with its end, or nothing; it has ended."""
        code = self._process.poll()
        if self.failed or not code:
            return self.failed
        names = {known.value: known.name for known in signal.Signals}
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"died of {names.get(-code, f'signal {-code}')}"
        return f"{how}; last: {self.last_words}" if self.last_words else how


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream

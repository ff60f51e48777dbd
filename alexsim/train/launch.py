"""A process per virtual GPU on this machine, begun by the first of them.

They meet through a file in a folder that only this user may read, and talk over the loopback
interface: nothing listens on any other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import IO

from alexsim.errors import TrainingError
from alexsim.processes.world import LAUNCHER, RENDEZVOUS, Place, arrival_file

_ENDING_S = 10.0
_LOOK_S = 0.05


class Others:
    """The other processes of a run; ends them when it is left.

    Args:
        size: processes, this process included.
        command: this process's command line, after ``alexsim``.
    """

    def __init__(self, size: int, command: Sequence[str]) -> None:
        self._size, self._command = size, command
        self._folder = ""
        self._running: list[subprocess.Popen[bytes]] = []
        self._files = contextlib.ExitStack()
        self._stderr: list[IO[bytes]] = []
        """What each of them has written to its stderr."""

    def __enter__(self) -> Place:
        self._folder = tempfile.mkdtemp(prefix="alexsim-")
        shared = {
            RENDEZVOUS: f"file://{self._folder}/meet",
            "WORLD_SIZE": str(self._size),
            "LOCAL_WORLD_SIZE": str(self._size),
            "GLOO_SOCKET_IFNAME": "lo",
            LAUNCHER: str(os.getpid()),
        }
        os.environ.update(shared)
        for rank in range(1, self._size):
            # A file without a name: nothing that clears old files away sees it.
            stderr = self._files.enter_context(tempfile.TemporaryFile())
            self._stderr.append(stderr)
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "alexsim", *self._command],
                    env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                )
            )
        return Place(
            rank=0, size=self._size, host=0, local=0, on_host=self._size, launcher=os.getpid()
        )

    def wait(self) -> None:
        """Wait until all processes have met.

        Raises:
            TrainingError: a process has ended before.
        """
        meeting = os.environ[RENDEZVOUS]
        missing = set(range(1, self._size))
        while missing:
            for rank, process in enumerate(self._running, start=1):
                if arrival_file(meeting, rank).exists():
                    missing.discard(rank)
                elif process.poll() is not None:
                    raise TrainingError(
                        f"rank {rank} ended before the run began (exit code {process.returncode})"
                    )
            time.sleep(_LOOK_S)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        until = time.monotonic() + _ENDING_S
        for process in self._running:
            if error is not None:
                # What it waits for will not come.
                process.terminate()
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with self._files:
            self._pass_on(error)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _pass_on(self, error: BaseException | None) -> None:
        """Show what the other processes wrote to stderr, less this process's error and lines which
        say that this process is gone."""
        message = f"alexsim: {error}"
        for rank, stderr in enumerate(self._stderr, start=1):
            stderr.seek(0)
            for line in stderr.read().decode(errors="backslashreplace").splitlines():
                follows = line.startswith(f"alexsim: rank {rank}: ") and line.endswith("0 is gone")
                # Only the first process knows the checkpoint that it names behind it.
                if not (follows or message.startswith(line)):
                    sys.stderr.write(f"{line}\n")


def leave_with(launcher: int) -> None:
    """End this process soon after its launcher, also where that was killed and this process waits
    for something else."""

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

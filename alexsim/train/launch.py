"""A process per virtual GPU on this machine, begun by the first of them.

They meet through a file in a folder that only this user may read, and talk over the loopback
interface: nothing listens on any other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType

from alexsim.errors import TrainingError
from alexsim.execute.world import RENDEZVOUS, Place, here

_ENDING_S = 10.0
_LOOK_S = 0.05


class Others:
    """The other processes of a run; ends them when it is left.

    Args:
        size: processes, this one included.
        command: what ran this one, after ``alexsim``.
    """

    def __init__(self, size: int, command: Sequence[str]) -> None:
        self._size, self._command = size, command
        self._folder = ""
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Place:
        self._folder = tempfile.mkdtemp(prefix="alexsim-")
        shared = {
            RENDEZVOUS: f"file://{self._folder}/meet",
            "WORLD_SIZE": str(self._size),
            "LOCAL_WORLD_SIZE": str(self._size),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        os.environ.update(shared)
        for rank in range(1, self._size):
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "alexsim", *self._command],
                    env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            )
        return Place(rank=0, size=self._size, host=0, local=0, on_host=self._size)

    def wait(self) -> None:
        """Until all have come to where they meet.

        Raises:
            TrainingError: one has ended before.
        """
        meeting = os.environ[RENDEZVOUS]
        missing = set(range(1, self._size))
        while missing:
            for rank, process in enumerate(self._running, start=1):
                if here(meeting, rank).exists():
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
                # Whatever it waits for will not come.
                process.terminate()
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

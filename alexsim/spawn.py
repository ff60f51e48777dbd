"""Processes of this package that begin as new interpreters, whatever program asked for them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

_TURN = threading.Lock()


@contextmanager
def _no_main() -> Iterator[None]:
    """A process that begins meanwhile is told of no script to run first."""
    with _TURN:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes that begin meanwhile are never told of Ctrl-C, which reaches a whole group: the one
    that began them answers it, and they print nothing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def killed_on_error(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """A pool that ends with the work; an error or Ctrl-C kills its processes at once."""
    try:
        yield pool
    except BaseException:
        # No other thread may begin a worker from here on: the pool would wait for one that nobody
        # kills. Shutting down forgets its processes and the thread that waits for them.
        processes = pool._processes or {}
        manager: Any = pool._executor_manager_thread
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(processes.values()):
            process.kill()
        if manager is not None:
            manager.join()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802
        with _no_main():
            return SpawnProcess._Popen(process_obj)


class _Context(SpawnContext):
    Process = _Process


SPAWN = _Context()
"""A context of ``multiprocessing`` whose processes do not run the program's main module again.

They run functions of this package alone. Python's own begin a user's script anew in every process:
one that calls ``alexsim.train`` outside of ``if __name__ == "__main__"`` would train again.
"""

"""Worker processes that end with the work, or at once when it is given up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

from alexsim.data.images import worker_pool
from alexsim.data.interrupt import Interrupt


@contextmanager
def workers_for(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; an error or Ctrl-C kills them: whatever they were at can be done again."""
    pool = worker_pool(count)
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


class Asked(Interrupt):
    """Ctrl-C and SIGTERM are noted, however often they come.

    A second KeyboardInterrupt, in the middle of ending the workers, would leave a worker behind,
    and the process waiting for it.
    """

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True

"""Worker processes that end with the work, or at once when it is given up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType

from alexsim.data.images import worker_pool
from alexsim.data.interrupt import Interrupt
from alexsim.spawn import killed_on_error


@contextmanager
def workers_for(count: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; an error or Ctrl-C kills them: whatever they were at can be done again."""
    with killed_on_error(worker_pool(count)) as pool:
        yield pool


class Asked(Interrupt):
    """Ctrl-C and SIGTERM are noted, however often they come.

    A second KeyboardInterrupt, in the middle of ending the workers, would leave a worker behind,
    and the process waiting for it.
    """

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True

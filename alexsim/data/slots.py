"""Memory that a loader and its workers share: each minibatch's pixels are written where it is read.

Nothing is given back by hand. A slot is in use as long as anything refers to its pixels, a view of
them, or a worker's task that is still to write them; then the next minibatch has it. Memory is the
kernel's, without a name that could be left behind: it is gone with the last process that maps it.
``multiprocessing.shared_memory`` would be files in ``/dev/shm``, of which containers have 64 MiB by
default, three minibatches, and a worker that writes beyond is killed.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import os
import tempfile
import weakref
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_MOST_MAPPED = 16
"""Slots that a worker keeps mapped: pages are faulted in once, not by every task."""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where another process finds a slot."""

    path: str
    number: int
    """Of this slot and no other of its process: a path may come again."""


class _Slot:
    """Shared memory of one minibatch."""

    def __init__(self, size: int) -> None:
        if hasattr(os, "memfd_create"):
            handle = os.memfd_create("alexsim-minibatch")
            path, remove = f"/proc/{os.getpid()}/fd/{handle}", ""
        else:
            handle, path = tempfile.mkstemp(prefix="alexsim-minibatch-")
            remove = path
        weakref.finalize(self, _release, handle, remove)
        os.ftruncate(handle, size)
        self.place = Place(path=path, number=next(_numbers))
        self.pixels: Pixels = np.frombuffer(mmap.mmap(handle, size), dtype=np.uint8)


def _release(handle: int, path: str) -> None:
    os.close(handle)
    if path:
        with contextlib.suppress(OSError):
            Path(path).unlink()


class Lease:
    """A slot in use, until nothing refers to the lease or to its pixels."""

    def __init__(self, slots: deque[_Slot], slot: _Slot, shape: tuple[int, ...]) -> None:
        # Not the free slots themselves: one minibatch that is kept would keep them all.
        self._slots, self._slot = weakref.ref(slots), slot
        self.place = slot.place
        # What numpy makes of this refers to the lease, and views of that refer to it.
        self.__array_interface__ = slot.pixels.reshape(shape).__array_interface__

    def __del__(self) -> None:
        slots = self._slots()
        if slots is not None:
            slots.append(self._slot)

    @property
    def pixels(self) -> Pixels:
        """The minibatch, of the shape that was asked for."""
        return np.asarray(self)


class Slots:
    """Slots of one size: those that are free, and new ones when none is."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """``shape``: of a minibatch's pixels."""
        self._shape = shape
        self._free: deque[_Slot] = deque()

    def take(self) -> Lease:
        """A slot that nobody refers to; what is in it is of no meaning."""
        try:
            slot = self._free.pop()
        except IndexError:
            slot = _Slot(math.prod(self._shape))
        return Lease(self._free, slot, self._shape)


_mapped: dict[int, Pixels] = {}


def mapped(place: Place) -> Pixels:
    """All bytes of another process's slot, for writing.

    Raises:
        OSError: that process is gone.
    """
    pixels = _mapped.pop(place.number, None)
    if pixels is None:
        with Path(place.path).open("r+b", buffering=0) as file:
            pixels = np.frombuffer(mmap.mmap(file.fileno(), 0), dtype=np.uint8)
    # The last that was asked for comes last.
    _mapped[place.number] = pixels
    if len(_mapped) > _MOST_MAPPED:
        del _mapped[next(iter(_mapped))]
    return pixels

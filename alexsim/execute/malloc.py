"""How the C library and PyTorch take memory of the system here.

glibc returns large frees to the kernel, and every convolution chunk would fault its pages in anew.
Pages of 2 MiB instead of 4 KiB spare the processor most of its searches for them: where the system
leaves that to programs, PyTorch asks for them if its ``THP_MEM_ALLOC_ENABLE`` is set
(``c10/core/impl/alloc_cpu.cpp``). It looks once, when it first takes memory.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 1024**2


def set_allocators() -> None:
    """Set both allocators so; glibc's malloc only where the C library has ``mallopt``."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)

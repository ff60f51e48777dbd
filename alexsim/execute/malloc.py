"""Keep freed memory in the process: chunked scratch then costs no page faults.

glibc returns large frees to the kernel, and every convolution chunk would fault its pages in anew.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 1024**2


def keep_freed_memory() -> None:
    """Set glibc's malloc so; does nothing where the C library has no ``mallopt``."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)

"""CIFAR's pickles of Python 2: dicts of text, numbers, lists, bytes and arrays of bytes.

A pickle may name any function to be called. Here four names of NumPy's are known, and stand for a
record of what they were given; whatever names another is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexsim.errors import DataError

_KNOWN = frozenset({
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
})  # fmt: skip
"""What arrays are made of; the last is how Python 3 writes bytes for Python 2."""
_DAMAGED = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError,
    ValueError, OverflowError, MemoryError, RecursionError, struct.error, NotImplementedError,
    AssertionError,
)  # fmt: skip
"""What the unpickler raises for bytes that are no whole pickle."""


class _Record:
    """A call that a pickle asks for, and is not made."""

    __slots__ = ("given", "state")

    def __init__(self, *given: Any) -> None:
        self.given = given
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


# The one in C makes its table of objects as large as a damaged file says.
class _Reader(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not read")
        return _Record


def unpickled(data: bytes, where: str) -> dict[str, Any]:
    """A pickled dict, by its keys as text.

    Raises:
        DataError: it is damaged, no dict, or names what is not read.
    """
    try:
        value = _Reader(io.BytesIO(data), encoding="bytes").load()
    except _DAMAGED as error:
        raise DataError(f"{where}: not a pickle of CIFAR's, or a damaged one: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: a pickled {type(value).__name__}; expected a dict")
    return {name: each for key, each in value.items() if (name := text(key)) is not None}


def text(value: object) -> str | None:
    """Text of Python 2, which is bytes here, or of Python 3; None if it is anything else."""
    if isinstance(value, str):
        return value
    data = _bytes(value)
    return data.decode("latin-1") if data is not None else None


def byte_rows(value: object, length: int) -> NDArray[np.uint8] | None:
    """A pickled array of bytes, ``[rows, length]``; None if it is anything else."""
    if not isinstance(value, _Record) or not isinstance(value.state, tuple):
        return None
    match value.state:
        case (_, (int(rows), int(columns)), _Record() as kind, fortran, raw):
            data = _bytes(raw)
            right = kind.given and text(kind.given[0]) in ("u1", "|u1") and not fortran
            if right and columns == length and data is not None and len(data) == rows * length:
                return np.frombuffer(data, dtype=np.uint8).reshape(rows, length)
    return None


def _bytes(raw: object) -> bytes | None:
    match raw:
        case bytes():
            return raw
        case _Record(given=(str(letters), coding)) if text(coding) == "latin1":
            return letters.encode("latin-1")
    return None

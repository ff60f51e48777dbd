"""Every error alexsim raises on purpose.

AlexsimError          the user's mistake: the command line prints one line and exits 2
├── NetworkError      a network's layers do not fit together, or its name is unknown
├── PlanError         a plan was asked for that this network cannot have
├── ProfileError      a spec sheet or a table of measurements is missing or malformed
├── DataError         a data folder or its images cannot be used
├── RunError          a run directory cannot be written, read or resumed
├── InterchangeError  weights do not fit a network, or a file of another format cannot be used
├── MemoryBudgetError a plan needs more memory than its device has (exit 3)
├── TrainingError     training itself failed: the loss is not a number (exit 1)
└── GateError         a gate failed: a figure is worse than it may be (exit 4)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

_NEAR = 0.75
"""Least similarity, of 1: two names of four letters of which one differs, or eight, two."""


class AlexsimError(Exception):
    """Base class of the errors that the command line prints in one line."""

    exit_code: ClassVar[int] = 2


class NetworkError(AlexsimError):
    """A network's layers do not fit together, or no network has that name."""


class PlanError(AlexsimError):
    """A plan was asked for that this network cannot have."""


class ProfileError(AlexsimError, ValueError):
    """A spec sheet or a table of measurements is missing or malformed.

    A ValueError too: raised by a record while a document is read, it is told with its place.
    """


class DataError(AlexsimError):
    """A data folder or its images cannot be used."""


class RunError(AlexsimError):
    """A run directory cannot be written, read or resumed."""


class InterchangeError(AlexsimError):
    """Weights do not fit a network, or a file of another format cannot be read or written."""


class MemoryBudgetError(AlexsimError):
    """A device's memory budget is smaller than what its plan needs."""

    exit_code = 3


class TrainingError(AlexsimError):
    """Training failed: the loss is no longer a number."""

    exit_code = 1


class GateError(AlexsimError):
    """A gate failed: a figure is worse than it may be."""

    exit_code = 4


def known_as(name: str, known: Iterable[str]) -> str | None:
    """The known name that equals ``name`` up to case; None if there is none, or several."""
    names = tuple(known)
    if name in names:
        return name
    alike = [candidate for candidate in names if candidate.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def unknown(kind: str, name: str, known: Iterable[str], mark: str = "") -> str:
    """The message for an unknown name: the known names that are close to it, and all of them.

    ``mark`` stands before each name, as the + of a network's variants does.
    """
    names = tuple(known)
    folded = {key.casefold(): key for key in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=_NEAR)
    hint = f"; did you mean {' or '.join(mark + folded[key] for key in near)}?" if near else ""
    quoted = mark + name if mark else repr(name)
    return f"no {kind} {quoted}{hint} (known: {', '.join(mark + key for key in names)})"

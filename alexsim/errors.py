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
├── MeasurementError  what was measured is worth nothing (exit 1)
└── GateError         a gate failed: a figure is worse than it may be (exit 4)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import ClassVar

_NEAR = 0.75
"""Least similarity, of 1: two names of four letters of which one differs, or eight, two."""
_SEPARATORS = re.compile(r"[-_.\s]+")
_FEW = 20
"""As many names a message may list."""
_LISTS = {
    "network": "alexsim network list",
    "layer": "alexsim network show NETWORK",
} | dict.fromkeys(("machine", "device", "link"), "alexsim hardware list")
"""By kind of name, the command that lists them."""


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


class MeasurementError(AlexsimError):
    """What was measured is worth nothing: others took the machine meanwhile."""

    exit_code = 1


class GateError(AlexsimError):
    """A gate failed: a figure is worse than it may be."""

    exit_code = 4


def reason_of(error: Exception) -> str:
    """Why a file cannot be read or written, in the system's words without its number."""
    return getattr(error, "strerror", None) or str(error)


def unreadable(path: object, error: Exception) -> str:
    """The message for a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return f"there is no {path}"
    return f"cannot read {path}: {reason_of(error)}"


def known_as(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` is, in whatever case, with or without separators.

    ``ResNet-50`` is ``resnet50``, ``inception v3`` is ``inception_v3``. A name as it is listed
    comes first, then one that differs in case alone; None where none is alike, or several are.
    """
    names = tuple(known)
    if name in names:
        return name
    for form in (str.casefold, plain):
        alike = [candidate for candidate in names if form(candidate) == form(name)]
        if len(alike) == 1:
            return alike[0]
    return None


def plain(name: str) -> str:
    """A name without case and separators: what names are compared by."""
    return _SEPARATORS.sub("", name.casefold())


def unknown(
    kind: str,
    name: str,
    known: Iterable[str],
    mark: str = "",
    titles: Mapping[str, str] | None = None,
) -> str:
    """The message for an unknown name: the known names that are close to it, and all of them, or
    where they are many, the command that lists them.

    ``mark`` stands before each name, as the + of a network's variants does. ``titles``: what a name
    means, in words; where no name is close, those whose title has the words are.
    """
    names = tuple(known)
    quoted = mark + name if mark else repr(name)
    near = _near(name, names) or _titled(name, titles or {})
    hint = f"; did you mean {' or '.join(mark + each for each in near)}?" if near else ""
    command = _LISTS.get(kind.split()[0].rstrip(","), "")
    if command and len(names) > _FEW:
        return f"no {kind} {quoted}{hint} (`{command}` has all {len(names)})"
    return f"no {kind} {quoted}{hint} (known: {', '.join(mark + each for each in names)})"


def _titled(name: str, titles: Mapping[str, str]) -> list[str]:
    """Up to three in whose title words begin as what was given, of three characters or more."""
    start = plain(name)

    def begins(title: str) -> bool:
        words = title.split()
        return any(plain("".join(words[i:])).startswith(start) for i in range(len(words)))

    return [each for each, title in titles.items() if len(start) > 2 and begins(title)][:3]


def _near(name: str, names: tuple[str, ...]) -> list[str]:
    """Up to three that, of three characters or more, begin so, or are close; the closest first."""
    start = plain(name)
    begins = {each: len(start) > 2 and plain(each).startswith(start) for each in names}
    likeness = {each: SequenceMatcher(None, plain(each), start).ratio() for each in names}
    near = [each for each in names if likeness[each] >= _NEAR or begins[each]]
    return sorted(near, key=lambda each: (not begins[each], -likeness[each]))[:3]

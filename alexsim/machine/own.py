"""Sheets of one's own: a TOML file states what is known of a machine, and inherits the rest.

``like = "a100"`` names the shipped sheet that has what the file does not say. Numbers need no
source there, and may be in the units of ``--set``: ``memory_gib = 48``, ``clock_mhz = 1410``. What
is inherited says so in its source, with the sheet that it is from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from alexsim.errors import ProfileError, unknown
from alexsim.machine.sheet import (
    Sheet,
    find,
    in_si,
    numbers,
    resolved,
)
from alexsim.typed import read

Table = dict[str, Any]
_Sheet = TypeVar("_Sheet", bound=Sheet)
INHERITED = "inherited from "
"""How the source of an inherited number begins."""
_NEVER = ("note", "price_usd")
"""What holds of the other sheet's card alone."""
_OTHERS = {
    "_bytes": "_gib",
    "_bytes_per_s": "_gb_per_s",
    "_hz": "_mhz",
    "flop_per_s": "tflop_per_s",
}
"""Other units that a message names, of those that ``in_si`` knows."""
_OURS = {"device_name", "rates_for"}
"""Fields of a machine that no sheet states."""


def load_record(kind: type[_Sheet], name: str) -> _Sheet:
    """The record of a shipped sheet of its kind, or of the TOML file at a path.

    Raises:
        ProfileError: there is none, or its keys are not the record's fields.
    """
    return read(kind, *sheet_of(kind, name))


def folder_of(kind: type[Sheet]) -> str:
    """Where the shipped sheets of a kind are."""
    return f"{kind.__name__.lower()}s"


def sheet_of(kind: type[Sheet], name: str) -> tuple[Table, str]:
    """A sheet as ``resolved`` gives it, and where it was found; of a file with all it inherits.

    Raises:
        ProfileError: there is none, or it is malformed.
    """
    table, where = find(folder_of(kind), name, what=kind.__name__.lower())
    if not name.endswith(".toml"):
        return resolved(table, where), where
    table = stated(kind, table, where)
    return inherited(kind, table, where, *alike(table, where, partial(sheet_of, kind))), where


def stated(
    kind: type[Sheet], table: Mapping[str, Any], where: str, more: Iterable[str] = ()
) -> Table:
    """What a file says, in the keys and units of shipped sheets; ``more``: further keys.

    Raises:
        ProfileError: a key is unknown, or says what another one says.
    """
    known = ({field.name for field in fields(kind)} - _OURS) | {"like", "sources", *more}
    keys: dict[str, str] = {}
    plain: Table = {}
    entries: Table = {"sources": {}}
    for key, entry in table.items():
        number = isinstance(entry, int | float) and not isinstance(entry, bool)
        # The dot: ``gb_per_s`` is a link's rate, and the end of a card's.
        name, value = in_si(f".{key}", entry if number else 1.0)
        name = name.removeprefix(".")
        if name not in known:
            units = {each.removesuffix(si) + unit for each in known for si, unit in _OTHERS.items()
                     if each.endswith(si)}  # fmt: skip
            raise ProfileError(f"{where}: {unknown('key', key, sorted(known | units))}")
        if name != key and not number:
            raise ProfileError(f"{where}: {key} must be a number, got {entry!r}")
        if name in keys:
            raise ProfileError(f"{where}: {key} says the same as {keys[name]}; leave one out")
        keys[name] = key
        if number and name in (*numbers(kind), *more):
            source = f"stated in {where}, which names no source"
            plain[name] = {"value": value, "kind": "spec", "source": source}
        else:
            entries[name] = entry
    return resolved(entries, where) | plain


def alike(table: Table, where: str, load: Callable[[str], tuple[Table, str]]) -> tuple[Table, str]:
    """The sheet that a file is ``like``, and its name; nothing where it says none.

    Raises:
        ProfileError: there is no such sheet.
    """
    like = table.get("like", "")
    if not isinstance(like, str) or like.endswith(".toml"):
        raise ProfileError(f"{where}: like must be the name of a sheet that ships, got {like!r}")
    try:
        return (load(like)[0], like) if like else ({}, "")
    except ProfileError as error:
        raise ProfileError(f"{where}: like: {error}") from error


def inherited(kind: type[Sheet], table: Table, where: str, base: Table, whose: str) -> Table:
    """What a file states and, of the sheet ``whose``, all else that it has."""
    rest = {
        field.name: _marked(base[field.name], whose)
        for field in fields(kind)
        if field.name in base and (field.default is MISSING or field.name not in _NEVER)
    }
    said = {key: entry for key, entry in table.items() if key != "like"}
    return rest | {"name": Path(where).stem} | said


def _marked(entry: Any, whose: str) -> Any:
    if not isinstance(entry, Mapping) or str(entry.get("source")).startswith(INHERITED):
        return entry
    return {**entry, "source": f"{INHERITED}{whose}: {entry['source']}"}

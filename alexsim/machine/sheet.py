"""Spec sheets: TOML files in which every number has its kind and its source.

A sheet has text keys, numbers as ``{ value, kind, source }`` with the unit in the key, and a
``[sources]`` table that the numbers' ``source`` points into. Unknown or missing keys are errors.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from alexsim.errors import ProfileError, known_as, unknown

KINDS = ("spec", "measured", "fitted")
UNSOURCED = "unsourced: from common knowledge"
"""The source of a number that nobody looked up."""
_LEAST, _MOST = 1e-12, 1e18
"""Beyond these no quantity of a machine lies, and sums of times would lose the short ones."""
_TYPES = {str: "text", int: "whole number", bool: "truth value (true or false)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number of a spec sheet, and where it comes from."""

    value: float
    kind: str
    source: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ProfileError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise ProfileError(f"a quantity must be a number, got {self.value!r}")
        if not 0 <= self.value < float("inf"):
            raise ProfileError(f"a quantity must be finite and not negative, got {self.value}")


@cache
def names(folder: str) -> tuple[str, ...]:
    """Names of the sheets in a folder of ``alexsim_profiles``, sorted."""
    entries = (files("alexsim_profiles") / folder).iterdir()
    return tuple(sorted(e.name.removesuffix(".toml") for e in entries if e.name.endswith(".toml")))


def find(folder: str, name: str, *, what: str) -> tuple[dict[str, Any], str]:
    """The sheet ``name`` of a folder, or the TOML file at that path, and where it was found.

    Raises:
        ProfileError: there is no such sheet or file, or it is not TOML.
    """
    if name.endswith(".toml"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ProfileError(f"cannot read {what} {name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ProfileError(f"{name} is not text in UTF-8") from error
        try:
            return tomllib.loads(text), name
        except tomllib.TOMLDecodeError as error:
            raise ProfileError(f"{name} is not TOML: {error}") from error
    if (written := known_as(name, names(folder))) is None:
        raise ProfileError(unknown(what, name, names(folder)))
    return dict(_built_in(folder, written)), f"{folder}/{written}.toml"


@cache
def _built_in(folder: str, name: str) -> dict[str, Any]:
    sheet = files("alexsim_profiles") / folder / f"{name}.toml"
    return tomllib.loads(sheet.read_text(encoding="utf-8"))


def check(
    table: Mapping[str, Any],
    *,
    texts: Mapping[str, type],
    numbers: tuple[str, ...],
    where: str,
    can_be_zero: tuple[str, ...] = (),
    whole: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> dict[str, Quantity]:
    """Check a sheet's keys exactly; the numbers as quantities whose source is spelled out.

    Args:
        table: the sheet.
        texts: keys whose values are no quantities, and their types.
        numbers: keys of quantities.
        where: the sheet's name, for messages.
        can_be_zero: numbers that need not be positive.
        whole: numbers that count things.
        optional: keys that may be missing.

    Raises:
        ProfileError: a key is missing or unknown, a value is malformed, or a number's source is
            not in the sheet's ``[sources]``.
    """
    expected = {*texts, *numbers, "sources"}
    missing = sorted(expected - table.keys() - set(optional))
    extra = sorted(table.keys() - expected)
    if missing or extra:
        raise ProfileError(f"{where}: missing keys {missing}, unknown keys {extra}")
    for key, wanted in texts.items():
        if key in table and type(table[key]) is not wanted:
            raise ProfileError(f"{where}: {key} must be a {_TYPES[wanted]}, got {table[key]!r}")
    sources = table["sources"]
    if not isinstance(sources, Mapping) or not all(isinstance(s, str) for s in sources.values()):
        raise ProfileError(f"{where}: [sources] must be a table of texts")
    if empty := [name for name, text in sources.items() if not text.strip()]:
        raise ProfileError(f"{where}: [sources] {empty[0]} is empty; write {UNSOURCED!r} if so")
    quantities = {}
    for key in numbers:
        if key not in table:
            continue
        entry = table[key]
        if not isinstance(entry, Mapping) or set(entry) != {"value", "kind", "source"}:
            raise ProfileError(f"{where}: {key} must be a table of value, kind and source")
        if not isinstance(entry["source"], str) or entry["source"] not in sources:
            raise ProfileError(
                f"{where}: {key}: its source {entry['source']!r} is not in [sources]"
                f" ({', '.join(sources)})"
            )
        try:
            quantities[key] = Quantity(
                value=entry["value"], kind=entry["kind"], source=sources[entry["source"]]
            )
        except ProfileError as error:
            raise ProfileError(f"{where}: {key}: {error}") from error
        if fault := amiss(quantities[key].value, zero=key in can_be_zero, whole=key in whole):
            raise ProfileError(f"{where}: {key} must be {fault}")
    return quantities


def amiss(value: float, *, zero: bool, whole: bool) -> str:
    """What a quantity must be and is not; empty if it is in order."""
    if not math.isfinite(value) or value < 0:
        return f"finite and not negative, got {value:g}"
    if not zero and not value:
        return f"positive, got {value:g}"
    if value and not _LEAST <= value <= _MOST:
        return f"between {_LEAST:g} and {_MOST:g}, got {value:g}"
    if whole and value != int(value):
        return f"a whole number, got {value:g}"
    return ""

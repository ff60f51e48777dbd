"""Spec sheets: TOML files in which every number has its kind and its source.

A sheet has text keys, numbers as ``{ value, kind, source }`` with the unit in the key, and a
``[sources]`` table that the numbers' ``source`` points into. A sheet's keys are the fields of
its record.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast, get_args, get_type_hints

from alexsim.errors import ProfileError, known_as, unknown
from alexsim.typed import Number, read

Kind = Literal["spec", "measured", "fitted"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNSOURCED = "unsourced: from common knowledge"
"""The source of a number that nobody looked up."""
_LEAST, _MOST = 1e-12, 1e18
"""Beyond these no quantity of a machine lies, and sums of times would lose the short ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number of a spec sheet, and where it comes from."""

    value: Number
    kind: Kind
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Which values a quantity may have."""

    zero: bool = False
    whole: bool = False
    most: float = math.inf

    def fault(self, value: float) -> str:
        """What a value must be and is not; empty if it is in order."""
        if not math.isfinite(value) or value < 0:
            return f"finite and not negative, got {value:g}"
        if not self.zero and not value:
            return f"positive, got {value:g}"
        if value and not _LEAST <= value <= _MOST:
            return f"between {_LEAST:g} and {_MOST:g}, got {value:g}"
        if self.whole and value != int(value):
            return f"a whole number, got {value:g}"
        return f"at most {self.most:g}, got {value:g}" if value > self.most else ""


Positive = Annotated[Quantity, Bounds()]
NotNegative = Annotated[Quantity, Bounds(zero=True)]
Count = Annotated[Quantity, Bounds(whole=True)]
Share = Annotated[Quantity, Bounds(most=1)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """What has a spec sheet: its quantities keep the bounds that their fields' types state.

    Raises:
        ProfileError: one does not; says which.
    """

    def __post_init__(self) -> None:
        for name, bounds in numbers(type(self)).items():
            quantity = getattr(self, name)
            if quantity is not None and (fault := bounds.fault(quantity.value)):
                raise ProfileError(f"{name} must be {fault}")

    def __repr__(self) -> str:
        # Every quantity with its source would be hundreds of lines.
        return f"<{type(self).__name__} {getattr(self, 'name', '')!r}>"

    def changed(self, **values: float) -> Self:
        """The same with some of its numbers replaced.

        Raises:
            ProfileError: there is no such number, or its value is not allowed.
        """
        known = numbers(type(self))
        if strange := [name for name in values if name not in known]:
            what = type(self).__name__.lower()
            raise ProfileError(f"a {what} has no {strange[0]!r} (it has {', '.join(known)})")
        changes: dict[str, Any] = {
            name: Quantity(value=value, kind="spec", source="set by the user")
            for name, value in values.items()
        }
        return replace(self, **changes)


_Sheet = TypeVar("_Sheet", bound=Sheet)


def numbers(kind: type[Sheet]) -> dict[str, Bounds]:
    """Names of a sheet's quantities, in its order, and their bounds."""
    return _numbers(cast(Any, kind))


@cache
def _numbers(kind: type[Sheet]) -> dict[str, Bounds]:
    bounds: dict[str, Bounds] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        # A quantity that may be missing is a union with None.
        marks = (mark for part in (hint, *get_args(hint)) for mark in _marks(part))
        bounds.update((name, mark) for mark in marks if isinstance(mark, Bounds))
    return bounds


def _marks(hint: object) -> tuple[object, ...]:
    return getattr(hint, "__metadata__", ())


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
        except (ValueError, RecursionError) as error:
            raise ProfileError(f"{name} is not TOML: {error}") from error
    if (written := known_as(name, names(folder))) is None:
        titles: dict[str, str] = {}
        if folder == "links":  # named by their standards, where cards are known by their names
            titles = {each: str(_built_in(folder, each)["name"]) for each in names(folder)}
        raise ProfileError(unknown(what, name, names(folder), titles=titles))
    return dict(_built_in(folder, written)), f"{folder}/{written}.toml"


@cache
def _built_in(folder: str, name: str) -> dict[str, Any]:
    sheet = files("alexsim_profiles") / folder / f"{name}.toml"
    return tomllib.loads(sheet.read_text(encoding="utf-8"))


def read_sheet(kind: type[_Sheet], table: Mapping[str, Any], where: str) -> _Sheet:
    """The record of a sheet; ``where`` is the sheet's name, for messages.

    Raises:
        ProfileError: a key is missing or unknown, a value is malformed, or a number's source is
            not in the sheet's ``[sources]``.
    """
    return read(kind, resolved(table, where), where)


def resolved(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A sheet's table where every number has its source's text, without ``[sources]``.

    Raises:
        ProfileError: a number's source is not in ``[sources]``, or one there is empty.
    """
    sources = table.get("sources")
    if not isinstance(sources, Mapping) or not all(isinstance(s, str) for s in sources.values()):
        raise ProfileError(f"{where}: [sources] must be a table of texts, got {sources!r}")
    if empty := [name for name, text in sources.items() if not text.strip()]:
        raise ProfileError(f"{where}: [sources] {empty[0]} is empty; write {UNSOURCED!r} if so")
    entries = {}
    for key, entry in table.items():
        entries[key] = entry
        if isinstance(entry, Mapping) and isinstance(source := entry.get("source"), str):
            if source not in sources:
                raise ProfileError(
                    f"{where}: {key}: its source {source!r} is not in [sources]"
                    f" ({', '.join(sources)})"
                )
            entries[key] = {**entry, "source": sources[source]}
    del entries["sources"]
    return entries


_UNITS = {
    "bytes": "bytes", "mib": "MiB", "gib": "GiB", "mhz": "MHz", "ghz": "GHz", "hz": "Hz",
    "gb_per_s": "GB/s", "images_per_s": "images/s", "bytes_per_s": "bytes/s",
    "us": "microseconds", "ms": "milliseconds", "s": "seconds", "w": "watts", "usd": "dollars",
}  # fmt: skip


def unit_of(key: str) -> str:
    """The unit that a key of ``changed`` names; empty for counts and shares."""
    name = key.rpartition(".")[2]
    units = (unit for end, unit in _UNITS.items() if f"_{name}".endswith(f"_{end}"))
    return next(units, "")


def in_si(key: str, value: float) -> tuple[str, float]:
    """A key and its number in the unit of the sheets: ``device.clock_mhz`` is ``..._hz``."""
    for suffix, unit, scale in (
        ("_mib", "_bytes", 1024**2),
        ("_gib", "_bytes", 1024**3),
        ("tflop_per_s", "flop_per_s", 1e12),
        ("_mhz", "_hz", 1e6),
        ("_ghz", "_hz", 1e9),
        ("_gb_per_s", "_bytes_per_s", 1e9),
        ("_us", "_s", 1e-6),
        ("_ms", "_s", 1e-3),
    ):
        if key.endswith(suffix):
            return key.removesuffix(suffix) + unit, value * scale
    return key.replace(".gb_per_s", ".bytes_per_s"), value * (
        1e9 if key.endswith(".gb_per_s") else 1
    )

"""Spec sheets of devices: every number with its unit in the key, its kind and its source."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any

from alexsim.errors import ProfileError

KINDS = ("spec", "measured", "fitted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One number of a spec sheet, and where it comes from."""

    value: float
    kind: str
    source: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ProfileError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        if self.value <= 0:
            raise ProfileError(f"a quantity must be positive, got {self.value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One card.

    ``memory_bytes`` is what programs can use, ``context_bytes`` what the driver takes of it.
    """

    name: str
    memory_bytes: Quantity
    context_bytes: Quantity


def device_names() -> tuple[str, ...]:
    """Names that ``load_device`` accepts, sorted."""
    folder = files("alexsim_profiles") / "devices"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir()))


def load_device(name: str) -> Device:
    """Read ``devices/<name>.toml`` of ``alexsim_profiles``.

    Raises:
        ProfileError: there is no such file, or its keys are not Device's fields.
    """
    known = device_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ProfileError(f"no device {name!r}{hint} (known: {', '.join(known)})")
    text = (files("alexsim_profiles") / "devices" / f"{name}.toml").read_text(encoding="utf-8")
    return device_from(tomllib.loads(text), where=f"devices/{name}.toml")


def device_from(table: Mapping[str, Any], *, where: str) -> Device:
    """Check a sheet's keys exactly, and make the record.

    Raises:
        ProfileError: a key is missing or unknown, or a number is not positive.
    """
    _exact(table, {field.name for field in fields(Device)}, where)
    quantities = {}
    for key, entry in table.items():
        if key == "name":
            continue
        if not isinstance(entry, Mapping):
            raise ProfileError(f"{where}: {key} must be a table of value, kind and source")
        _exact(entry, {field.name for field in fields(Quantity)}, f"{where}: {key}")
        try:
            quantities[key] = Quantity(**entry)
        except ProfileError as error:
            raise ProfileError(f"{where}: {key}: {error}") from error
    return Device(name=table["name"], **quantities)


def _exact(table: Mapping[str, Any], expected: set[str], where: str) -> None:
    missing, unknown = sorted(expected - table.keys()), sorted(table.keys() - expected)
    if missing or unknown:
        raise ProfileError(f"{where}: missing keys {missing}, unknown keys {unknown}")

"""Sheets as TOML files: whole, or of the few lines that one's own begins with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, asdict, fields
from typing import Any

from alexsim.errors import ProfileError
from alexsim.machine.device import Device, load_device
from alexsim.machine.machine import sheet_table
from alexsim.machine.own import INHERITED
from alexsim.machine.sheet import Quantity

MODEL = "a100"
"""The card whose numbers a new sheet has unless it is like another."""


def sheet_text(name: str) -> str:
    """The sheet of a machine, a device or a link, or a TOML file of one, as a file that loads to
    the same record: all that it inherits is written out, and marked.

    Raises:
        ProfileError: nothing has such a sheet, or it is malformed.
    """
    kind, table = sheet_table(name)
    sources: dict[str, str] = {}
    texts, numbers = [f"# {_text(name)}, with all that it inherits."], []
    for field in fields(kind):
        entry = table.get(field.name, _default(field))
        if not isinstance(entry, Mapping):
            texts += [] if entry is None else [f"{field.name} = {_text(entry)}"]
            continue
        source = sources.setdefault(entry["source"], f"s{len(sources) + 1}")
        whose, _, _ = entry["source"].partition(": ")
        mark = f"  # {whose}" if whose.startswith(INHERITED) else ""
        row = f'value = {_number(entry["value"])}, kind = "{entry["kind"]}", source = "{source}"'
        numbers.append(f"{field.name} = {{ {row} }}{mark}")
    listed = [f"{key} = {_text(text)}" for text, key in sources.items()]
    return "\n".join([*texts, "", *numbers, "", "[sources]", *listed, ""])


def new_text(like: str) -> str:
    """The file that one's own sheet begins with: the main numbers of what it is ``like``, and all
    others as comments. Without, it is a card of which its architecture says the rest.

    Raises:
        ProfileError: nothing that ships has a sheet of that name.
    """
    if like.endswith(".toml"):
        raise ProfileError(f"--like names a sheet that ships, not a file, got {like}")
    kind, table = sheet_table(like or MODEL)
    stated = {"like": _text(like)} if like else {"architecture": _text(table["architecture"])}
    if kind is Device:
        card = load_device(like or MODEL)
        stated |= {
            "memory_gib": f"{card.memory_bytes.value / 1024**3:.12g}  # that programs can use",
            "tflop_per_s": f"{card.flop_per_s / 1e12:.12g}  # float32, without tensor cores",
            "memory_gb_per_s": f"{card.memory_bytes_per_s.value / 1e9:.12g}",
            "link": f"{_text(table['link'])}  # its slot",
        }
    said = {*stated, "memory_bytes", "multiprocessors", "clock_hz", "memory_bytes_per_s"}
    lines = [
        "# A sheet of one's own: `alexsim simulate --machine THIS.toml`. What it does not say is",
        "# inherited: `alexsim hardware show THIS.toml` shows from where. Names are those of",
        "# `alexsim hardware list`.",
        *(f"{key} = {value}" for key, value in stated.items()),
        "",
        "# What else may be said, with what is inherited; of a number also { value = 1, kind =",
        '# "measured", source = "a" }, and under [sources] a = "where it is from".',
    ]
    for field in fields(kind):
        entry = table.get(field.name, _default(field))
        if entry is not None and not (kind is Device and field.name in said | {"like"}):
            value = _number(entry["value"]) if isinstance(entry, Mapping) else _text(entry)
            lines.append(f"# {field.name} = {value}")
    return "\n".join([*lines, ""])


def _default(field: Field[Any]) -> Any:
    if isinstance(field.default, Quantity):
        return asdict(field.default)
    return (field.default or None) if isinstance(field.default, str | bool) else None


def _text(value: Any) -> str:
    """As TOML has it, which is JSON but for one character."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 2**63 else repr(value)

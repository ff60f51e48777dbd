"""JSON that every parser reads: RFC 8259 (section 6) has no NaN and no infinity.

Such a number is written as ``null``, and the document's key ``not_finite`` says of each, by its
place, what it was: ``{"loss": null, "not_finite": {"loss": "NaN"}}``. A place is written as in
JavaScript: ``models[0].loss``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from alexsim.names import name_text

NOT_FINITE = "not_finite"
_LONE = re.compile(r"(?<!\\)(?:\\\\)*(?<!\\ud[89ab][0-9a-f]{2})\\udc[89a-f][0-9a-f]")
"""A byte that is not UTF-8, as ``json.dumps`` escapes Python's stand-in for it."""


def json_text(
    document: Mapping[str, Any],
    *,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
) -> str:
    """A document as JSON, without a line break at its end."""

    def written(tree: object) -> str:
        text = json.dumps(tree, indent=indent, separators=separators, allow_nan=False)
        # A path that is not UTF-8, from the command line say: no parser takes half a character.
        if _LONE.search(text):
            named = _named(tree)
            text = json.dumps(named, indent=indent, separators=separators, allow_nan=False)
        return text

    try:
        return written(document)
    except ValueError:
        places: dict[str, str] = {}

        def missing(value: Any, place: str) -> Any:
            if isinstance(value, float) and not math.isfinite(value):
                places[place] = _name(value)
                return None
            return value

        finite = _mapped(document, missing)
        return written(finite | {NOT_FINITE: places})


def json_value(text: str) -> Any:
    """What a JSON text holds; numbers that ``json_text`` left out are back at their places.

    Bare ``NaN`` and ``Infinity`` are read too: earlier versions wrote them.

    Raises:
        ValueError: it is no JSON.
    """
    loaded = json.loads(text)
    places = loaded.get(NOT_FINITE) if isinstance(loaded, dict) else None
    if not isinstance(places, dict):
        return loaded

    def back(value: Any, place: str) -> Any:
        known = value is None and places.get(place) in _NAMES
        return float(places[place]) if known else value

    del loaded[NOT_FINITE]
    return _mapped(loaded, back)


_NAMES = ("NaN", "Infinity", "-Infinity")


def _named(value: Any) -> Any:
    """The same tree with names as text."""
    if isinstance(value, Mapping):
        return {_named(key): _named(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_named(inner) for inner in value]
    return name_text(value) if isinstance(value, str) else value


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else _NAMES[1 if value > 0 else 2]


def _mapped(value: Any, change: Callable[[Any, str], Any], place: str = "") -> Any:
    """The same tree with every leaf changed."""
    if isinstance(value, Mapping):
        return {
            key: _mapped(inner, change, f"{place}.{key}" if place else str(key))
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [_mapped(inner, change, f"{place}[{n}]") for n, inner in enumerate(value)]
    return change(value, place)

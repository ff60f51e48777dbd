"""Documents with types: what is read from JSON or TOML is checked against a record's annotations.

A record is a dataclass or a pydantic model; its fields say what a document may hold, annotations
such as ``Annotated[float, Ge(0)]`` between which bounds. Every key is checked; nothing is converted
but whole numbers to floats. What a type cannot say, its ``__post_init__`` does by a ``ValueError``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

from alexsim.errors import AlexsimError, ProfileError

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

_Record = TypeVar("_Record")

READING = "reading"
"""The validation's context: what is no table here is amiss, not a record to take values from."""
_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "dataclass_type": "a table",
}
"""What a value must be, by pydantic's name for the error."""


def read(
    kind: type[_Record], table: object, where: str, error: type[AlexsimError] = ProfileError
) -> _Record:
    """A record from what a JSON or TOML document holds.

    Args:
        kind: the record's class.
        table: texts, numbers, truth values, lists and tables of them.
        where: what the document is called in messages, such as its path.
        error: what is raised.

    Raises:
        AlexsimError: of the class ``error``: the first value that is amiss, or every key that is
            missing or unknown in its table.
    """
    from pydantic import ValidationError

    adapter = _adapter(cast(Any, kind))
    try:
        if is_dataclass(kind):
            # Strict where JSON is: a list is a tuple there, a table a record, but no text a number.
            return cast(_Record, adapter.validate_json(json.dumps(table, default=str)))
        return cast(_Record, adapter.validate_python(_tuples(table), strict=True, context=READING))
    except ValidationError as failure:
        raise error(f"{where}: {fault(failure)}") from None


def _tuples(value: Any) -> Any:
    """The same with its lists as tuples: what has been read does not change."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter, with_config

    if is_dataclass(kind):
        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
        return TypeAdapter(with_config(config)(kind))
    return TypeAdapter(kind)


def fault(failure: ValidationError) -> str:
    """What is amiss with a document, in one line."""
    errors = failure.errors(include_url=False)
    keys = [each for each in errors if each["type"] in ("missing", "extra_forbidden")]
    keys += [each for each in errors if each["type"] == "unexpected_keyword_argument"]
    if keys:
        table = keys[0]["loc"][:-1]
        names = {
            what: sorted(str(each["loc"][-1]) for each in keys
                         if each["loc"][:-1] == table and (each["type"] == "missing") is missing)
            for what, missing in (("missing", True), ("unknown", False))
        }  # fmt: skip
        place = f"{place_of(table)}: " if table else ""
        return f"{place}missing keys {names['missing']}, unknown keys {names['unknown']}"
    first = errors[0]
    if first["type"] == "value_error":
        # A record's own check: ``raise ValueError`` in ``__post_init__``.
        place = f"{place_of(first['loc'])}: " if first["loc"] else ""
        return f"{place}{first['ctx']['error']}"
    return (
        f"{place_of(first['loc']) or 'it'} must be {_wanted(first)}, got {_shown(first['input'])}"
    )


def place_of(path: Sequence[int | str]) -> str:
    """A place in a document as JavaScript writes it: ``layers[0].flop``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _wanted(error: ErrorDetails) -> str:
    limits: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "literal_error":
            return f"one of {limits['expected'].replace(chr(39), '').replace(' or ', ', ')}"
        case "greater_than_equal":
            return f"at least {limits['ge']:g}"
        case "greater_than":
            return f"above {limits['gt']:g}"
        case "less_than_equal":
            return f"at most {limits['le']:g}"
        case "less_than":
            return f"below {limits['lt']:g}"
        case "too_short":
            return f"a list of at least {limits['min_length']}"
        case kind:
            return _TYPES.get(kind, error["msg"].removeprefix("Input should be "))


def _shown(value: object) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."

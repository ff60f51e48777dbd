"""Documents with types: what is read from JSON or TOML is checked against a record's annotations.

A record is a dataclass or a pydantic model; its fields say what a document may hold, annotations
such as ``Annotated[float, Ge(0)]`` between which bounds. Every key is checked; nothing is converted
but whole numbers to floats. What a type cannot say, its ``__post_init__`` does by a ``ValueError``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from alexsim.errors import AlexsimError, ProfileError
from alexsim.strict_json import json_value

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationError
    from pydantic_core import CoreSchema, ErrorDetails

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
    "string_too_short": "a text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "model_type": "a table",
    "dataclass_type": "a table",
}
"""What a value must be, by pydantic's name for the error."""


@dataclass(frozen=True, slots=True)
class Named:
    """Of a field that a document has as a text: what the text stands for, such as another sheet."""

    load: Callable[[str], Any]
    """Raises ValueError or ProfileError."""

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        text = core_schema.str_schema(strict=True)
        return core_schema.no_info_after_validator_function(self.load, text)


class _AsWritten:
    """Of a number: a whole one stays one, so that it is shown as it was written."""

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def checked(value: Any, check: Callable[[Any], float]) -> float:
            number = check(value)
            return value if isinstance(value, int) else number

        return core_schema.no_info_wrap_validator_function(checked, handler(kind))


class _NotFinite:
    """Of a number that may be NaN or infinite."""

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast("CoreSchema", {**handler(kind), "allow_inf_nan": True})


Number = Annotated[float, _AsWritten()]
AnyFloat = Annotated[float, _NotFinite()]


@dataclass(frozen=True, slots=True)
class Words:
    """Of a field that may be of several types: what it must be, in words."""

    text: str

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: Any = handler(kind)
        said = {"custom_error_type": "words", "custom_error_message": self.text}
        return cast("CoreSchema", schema | said)


def load(
    kind: type[_Record],
    path: Path,
    what: str,
    error: type[AlexsimError] = ProfileError,
    *,
    schema: int | None = None,
    hint: str = "",
    completed: Callable[[Any], Any] = lambda table: table,
) -> _Record:
    """A record from a JSON file.

    Args:
        kind: the record's class.
        path: the file.
        what: what the file holds, for messages: ``baseline``.
        error: what is raised.
        schema: the version that the file's ``schema`` must state; None if files state none.
        hint: what makes such a file.
        completed: adds to the file's table what it need not say; may raise ``ProfileError``.

    Raises:
        AlexsimError: of the class ``error``: it cannot be read, is of another version, or holds
            something else.
    """
    hint = f"; {hint}" if hint else ""
    try:
        table = json_value(path.read_text(encoding="utf-8"))
    except OSError as failure:
        raise error(f"cannot read the {what} {path}: {failure.strerror}{hint}") from failure
    except (ValueError, RecursionError) as failure:
        raise error(f"{path} is not JSON: {failure}") from failure
    if schema is not None and isinstance(table, dict):
        stated = table.pop("schema", None)
        if type(stated) is not int or stated != schema:
            raise error(f"{path}: schema {stated!r}, not {schema}: no {what} of this version{hint}")
    where = f"{path} is damaged, or no {what} of this version"
    try:
        table = completed(table)
    except ProfileError as failure:
        raise error(f"{where}: {failure}") from failure
    return read(kind, table, where, error)


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
    if is_dataclass(kind):
        # Strict where JSON is: a list is a tuple there, a table a record, but no text a number.
        return parse(kind, json.dumps(table, default=_no_json), where, error)
    with _named(where, error):
        adapter = _adapter(cast(Any, kind))
        return cast(_Record, adapter.validate_python(_tuples(table), strict=True, context=READING))


def parse(
    kind: type[_Record], text: str, where: str, error: type[AlexsimError] = ProfileError
) -> _Record:
    """The same from a document's text in JSON."""
    with _named(where, error):
        return cast(_Record, _adapter(cast(Any, kind)).validate_json(text))


@contextmanager
def _named(where: str, error: type[AlexsimError]) -> Iterator[None]:
    """What pydantic finds amiss is raised as an error of ours."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as failure:
        raise error(f"{where}: {fault(failure)}".replace("\n", "\\n")) from None


def _no_json(value: object) -> dict[str, str]:
    """TOML's dates and times, which no record holds: nothing that passes for a text."""
    return {type(value).__name__: str(value)}


def _tuples(value: Any) -> Any:
    """The same with its lists as tuples: what has been read does not change."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import BaseModel, ConfigDict, TypeAdapter, with_config

    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return TypeAdapter(kind)
    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    if is_dataclass(kind):
        return TypeAdapter(with_config(config)(cast(Any, kind)))
    return TypeAdapter(kind, config=config)


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
    if first["type"] == "json_invalid":
        return f"not JSON: {first['ctx']['error']}"
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
        case "too_long":
            return f"a list of at most {limits['max_length']}"
        case kind:
            return _TYPES.get(kind, error["msg"].removeprefix("Input should be "))


def _shown(value: object) -> str:
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."

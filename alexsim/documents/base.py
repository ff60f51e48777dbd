"""Documents that say of every key what it is and which part of a record it comes from.

A field is one line: its key, its type, and with ``From`` its source, where that is not the
record's attribute of the same name. So a document can be made from a record, read back from JSON,
and described by a JSON Schema, all from the same line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from operator import attrgetter
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from alexsim.typed import READING

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class From:
    """Where a field's value lies in a record: ``"network.name"``, or a function of the record."""

    source: str | Callable[[Any], Any]


class Joined:
    """A record with others beside it, as attributes of one object."""

    def __init__(self, record: object, others: Mapping[str, object]) -> None:
        self._record, self._others = record, others

    def __getattr__(self, name: str) -> object:
        return self._others[name] if name in self._others else getattr(self._record, name)


ABSENT = object()
"""A source's value whose key is left out of the document; the field has a default then."""


class Part(BaseModel):
    """A table of a document."""

    model_config = ConfigDict(
        frozen=True,
        defer_build=True,
        populate_by_name=True,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def of(cls, record: object = None, /, **others: object) -> Self:
        """Made from a record, and from others that sources call by these names."""
        return cls.model_validate(Joined(record, others) if others else record)

    @model_validator(mode="before")
    @classmethod
    def _from_record(cls, record: object, info: ValidationInfo) -> object:
        if isinstance(record, Mapping | cls) or info.context == READING:
            return record
        values = ((name, source(record)) for name, source in _sources(cls))
        return {name: value for name, value in values if value is not ABSENT}

    def document(self) -> dict[str, Any]:
        """As tables, lists, texts and numbers; what was never said is left out."""
        return self.model_dump(mode="json", exclude_unset=True)


@cache
def _sources(kind: type[Part]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    """By field, how its value is taken from a record."""
    sources = []
    for name, field in kind.model_fields.items():
        given = next((each.source for each in field.metadata if isinstance(each, From)), name)
        sources.append((name, attrgetter(given) if isinstance(given, str) else given))
    return tuple(sources)


def _ends(interval: Any) -> Any:
    return (interval.low, interval.high) if hasattr(interval, "low") else interval


Number = Annotated[float, WithJsonSchema({"type": ["number", "null"]})]
"""A figure that need not be a number: NaN where the network puts that out, null in JSON."""
Interval = Annotated[tuple[float, float], BeforeValidator(_ends)]
"""Lowest and highest value."""


class Document(Part):
    """A whole document."""

    schema_: Annotated[int, From(lambda _: SCHEMA), Field(alias="schema")]
    """Version of this document's form."""
    alexsim: Annotated[str, From(lambda _: version("alexsim"))]
    """Version of alexsim that wrote it."""

    @classmethod
    def headed(cls, table: Mapping[str, Any]) -> Self:
        """Made from its other keys."""
        return cls.model_validate({"schema": SCHEMA, "alexsim": version("alexsim"), **table})


class NetworkDocument(Document):
    """A document on a network."""

    network: Annotated[str, From("network.name")]
    batch_size: int
    """Images per step, over all devices."""

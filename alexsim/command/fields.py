"""Commands from records: an option is one field, with its type, default and help."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, get_args, get_type_hints

import typer

from alexsim.errors import AlexsimError

REQUIRED = MISSING
"""Default of an option that has none."""


def option(
    metavar: str,
    help: str,
    default: Any = None,
    rules: tuple[_Rule, ...] | None = None,
    *,
    names: str = "",
    **typers: Any,
) -> Any:
    """A field that is an option with a value: ``--its-name``, or ``names`` as in ``-o --output``.

    A subclass may give it another default: ``batch: int = 16``. Whole numbers must be at least 1,
    others positive, unless there are other ``rules``.
    """
    typers |= {"metavar": metavar, "help": help}
    return field(
        default=default, metadata={"names": names.split(), "rules": rules, "typer": typers}
    )


def flag(help: str, default: bool | None = False, *, names: str = "") -> Any:
    """A field that is an option without a value; ``names`` as in ``--rows/--summary``."""
    return field(
        default=default, metadata={"names": names.split(), "rules": (), "typer": {"help": help}}
    )


def written_to(help: str, *endings: str, names: str = "", default: Any = None) -> Any:
    """A field that is an option with a file that is written, in the format of these endings."""
    from alexsim.command.output import check_format

    def checked(parameter: typer.CallbackParam, value: Any) -> Any:
        return check_format(option_name(parameter), value, *endings)

    return option("FILE", help, default, names=names, callback=checked)


def argument(metavar: str, help: str, **typers: Any) -> Any:
    """A field that is an argument; they stand in the order of the fields."""
    return field(metadata={"typer": typers | {"metavar": metavar, "help": help}})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of every command, and the base of every command's record."""

    json: bool = flag("One JSON document on stdout, nothing else.")


def command(function: Callable[..., None]) -> Callable[..., None]:
    """What Typer makes a command of: its parameters are the fields of the function's record.

    Args:
        function: takes ``options``, a record, and ``context`` if it wants Typer's.
    """
    hints = get_type_hints(function)
    record = hints["options"]

    def run(context: typer.Context, **given: Any) -> None:
        more = {"context": context} if "context" in hints else {}
        function(options=record(**given), **more)

    of_context = inspect.Parameter(
        "context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
    )
    run.__signature__ = inspect.Signature([of_context, *_parameters(record)])  # type: ignore[attr-defined]
    run.__doc__ = function.__doc__
    return run


def helps_of(record: type) -> dict[str, str]:
    """What each field's option is for."""
    return {name: _about(record, name)["typer"].get("help", "") for name in _names(record)}


def _about(record: type, name: str) -> Mapping[str, Any]:
    """What a field says of its option, here or in the nearest base."""
    return next(
        held.metadata
        for base in record.__mro__
        if (held := getattr(base, "__dataclass_fields__", {}).get(name)) and held.metadata
    )


def _parameters(record: type) -> Iterable[inspect.Parameter]:
    """A parameter for each field: inherited ones first, those of every command last."""
    hints = get_type_hints(record)
    of_every = _names(Options)
    defaults = {each.name: each.default for each in fields(record)}
    for name in sorted(_names(record), key=lambda name: name in of_every):
        about = _about(record, name)
        if "names" in about:
            names = about["names"] or [f"--{name.replace('_', '-')}"]
            kinds = get_args(hints[name]) or (hints[name],)
            usual = EXACT if int in kinds else POSITIVE if float in kinds else ()
            rules = usual if about["rules"] is None else about["rules"]
            check = {"callback": _checking(rules)} if rules else {}
            info = typer.Option(*names, **check | about["typer"])
        else:
            info = typer.Argument(**about["typer"])
        default = defaults[name]
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=Annotated[hints[name], info],
            default=inspect.Parameter.empty if default is MISSING else default,
        )


def _names(record: type) -> dict[str, None]:
    """Fields in the order in which the bases, from the left, and then the record have them."""
    inherited = {name: None for base in record.__bases__ for name in _names(base)}
    return inherited | dict.fromkeys(vars(record).get("__annotations__", ()))


# What is asked of the options of a command line


def option_name(parameter: Any) -> str:
    """As a message has it: ``--train-only``."""
    return max(parameter.opts, key=len)  # type: ignore[no-any-return]


def given(context: typer.Context, *names: str) -> list[str]:
    """Those of these fields that were given, their default's value or another, as options."""
    return [
        option_name(parameter)
        for parameter in context.command.params
        if parameter.name in names
        and (source := context.get_parameter_source(parameter.name))
        and source.name == "COMMANDLINE"
    ]


def refuse(context: typer.Context, why: str, *names: str) -> None:
    """Refuse what was given of these options, as it would change nothing.

    Raises:
        AlexsimError: one was; ``why`` says what it is for.
    """
    if ignored := given(context, *names):
        raise AlexsimError(f"{ignored[0]} {why}")


def listed(options: Iterable[str]) -> str:
    """Options as a sentence has them: ``--net, --batch and --data``."""
    *most, last = options
    return f"{', '.join(most)} and {last}" if most else last


# Numbers, checked as soon as they are read

_Rule = tuple[str, Callable[[float], bool]]
_AT_LEAST_1: _Rule = ("at least 1", lambda value: value >= 1)
EXACT: tuple[_Rule, ...] = (_AT_LEAST_1, (f"at most {2**53:,}", lambda value: value <= 2**53))
AT_ONCE: tuple[_Rule, ...] = (_AT_LEAST_1, ("at most 1,024", lambda value: value <= 1024))
"""Threads and processes."""
POSITIVE: tuple[_Rule, ...] = (("positive", lambda value: 0 < value < math.inf),)
NOT_NEGATIVE: tuple[_Rule, ...] = (("a number >= 0", lambda value: 0 <= value < math.inf),)


def refuse_number(option: str, value: float, rules: tuple[_Rule, ...]) -> None:
    """Refuse a number that breaks a rule.

    Raises:
        AlexsimError: it does.
    """
    for words, right in rules:
        if not right(value):
            shown = f"{value:g}" if type(value) is float else value
            raise AlexsimError(f"{option} must be {words}, got {shown}")


def _checking(rules: tuple[_Rule, ...]) -> Callable[[typer.CallbackParam, Any], Any]:
    """For Typer: what looks at an option's value."""

    def checked(parameter: typer.CallbackParam, value: Any) -> Any:
        if value is not None:
            refuse_number(option_name(parameter), value, rules)
        return value

    return checked


def whole_numbers(option: str, given: str) -> list[int]:
    """Positive whole numbers between commas, each once.

    Raises:
        AlexsimError: one of them is none.
    """
    from alexsim.explore.sweep import whole

    return list(dict.fromkeys(whole(option, text.strip()) for text in given.split(",")))

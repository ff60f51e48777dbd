"""The ``alexsim`` command, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import typer
from typer.exceptions import Abort, TyperException

from alexsim.cli.tree import MOVED, PANELS, CommandGroup
from alexsim.command.fields import option_name
from alexsim.errors import AlexsimError
from alexsim.execute.malloc import set_allocators
from alexsim.names import STREAM_ERRORS

app = typer.Typer(
    name="alexsim",
    cls=CommandGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""AlexNet as it was trained in 2012: two GPUs, 3 GB each.

    Example: alexsim train --mem-cap 3GB --gpus 2""",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"alexsim {version('alexsim')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    del version


@cache
def the_command() -> CommandGroup:
    """What Typer makes of the tree."""
    return cast(CommandGroup, typer.main.get_command(app)).fill(PANELS)


def _by_new_name(given: list[str]) -> list[str]:
    """The same command line with the command's name of today; an old name is told of."""
    new = MOVED.get(given[0]) if given else None
    if new is None:
        return given
    print(f"alexsim: `alexsim {given[0]}` is now `alexsim {new}`", file=sys.stderr)
    return [*new.split(), *given[1:]]


def _refuse_empty(given: Sequence[str]) -> None:
    """An empty value is a script's variable that was never set: nothing is meant by it.

    Raises:
        AlexsimError: there is one.
    """
    for before, text in zip(["", *given], given, strict=False):
        if text and not (text.startswith("--") and text.endswith("=")):
            continue
        option = text.rstrip("=") or (before if before.startswith("-") else "")
        raise AlexsimError(f"{option or 'an argument'} is given without a value")


def message(error: TyperException) -> str:
    """What was given, and what is allowed, where Typer says only the one or the other."""
    parameter = getattr(error, "param", None)
    cause: Any = error.__cause__
    if parameter is None or not hasattr(cause, "errors"):
        text, group = error.format_message(), getattr(getattr(error, "ctx", None), "command", None)
        if isinstance(group, CommandGroup) and "command" in text and "Did you" not in text:
            text = f"{text.rstrip('.')}; there are {', '.join(group.commands)}"
        return text
    wrong = cause.errors()[0]
    if words := parameter.type_descriptor.choices:
        allowed = f"one of {', '.join(map(str, words))}"
    else:
        allowed = wrong["msg"].removeprefix("Input should be ").partition(",")[0]
    return f"{option_name(parameter)} must be {allowed}; got {wrong['input']!r}"


_NOTHING = "nothing was kept"
_KEPT = {
    "train": "--resume goes on from the run's last checkpoint, if it has one",
    "data pack": "the same command goes on",
}
"""What Ctrl-C leaves of commands that write while they work; the others' files appear whole, or not
at all."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    0 done, 1 failed, 2 the user's mistake, 3 does not fit, 4 a gate failed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files are bytes, and need not be UTF-8.
            stream.reconfigure(errors=STREAM_ERRORS)
    given = _by_new_name(sys.argv[1:] if arguments is None else list(arguments))
    set_allocators()
    try:
        _refuse_empty(given)
        code = the_command().main(
            given or ["--help"], prog_name="alexsim", standalone_mode=False, obj=given
        )
    except AlexsimError as error:
        print(f"alexsim: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except TyperException as error:
        print(f"alexsim: {message(error)}", file=sys.stderr)
        sys.exit(2)
    except (Abort, KeyboardInterrupt):
        code = 130
    if code == 130:  # Typer makes it of Ctrl-C
        kept = next((_KEPT[name] for name in _KEPT if " ".join(given).startswith(name)), _NOTHING)
        print(f"\nalexsim: stopped; {kept}", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)

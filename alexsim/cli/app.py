"""The ``alexsim`` command: its commands, and the one place where errors become exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer
from typer.exceptions import Abort, TyperException

from alexsim.cli import bench, data, hardware, network, recipe
from alexsim.cli.calibrate import calibrate
from alexsim.cli.eval import evaluate
from alexsim.cli.export import export
from alexsim.cli.filters import filters
from alexsim.cli.flops import flops
from alexsim.cli.import_ import import_
from alexsim.cli.kernels import kernels
from alexsim.cli.memory import memory
from alexsim.cli.nearest import nearest
from alexsim.cli.predict import predict
from alexsim.cli.profile import profile
from alexsim.cli.report import report
from alexsim.cli.simulate import simulate
from alexsim.cli.sweep import sweep
from alexsim.cli.train import train
from alexsim.cli.validate import validate
from alexsim.errors import AlexsimError
from alexsim.execute.malloc import set_allocators
from alexsim.names import STREAM_ERRORS

app = typer.Typer(
    name="alexsim",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="""AlexNet as it was trained in 2012: two GPUs, 3 GB each.

    Example: alexsim train --mem-cap 3GB --gpus 2""",
)
app.command()(train)
app.command("eval")(evaluate)
app.command()(predict)
app.command()(nearest)
app.command()(filters)
app.command()(memory)
app.command()(flops)
app.command()(profile)
app.command()(report)
app.command()(simulate)
app.command()(sweep)
app.command()(validate)
app.command()(calibrate)
app.command()(kernels)
app.command()(export)
app.command(name="import")(import_)
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(hardware.app, name="hardware")
app.add_typer(network.app, name="network")
app.add_typer(recipe.app, name="recipe")


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
def the_command() -> Any:
    """What typer makes of all these functions; that takes longer than many a command."""
    return typer.main.get_command(app)


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    0 done, 1 failed, 2 the user's mistake, 3 does not fit, 4 a gate failed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files are bytes, and need not be UTF-8.
            stream.reconfigure(errors=STREAM_ERRORS)
    given = sys.argv[1:] if arguments is None else list(arguments)
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
        print(f"alexsim: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except (Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)

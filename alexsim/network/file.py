"""Networks in a user's Python files: ``FILE.py:NAME``."""

from __future__ import annotations

import contextlib
import runpy
import sys
import traceback
from pathlib import Path

from alexsim.errors import NetworkError
from alexsim.network.network import Network


def network_in(path: str, name: str) -> Network:
    """What a Python file calls ``name``; the file is run, and what it prints goes to stderr.

    Raises:
        NetworkError: there is no such file, it fails in whatever way, or nothing in it that is a
            ``Network`` has that name.
    """
    if not Path(path).is_file():
        raise NetworkError(f"no network '{path}:{name}': there is no file {path}")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            names = runpy.run_path(path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise NetworkError(f"{_place(path, error)}: {_in_one_line(error)}") from error
    network = names.get(name)
    if isinstance(network, Network):
        return network
    networks = [key for key, value in names.items() if isinstance(value, Network)]
    has = f"it has {', '.join(networks)}" if networks else "it has none at all"
    if not name:
        raise NetworkError(f"{path}: say which of its networks, as in {path}:NAME ({has})")
    kind = f", but something of type {type(network).__name__}" if name in names else ""
    raise NetworkError(f"{path} has no Network called {name!r}{kind} ({has})")


def _place(path: str, error: BaseException) -> str:
    """The file's line that failed, or that called what failed."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if frame.filename == path]  # fmt: skip
    if not lines and isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    return f"{path}:{lines[-1]}" if lines and lines[-1] else path


def _in_one_line(error: BaseException) -> str:
    """An error's kind and text in one line."""
    if isinstance(error, NetworkError):
        return str(error)
    # Unlike str(error) this copes with errors that cannot be printed.
    lines = traceback.format_exception_only(error)
    at = ""
    if isinstance(error, SyntaxError) and error.filename:
        at = f" ({Path(error.filename).name}, line {error.lineno})"
    return " ".join("".join(lines[-1:] if at else lines).split()) + at

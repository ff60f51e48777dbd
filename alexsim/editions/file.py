"""Networks in a user's Python files: ``FILE.py:NAME``, or ``FILE.py:NAME@3x224x224``.

A name may be a ``Network``, a ``torch.nn.Module``, a function that returns either, or a module's
class. Behind ``@`` stands the shape of a module's images; 3 x 224 x 224 by default, or what the
module has as its attribute ``input_shape``.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import runpy
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from alexsim.errors import NetworkError
from alexsim.network.network import Network

_SHAPE = re.compile(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5}){0,3}")
_RUN = "<run_path>"
"""What such a file is called to itself."""
_READER = "alexsim.interchange.from_torch"
"""What makes a network of a module."""


def network_in(path: str, name: str) -> Network:
    """What a Python file calls ``name``; the file is run, and what it prints goes to stderr.

    Raises:
        NetworkError: there is no such file, it fails in whatever way, or nothing in it that is a
            network or a module has that name.
    """
    if not Path(path).is_file():
        raise NetworkError(f"no network '{path}:{name}': there is no file {path}")
    name, at, shape = name.partition("@")
    if at and not _SHAPE.fullmatch(shape):
        raise NetworkError(
            f"{path}:{name}@ needs a shape of images, as in @3x224x224; got {shape!r}"
        )
    names = _run(path)
    if not name:
        raise NetworkError(
            f"{path}: say which of its networks, as in {path}:NAME ({_listed(names)})"
        )
    given: Any = names.get(name)
    called = callable(given) and not _is_module(given)
    if called:
        given = _called(path, name, given)
    if isinstance(given, Network):
        if at:
            raise NetworkError(f"{path}:{name} is a Network, which has its own shape: leave @ out")
        return given
    if not _is_module(given):
        what = f"{name}() returns" if called else "but"
        kind = f", {what} something of type {type(given).__name__}" if name in names else ""
        raise NetworkError(
            f"{path} has no Network and no torch.nn.Module called {name!r}{kind} ({_listed(names)})"
        )
    try:
        # By name, where a file has made a module and so loaded torch: this room knows neither.
        from_torch = importlib.import_module(_READER).from_torch
        extents = tuple(int(extent) for extent in shape.split("x")) if at else None
        return cast(Network, from_torch(given, extents, name=name))
    except NetworkError as error:
        raise NetworkError(f"{path}:{name}: {error}") from error


def _run(path: str) -> dict[str, Any]:
    try:
        with contextlib.redirect_stdout(sys.stderr), _beside(path):
            return runpy.run_path(path, run_name=_RUN)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise NetworkError(f"{_place(path, error)}: {_in_one_line(error)}") from error


@contextlib.contextmanager
def _beside(path: str) -> Any:
    """The file may import what lies beside it, as when Python runs it."""
    folder = str(Path(path).resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _called(path: str, name: str, function: Any) -> Any:
    """What a function, or a module's class, returns that needs no arguments."""
    needed = _needed(function)
    if needed is None:
        return function
    if needed:
        raise NetworkError(
            f"{path}:{name} needs arguments ({', '.join(needed)}): name a function that needs none"
        )
    try:
        with contextlib.redirect_stdout(sys.stderr), _beside(path):
            return function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise NetworkError(f"{_place(path, error)}: {name}(): {_in_one_line(error)}") from error


def _needed(function: Any) -> list[str] | None:
    """Arguments without which it cannot be called; None if nobody knows."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def _is_module(value: Any) -> bool:
    """Whether it is a ``torch.nn.Module``; no such thing is where torch is not loaded."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _is_class(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, type) and issubclass(value, torch.nn.Module)


def _listed(names: Mapping[str, Any]) -> str:
    """What can be named: networks and modules, classes and functions of the file's own that
    need no arguments."""
    kinds = [key for key, value in names.items() if isinstance(value, Network) or _is_module(value)]
    made = [
        key
        for key, value in names.items()
        if (inspect.isfunction(value) or _is_class(value))
        and value.__module__ == _RUN
        and _needed(value) == []
    ]
    return f"it has {', '.join(kinds + made)}" if kinds + made else "it has none at all"


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

"""The commands as functions: what each takes and answers is the command's own.

An option is a keyword argument of the same name, with ``_`` for ``-``; a flag is ``True``, an
option that may be given several times takes a list. What is wrong is said in the command line's
words, by an ``AlexsimError``. Progress goes to stderr where that is a terminal.
"""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, TypeGuard, get_type_hints

from alexsim.command.answer import Given, taking
from alexsim.command.fields import helps_of
from alexsim.errors import AlexsimError, GateError, MemoryBudgetError, unknown

if TYPE_CHECKING:
    import pandas
    import torch
    from plotly.graph_objects import Figure
    from rich.console import Console

    from alexsim.documents.base import Document
    from alexsim.page.inputs import Subject

COMMANDS = {
    "calibrate": "check calibrate",
    "evaluate": "eval",
    "flops": "flops",
    "memory": "memory",
    "profile": "profile",
    "recommend": "recommend",
    "report": "report",
    "simulate": "simulate",
    "sweep": "sweep",
    "train": "train",
    "validate": "check validate",
}
"""By function, the command that answers."""
_WIDTH, _NOTEBOOK_WIDTH = 80, 100
"""Columns of what is printed, and of what a notebook shows."""
_SHORT = 60
"""Characters of a value that an error shows."""


class Answer:
    """What a command answers.

    Prints as the command's table, shows as that in a notebook; every key of the command's
    ``--json`` document is an attribute.
    """

    def __init__(self, given: Given, problem: AlexsimError | None) -> None:
        self._given = given
        self.problem = problem
        """That it does not fit, or that a gate failed: a command's exit code 3 or 4; or None."""

    @cached_property
    def document(self) -> Document:
        """The document that ``--json`` prints: typed, with ``.document()`` as plain tables."""
        return self._given.document()

    def __getattr__(self, name: str) -> Any:  # of whatever type the document's key has
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in (known := type(self.document).model_fields):
            raise AttributeError(f"{unknown('key', name, tuple(known))}")
        return getattr(self.document, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *type(self.document).model_fields]

    def __repr__(self) -> str:
        text = io.StringIO()
        self._print(file=text, width=_WIDTH)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _print(self, *, file: io.StringIO, width: int, record: bool = False) -> Console:
        """The tables, into that file, also where rich would show them in a notebook's cell."""
        from rich.console import Console

        console = Console(
            file=file, width=width, record=record, highlight=False, force_jupyter=False
        )
        console.print(self._given.tables(width))
        return console

    def _repr_html_(self) -> str:
        console = self._print(file=io.StringIO(), width=_NOTEBOOK_WIDTH, record=True)
        code = '<pre style="line-height:normal;font-family:monospace">{code}</pre>'
        return console.export_html(inline_styles=True, code_format=code)

    def to_pandas(self, table: str = "") -> pandas.DataFrame:
        """A list of records of the document as a DataFrame; nested keys are joined by dots.

        Args:
            table: the list's key, such as ``layers``, ``ops`` or ``points``; by default the first.

        Raises:
            AlexsimError: the document has no such list.
        """
        import pandas

        if not table and self._given.rows:
            return pandas.DataFrame(self._given.rows())
        document = self.document.document()
        lists = {
            key: value
            for key, value in document.items()
            if isinstance(value, list) and value and isinstance(value[0], Mapping)
        }
        name = table or next(iter(lists), "")
        if name not in lists:
            raise AlexsimError(f"no table {name!r}; there are {', '.join(lists) or 'none'}")
        return pandas.json_normalize(lists[name])

    def plot(self, name: str = "") -> Figure:
        """A figure of Plotly, which a notebook draws; by default the first.

        Raises:
            AlexsimError: there is no such figure.
        """
        figures = self._given.figures() if self._given.figures else {}
        if (chosen := name or next(iter(figures), "")) not in figures:
            raise AlexsimError(f"no figure {chosen!r}; there are {', '.join(figures) or 'none'}")
        return figures[chosen]


def call(name: str, *arguments: object, **options: object) -> Answer:
    """What the command of that name answers.

    Args:
        name: of the function.
        arguments: the network, of ``calibrate``, ``flops``, ``memory``, ``profile``, ``simulate``,
            ``sweep`` and ``train``: a name, a ``Network``, or a PyTorch module's file as
            ``FILE.py:NAME``; of ``evaluate`` and ``report`` what they are about.
        options: by name.

    Raises:
        AlexsimError: what the command would have said on stderr.
    """
    from typer.exceptions import TyperException

    from alexsim.cli.app import message, the_command

    command: Any = the_command()
    for word in COMMANDS[name].split():
        command = command.commands[word]
    words = _words(command, name, arguments, options)
    with taking() as taken:
        try:
            # Processes that a run begins are given its whole command line.
            line = [*COMMANDS[name].split(), *words]
            command.main(words, prog_name=COMMANDS[name], standalone_mode=False, obj=line)
        except TyperException as error:
            raise AlexsimError(message(error)) from error
        except (MemoryBudgetError, GateError) as error:
            if not taken:
                raise
            return Answer(taken[-1], error)
    if not taken:
        raise AlexsimError(f"{name}: another process of this run answers")
    return Answer(taken[-1], None)


def _words(
    command: Any, name: str, arguments: tuple[object, ...], options: Mapping[str, object]
) -> list[str]:
    """The command line of these arguments."""
    from alexsim.network.network import Network

    known = {parameter.name: parameter for parameter in command.params}
    given = dict(options)
    alone = next((p.name for p in command.params if not p.opts[0].startswith("-")), None)
    words: list[str] = []
    if arguments and alone in given:
        raise AlexsimError(f"{name}: {alone} are given twice, by place and by name")
    if arguments and alone is None:
        if len(arguments) > 1 or "net" in given:
            raise AlexsimError(f"{name} takes one network, and options by name")
        given["net"] = arguments[0]
    if _is_module(module := given.get("net")):
        from alexsim.interchange.from_torch import from_torch

        given["net"] = from_torch(module)
    if name == "train" and isinstance(given.get("net"), Network):
        raise AlexsimError(
            "train: a run is resumed from its network's name, and a network that only this program"
            " has cannot be found again; write it in a file, and give FILE.py:NAME"
        )
    for option, value in given.items():
        if option not in known or option in ("json", "help"):
            others = [each for each in known if each not in ("json", "help")]
            raise AlexsimError(unknown(f"option of {name}", option, tuple(others)))
        if option != alone:
            words += _option(known[option], value)
    if alone is None:
        return words
    about = arguments or (given.get(alone, ()),)
    flat = [each for a in about for each in (a if isinstance(a, list | tuple) else [a])]
    return [*words, *map(str, flat)]


def _option(parameter: Any, value: object) -> list[str]:
    from alexsim.editions.load import held
    from alexsim.network.network import Network

    flag = max(parameter.opts, key=len)
    match value:
        case None:
            return []
        case True if parameter.is_flag:
            return [flag]
        case False if parameter.is_flag:
            return [max(parameter.secondary_opts, key=len)] if parameter.secondary_opts else []
        case list() | tuple():
            return [word for each in value for word in _option(parameter, each)]
        case Network():
            return [flag, held(value)]
        case str() | int() | float() | Path():
            return [flag, str(value)]
    text = repr(value)
    short = text if len(text) <= _SHORT else f"{text[:_SHORT]}..."
    raise AlexsimError(f"{parameter.name} must be text or a number; got {short}")


def _is_module(value: object) -> TypeGuard[torch.nn.Module]:
    """Whether it is a PyTorch module; then PyTorch has been imported."""
    imported = sys.modules.get("torch")
    return imported is not None and isinstance(value, imported.nn.Module)


def open_run(folder: str | Path) -> Subject:
    """A run directory: its settings, metrics, figures (``figures()``, ``plot(name)``).

    Raises:
        RunError: it holds no run, or one of its files is damaged.
    """
    from alexsim.page.inputs import run_subject

    return run_subject(Path(folder))


def function(name: str) -> Callable[..., Answer]:
    """A command's function: its options as the signature, its help and theirs as the text."""
    from alexsim.cli.tree import target_of

    command = resolve_name(target_of(COMMANDS[name]))
    record = get_type_hints(command)["options"]

    def run(*arguments: object, **options: object) -> Answer:
        return call(name, *arguments, **options)

    run.__name__ = run.__qualname__ = name
    run.__module__ = "alexsim"
    run.__signature__ = _signature(record)  # type: ignore[attr-defined]
    about = helps_of(record)
    told = [
        f"    {each.name} ({_kind(each)}): {about[each.name]}"
        for each in inspect.signature(run).parameters.values()
    ]
    returns = "    Answer: every key of the command's ``--json`` document is an attribute of it."
    text = inspect.getdoc(command)
    run.__doc__ = "\n".join((f"{text}\n\nArgs:", *told, "", "Returns:", returns))
    return run


def _kind(option: inspect.Parameter) -> str:
    """Its type and what it is by default."""
    kind = (
        inspect.formatannotation(option.annotation).replace("typing.", "").replace("pathlib.", "")
    )
    if option.default in (None, option.empty):
        return kind
    return f"{kind}, default {option.default!r}"


def _signature(record: type) -> inspect.Signature:
    """What stands alone comes first; everything else is given by name, in the help's order."""
    hints, kind, order = get_type_hints(record), inspect.Parameter, list(helps_of(record))
    parameters = []
    for each in sorted(fields(record), key=lambda field: order.index(field.name)):
        alone = "names" not in each.metadata or each.name == "net"
        parameters.append(
            kind(
                each.name,
                kind.POSITIONAL_OR_KEYWORD if alone else kind.KEYWORD_ONLY,
                annotation=hints[each.name],
                default=kind.empty if each.default is MISSING else each.default,
            )
        )
    parameters = [each for each in parameters if each.name != "json"]
    return inspect.Signature(
        sorted(parameters, key=lambda each: (each.kind, each.default is not kind.empty)),
        return_annotation=Answer,
    )

"""What a command answers: printed for a command line, handed over to whoever calls it in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alexsim.command import options as shared
from alexsim.command import output
from alexsim.command.fields import Options

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from rich.console import RenderableType

    from alexsim.documents.base import Document


@dataclass(frozen=True, kw_only=True)
class Given:
    """An answer whose parts are made when they are looked at."""

    document: Callable[[], Document]
    """What ``--json`` prints."""
    tables: Callable[[int], RenderableType]
    """What a terminal of so many columns shows."""
    figures: Callable[[], dict[str, Figure]] | None = None
    """Figures by name, where there are some."""
    rows: Callable[[], list[dict[str, Any]]] | None = None
    """Flat records, where these are more at hand than the document's lists."""


_TAKER: ContextVar[list[Given] | None] = ContextVar("taker", default=None)


@contextmanager
def taking() -> Iterator[list[Given]]:
    """Whatever commands answer meanwhile is not printed, and lands in this list."""
    taken: list[Given] = []
    token = _TAKER.set(taken)
    try:
        yield taken
    finally:
        _TAKER.reset(token)


def give(options: Options, answer: Given, *, soft_wrap: bool = False, quiet: bool = False) -> None:
    """Print an answer as the options ask, or hand it over.

    Args:
        options: of the command; ``json`` prints the document.
        answer: what it is.
        soft_wrap: lines may be longer than the terminal is wide.
        quiet: a file has it all, so that nothing is printed.
    """
    taken = _TAKER.get()
    if taken is not None:
        taken.append(answer)
    elif quiet:
        return
    elif options.json:
        output.print_json(answer.document())
    else:
        console = shared.console()
        console.print(answer.tables(console.width), soft_wrap=soft_wrap)

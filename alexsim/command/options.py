"""Options that several commands have, and what all of them show on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alexsim.command import complete
from alexsim.command.fields import Options, option, written_to
from alexsim.command.output import check_file, check_trace
from alexsim.machine.defaults import MACHINE

if TYPE_CHECKING:
    from rich.console import Console


def edition(net: str) -> str:
    """A network's name as lists have it: recipes and baselines go by it."""
    from alexsim.editions.load import as_written

    return as_written(net)


def machine_as_written(name: str) -> str:
    """A machine's name as lists have it."""
    from alexsim.machine.counted import as_written

    return as_written(name)


@dataclass(frozen=True, kw_only=True)
class NetOptions(Options):
    """A network."""

    net: str = option(
        "EDITION",
        "Network: see `alexsim network list`; or your own, as FILE.py:NAME. Variants are added with"
        " +, as in alexnet-paper+no-lrn+tanh.",
        "alexnet-2012",
        callback=edition,
        autocompletion=complete.networks,
    )


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """A minibatch."""

    batch: int = option("N", "Images per step, over all GPUs.", 128)


@dataclass(frozen=True, kw_only=True)
class MachineOptions(Options):
    """A machine that is predicted."""

    machine: str = option(
        "NAME",
        "Machine, device or TOML file to predict: see `alexsim hardware list`.",
        MACHINE,
        callback=machine_as_written,
        autocompletion=complete.machines,
    )


@dataclass(frozen=True, kw_only=True)
class OutputOptions(Options):
    """A file instead of stdout."""

    output: Path | None = option(
        "FILE", "Write there, not stdout.", names="-o --output", callback=check_file
    )


def output_to(*endings: str) -> Any:
    """The same where what is written has the format of these endings."""
    return written_to("Write there, not stdout.", *endings, names="-o --output")


@dataclass(frozen=True, kw_only=True)
class TraceOptions(Options):
    """A timeline."""

    trace: Path | None = option(
        "FILE",
        "Write the steps for ui.perfetto.dev, as FILE.json.gz; into a folder, DIR/, one file per"
        " virtual GPU, for Holistic Trace Analysis.",
        callback=check_trace,
    )


@contextmanager
def counting(what: str, total: int, *, at_once: bool = False) -> Iterator[Callable[[float], None]]:
    """A bar on stderr with an estimate of what is left; silent where stderr is no terminal.

    In a notebook it stands under the cell, if ipywidgets are there to draw it.
    ``at_once`` draws at every step: for work that keeps stderr to itself between steps.
    """
    from rich.progress import Progress

    there, shown = bar_console()
    with Progress(console=there, transient=True, disable=not shown) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done, refresh=at_once)


def bar_console() -> tuple[Console, bool]:
    """Where bars are drawn, and whether they are: on a terminal and in a notebook."""
    from rich.console import Console

    widgets = find_spec("ipywidgets") is not None
    there = Console(stderr=True, force_jupyter=None if widgets else False)
    return there, sys.stderr.isatty() or there.is_jupyter


def console() -> Console:
    """Terminal for results; plain and 80 columns wide where stdout is no terminal."""
    from rich.console import Console

    made = Console(highlight=False, force_jupyter=False)
    return made if made.is_terminal else Console(highlight=False, width=80, force_jupyter=False)

"""Options that mean the same in every command."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console


def edition(net: str) -> str:
    """A network's name as lists have it: recipes and baselines go by it."""
    from alexsim.network.editions import as_written

    return as_written(net)


Net = Annotated[
    str,
    typer.Option(
        "--net",
        metavar="EDITION",
        callback=edition,
        help="Network: see `alexsim network list`; or your own, as FILE.py:NAME. Variants are"
        " added with +, as in alexnet-paper+no-lrn+tanh.",
    ),
]


def given(context: typer.Context, *names: str) -> list[str]:
    """Those of these parameters that were given, their default's value or another, as options."""
    sources = {one: context.get_parameter_source(str(one.name)) for one in context.command.params}
    return [
        max(parameter.opts, key=len)
        for parameter, source in sources.items()
        if parameter.name in names and source is not None and source.name == "COMMANDLINE"
    ]


def refuse(context: typer.Context, why: str, *names: str) -> None:
    """Refuse what was given of these options, as it would change nothing.

    Raises:
        AlexsimError: one was; ``why`` says what it is for.
    """
    from alexsim.errors import AlexsimError

    if ignored := given(context, *names):
        raise AlexsimError(f"{ignored[0]} {why}")


def _checked_batch(size: int) -> int:
    from alexsim.cli.parse import positive

    positive("--batch", size)
    return size


Batch = Annotated[
    int,
    typer.Option("--batch", metavar="N", callback=_checked_batch, help="Images per step."),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        "--gpus",
        metavar="N",
        help="Virtual GPUs: one per column (the default), or 1 for all; `hybrid`: any number.",
    ),
]
ColumnGpus = Annotated[
    int | None,
    typer.Option(
        "--gpus",
        metavar="N",
        help="Virtual GPUs: one per column (the default), or 1 for all.",
    ),
]
"""Where no --partition says otherwise."""
MemCap = Annotated[
    str | None,
    typer.Option(
        "--mem-cap",
        metavar="SIZE",
        help="Memory budget of each GPU, as in 3GB (= 3 x 1024^3 bytes). Default: the usable"
        " memory of a GTX 580 with 3 GB.",
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        metavar="POLICY",
        help="Memory: `as-released` keeps every buffer of 2012, `in-place` lets ReLU overwrite,"
        " `reuse` shares by lifetime.",
    ),
]
Schedule = Annotated[
    str,
    typer.Option("--schedule", metavar="SCHEDULE", help="`serial` as in 2012, or `overlap`."),
]
Partition = Annotated[
    str,
    typer.Option(
        "--partition",
        metavar="PARTITION",
        help="`columns`, as the network is written; `hybrid`: a copy of the convolutions on every"
        " GPU, and a share of each fully connected layer, as in 2014 (networks of one column).",
    ),
]
VariableBatch = Annotated[
    bool,
    typer.Option(
        "--variable-batch",
        help="With --partition hybrid: update fully connected layers after each GPU's images.",
    ),
]
Fuse = Annotated[
    bool,
    typer.Option(
        "--fuse",
        help="As if one kernel did two layers: a product and its ReLU, a response norm and its"
        " max-pool. 2012's kernels did not.",
    ),
]
RunFuse = Annotated[
    bool | None,
    typer.Option(
        "--fuse/--no-fuse",
        help="One kernel for two layers, where --backend has one: a product and its ReLU; with"
        " `triton` also a response norm and its max-pool. Default: with --backend triton --policy"
        " reuse.",
    ),
]
"""Where something runs."""
TrainOnly = Annotated[
    str,
    typer.Option(
        "--train-only",
        metavar="LAYERS",
        help="Only these layers learn, as in fc8 or fc7,fc8; no gradient that none of them needs"
        " is computed or kept.",
    ),
]
Optimizer = Annotated[
    str,
    typer.Option(
        "--optimizer",
        metavar="RULE",
        help="By which weights are updated: `sgd-2012`, or `sgd` or `adamw` as PyTorch has them."
        " Default: sgd-2012, or that of --recipe.",
    ),
]
PlannedOptimizer = Annotated[
    str,
    typer.Option(
        "--optimizer",
        metavar="RULE",
        help="By which weights are updated: `sgd-2012`, or `sgd` or `adamw` as PyTorch has them.",
    ),
]
"""Where there is no --recipe."""
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.")]


def checked_file(path: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before anything is computed for it."""
    from alexsim.cli.output import check_file

    if path is not None:
        check_file(path)
    return path


Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", callback=checked_file, help="Write there, not stdout."
    ),
]


def _checked_trace(path: Path | None) -> Path | None:
    from alexsim.cli.output import check_trace

    if path is not None:
        check_trace(path)
    return path


Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        callback=_checked_trace,
        help="Write the steps for ui.perfetto.dev, as FILE.json.gz; into a folder, DIR/, one file"
        " per virtual GPU, for Holistic Trace Analysis.",
    ),
]


def listed(options: Iterable[str]) -> str:
    """Options as a sentence has them: ``--net, --batch and --data``."""
    *most, last = options
    return f"{', '.join(most)} and {last}" if most else last


@contextmanager
def counting(what: str, total: int, *, at_once: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on stderr with an estimate of what is left; silent where stderr is no terminal.

    ``at_once`` draws at every step: for work that keeps stderr to itself between steps.
    """
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done, refresh=at_once)


def console() -> Console:
    """Terminal for results; plain and 80 columns wide where stdout is no terminal."""
    from rich.console import Console

    made = Console(highlight=False)
    return made if made.is_terminal else Console(highlight=False, width=80)

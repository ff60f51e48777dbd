"""``alexsim bench``: figures against a stored baseline, for continuous integration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options

if TYPE_CHECKING:
    from alexsim.bench.runner import Selection

app = typer.Typer(
    help="""Counted figures exactly, times as ratios: gates that hold on noisy machines.

    Example: alexsim bench compare"""
)

Only = Annotated[
    str,
    typer.Option(
        "--only",
        metavar="KIND",
        help="`counted`: exact figures; `timed`: ratios. Default: both.",
    ),
]
Kernels = Annotated[
    bool,
    typer.Option(
        "--kernels/--no-kernels",
        help="Also compile the Triton kernels (a minute or two the first time).",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch", metavar="N", help="Images of a timed step.")]
BaselineFile = Annotated[
    Path | None,
    typer.Option(
        "--baseline", metavar="FILE", help="Baseline. Default: the one that ships with alexsim."
    ),
]
_BATCH = 8
_TOLERANCE = 5.0


@app.command(name="run")
def run_command(
    context: typer.Context,
    net: options.Net = "alexnet-2012",
    batch: BatchSize = _BATCH,
    only: Only = "",
    kernels: Kernels = True,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Measure, and compare with nothing.

    Example: alexsim bench run --only timed
    """
    from alexsim.bench.runner import run
    from alexsim.cli.output import json_text, print_json, write_text
    from alexsim.report.bench import bench_tables
    from alexsim.report.documents.bench import bench_document

    selection = _selection(context, net, batch, only, kernels=kernels)
    with _progress() as progress:
        found = run(selection, progress)
    if output is not None:
        write_text(output, json_text(bench_document(found)))
    if json:
        print_json(bench_document(found))
    elif output is None:
        options.console().print(bench_tables(found))


@app.command()
def compare(
    context: typer.Context,
    net: options.Net = "alexnet-2012",
    batch: BatchSize = _BATCH,
    only: Only = "",
    kernels: Kernels = True,
    baseline: BaselineFile = None,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="PERCENT", help="How much slower a case may be."),
    ] = _TOLERANCE,
    json: options.Json = False,
) -> None:
    """Measure and judge. Exit code 4 if a counted figure changed or a case is surely slower.

    A case is slower when the whole interval of its ratio, in this process and in two others, is
    beyond the baseline's by more than the tolerance. Ratios are judged where the baseline has
    this machine; counted figures everywhere.

    Example: alexsim bench compare --net mine.py:net --baseline mine.json
    """
    from alexsim.bench.runner import compare as judge
    from alexsim.bench.store import default_path, load
    from alexsim.cli.output import print_json
    from alexsim.errors import AlexsimError, GateError
    from alexsim.report.bench import verdict_tables
    from alexsim.report.documents.bench import bench_document

    if not 0 <= tolerance < math.inf:
        raise AlexsimError(f"--tolerance must be a number >= 0, got {tolerance:g}")
    selection = _selection(context, net, batch, only, kernels=kernels)
    stored = load(baseline or default_path(net))
    with _progress() as progress:
        found, verdicts = judge(selection, stored, tolerance=tolerance / 100, progress=progress)
    if json:
        print_json(bench_document(found, verdicts))
    else:
        options.console().print(verdict_tables(found, verdicts, tolerance=tolerance / 100))
    failing = [verdict.name for verdict in verdicts if verdict.fails]
    if failing:
        more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
        raise GateError(f"the gate failed: {', '.join(failing[:3])}{more}")


@app.command()
def update(
    context: typer.Context,
    net: options.Net = "alexnet-2012",
    batch: BatchSize = _BATCH,
    only: Only = "",
    kernels: Kernels = True,
    baseline: BaselineFile = None,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", help="How often each case is timed.")
    ] = 5,
    json: options.Json = False,
) -> None:
    """Measure, and make that the baseline; other machines' ratios in it stay.

    Example: alexsim bench update --net mine.py:net --baseline mine.json
    """
    from dataclasses import replace

    from alexsim.bench.runner import run
    from alexsim.bench.store import default_path, document, load, updated
    from alexsim.cli.output import check_file, json_text, print_json, write_text
    from alexsim.cli.parse import positive
    from alexsim.report.bench import left_out

    positive("--runs", runs)
    selection = _selection(context, net, batch, only, kernels=kernels)
    path = baseline or default_path(net)
    check_file(path)
    before = load(path) if path.exists() else None
    with _progress() as progress:
        found = [run(selection, progress)]
        again = replace(selection, counted=False)
        found += [run(again, progress) for _ in range(runs - 1 if selection.timed else 0)]
    made = updated(before, [*found[:-1], replace(found[-1], counted=found[0].counted)])
    write_text(path, json_text(document(made)))
    if json:
        from alexsim.report.documents.bench import baseline_document

        print_json(baseline_document(made))
        return
    options.console().print(
        f"{path}: {len(made.counted)} counted figures, ratios of {len(made.machines)} machine(s)"
        f"{left_out(found[0])}",
        soft_wrap=True,
    )


def _selection(
    context: typer.Context, net: str, batch: int, only: str, *, kernels: bool
) -> Selection:
    from alexsim.bench.runner import Selection
    from alexsim.cli.parse import choice, positive
    from alexsim.network.editions import load_network

    positive("--batch", batch)
    if only:
        choice("--only", only, ("counted", "timed"))
    if only == "counted":
        options.refuse(context, "is for timed cases", "batch", "tolerance", "runs")
    if only == "timed":
        options.refuse(context, "is for counted figures", "kernels")
    load_network(net)
    return Selection(
        network=net,
        batch_size=batch,
        counted=only != "timed",
        timed=only != "counted",
        kernels=kernels,
    )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    with options.counting("measuring", 100) as done:
        yield lambda _what, count, total: done(100 * count // max(1, total))

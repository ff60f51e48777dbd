"""``alexsim report``: one HTML page on a run, a profile or a plan, or on two of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alexsim.cli import options
from alexsim.cli.simulate import MACHINE, MachineName

if TYPE_CHECKING:
    from alexsim.report.page.inputs import Subject, Wanted

_FOR_EDITIONS = ("batch", "gpus", "policy", "schedule", "machine")


def report(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="A run directory, a file of `alexsim profile -o`, or a network's name; two of"
            " them are compared.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Write the page there.")
    ] = Path("report.html"),
    batch: options.Batch = 128,
    gpus: options.Gpus = None,
    policy: options.Policy = "as-released",
    schedule: options.Schedule = "serial",
    machine: MachineName = MACHINE,
) -> None:
    """Draw one HTML page that needs no network: times, roofline, memory, timeline, curves, filters.

    --batch, --gpus, --policy, --schedule and --machine are for a network's name, which is planned
    and predicted; a run and a profile have their own.

    Example: alexsim report runs/today -o today.html

    Example: alexsim report alexnet-2012 --machine k20x2 --batch 64

    Example: alexsim report runs/monday runs/tuesday -o both.html
    """
    from alexsim.cli.output import write_text
    from alexsim.cli.parse import as_policy, as_schedule, positive
    from alexsim.errors import AlexsimError
    from alexsim.report.page.compare import comparison
    from alexsim.report.page.inputs import Wanted
    from alexsim.report.page.page import page
    from alexsim.units import format_bytes

    if len(inputs) > 2:
        raise AlexsimError(f"one input makes a page, two are compared; got {len(inputs)}")
    given = options.given(context, *_FOR_EDITIONS)
    if given and all(Path(one).exists() for one in inputs):
        raise AlexsimError(
            f"{given[0]} is for a network's name; {' and '.join(inputs)} have their own"
        )
    positive("--batch", batch)
    wanted = Wanted(
        network="",
        batch_size=batch,
        gpus=gpus,
        policy=as_policy(policy),
        schedule=as_schedule(schedule),
        machine=machine,
    )
    subjects = [_subject(one, wanted) for one in inputs]
    made = page(subjects[0]) if len(subjects) == 1 else comparison(*subjects)
    write_text(output, made)
    typer.echo(f"{output}: {format_bytes(len(made.encode()))}, opens in any browser")


def _subject(given: str, wanted: Wanted) -> Subject:
    """What was named: a folder is a run, a file is a profile, anything else is a network."""
    from dataclasses import replace

    from alexsim.errors import AlexsimError
    from alexsim.report.page.inputs import plan_subject, profile_subject, run_subject

    path = Path(given)
    if path.is_dir():
        return run_subject(path)
    if path.exists():
        return profile_subject(path)
    if "/" in given or path.suffix:
        raise AlexsimError(f"there is no {given}")
    return plan_subject(replace(wanted, network=given))

"""``alexsim report``: one HTML page on a run, a profile or a plan, or on several of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alexsim.cli import options
from alexsim.cli.simulate import MACHINE, MachineName

if TYPE_CHECKING:
    from alexsim.report.page.inputs import Subject

_FOR_EDITIONS = ("batch", "gpus", "policy", "schedule", "machine")


def report(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="A run directory, a file of `alexsim profile -o`, or a network's name as of --net;"
            " several of them are compared.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            callback=options.checked_file,
            help="Write the page there.",
        ),
    ] = Path("report.html"),
    batch: options.Batch = 128,
    gpus: options.ColumnGpus = None,
    policy: options.Policy = "as-released",
    schedule: options.Schedule = "serial",
    machine: MachineName = MACHINE,
    json: options.Json = False,
) -> None:
    """Draw one HTML page that needs no network: times, roofline, memory, timeline, curves, filters.

    --batch, --gpus, --policy, --schedule and --machine are for a network's name, which is planned
    and predicted; a run and a profile have their own, and a network beside one of them takes its
    batch size, policy and schedule, and the same network its GPUs too.

    Example: alexsim report runs/today -o today.html

    Example: alexsim report alexnet-2012 --machine k20x2 --batch 64

    Example: alexsim report runs/monday runs/tuesday alexnet-2012 -o all.html
    """
    from dataclasses import replace

    from alexsim.cli.output import print_json, write_text
    from alexsim.cli.parse import as_policy, as_schedule
    from alexsim.errors import AlexsimError
    from alexsim.report.page.compare import comparison
    from alexsim.report.page.inputs import Wanted, beside, plan_subject
    from alexsim.report.page.page import page
    from alexsim.units import format_bytes

    given = options.given(context, *_FOR_EDITIONS)
    if given and all(Path(one).exists() for one in inputs):
        raise AlexsimError(
            f"{given[0]} is for a network's name; {' and '.join(inputs)} have their own"
        )
    asked = {
        "batch_size": batch,
        "gpus": gpus,
        "policy": as_policy(policy),
        "schedule": as_schedule(schedule),
        "machine": machine,
    }
    changed: dict[str, Any] = {
        key: value for key, value in asked.items() if f"--{key.partition('_')[0]}" in given
    }
    ran = [_measured(one) for one in inputs]
    like = next(filter(None, ran), None)
    subjects = [
        one
        or plan_subject(replace(beside(like, name) if like else Wanted(network=name), **changed))
        for one, name in zip(ran, inputs, strict=True)
    ]
    made = page(subjects[0]) if len(subjects) == 1 else comparison(*subjects)
    write_text(output, made)
    if json:
        from alexsim.report.documents.page import page_document

        print_json(page_document(subjects, output, len(made.encode())))
        return
    typer.echo(f"{output}: {format_bytes(len(made.encode()))}, opens in any browser")


def _measured(given: str) -> Subject | None:
    """A folder is a run, a file a profile; None for a name, or FILE.py:NAME, of a network."""
    from alexsim.errors import AlexsimError
    from alexsim.report.page.inputs import profile_subject, run_subject

    path = Path(given)
    if path.is_dir():
        return run_subject(path)
    if given.endswith(".py") or ".py:" in given:
        return None
    if path.exists():
        return profile_subject(path)
    if "/" in given or path.suffix:
        raise AlexsimError(f"there is no {given}")
    return None

"""``alexsim report``: one HTML page on a run, a profile or a plan, or on several of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alexsim.command import complete, fields
from alexsim.command.answer import Given, give
from alexsim.command.fields import argument, written_to
from alexsim.command.options import edition
from alexsim.command.output import write_text
from alexsim.command.plan_options import GpuOptions, LibraryOptions, StepOptions
from alexsim.command.tracker_options import TrackerOptions
from alexsim.errors import AlexsimError

if TYPE_CHECKING:
    from alexsim.page.inputs import Subject

_OF_NETWORKS = {"batch": "batch_size", "network": "joined_by"} | {
    name: name
    for name in ("gpus", "partition", "replicas", "policy", "schedule", "machine", "library")
}
"""By option, the field of ``Wanted``."""


@dataclass(frozen=True, kw_only=True)
class ReportOptions(GpuOptions, StepOptions, LibraryOptions, TrackerOptions):
    """What is drawn."""

    inputs: list[str] = argument(
        "INPUT...",
        "A run directory, a file of `alexsim profile -o`, or a network's name as of --net; several"
        " of them are compared.",
        autocompletion=complete.networks,
    )
    output: Path = written_to(
        "Write the page there.",
        *(".html", ".htm"),
        names="-o --output",
        default=Path("report.html"),
    )


def report(context: typer.Context, options: ReportOptions) -> None:
    """Draw an HTML page of a run, a profile or a plan.

    Or of several of them, compared. Times, roofline, memory, timeline, curves and filters; it needs
    no network.

    All options but -o, --tensorboard, --wandb and --json are for a network's name, which is planned
    and predicted; a run and a profile have their own, and a network beside one of them takes its
    batch size, policy and schedule, and the same network its GPUs too.

    Example: alexsim report runs/today -o today.html

    Example: alexsim report alexnet-owt --machine k20x8 --gpus 8 --batch 1024

    Example: alexsim report runs/monday runs/tuesday alexnet-2012 -o all.html

    Example: alexsim report runs/monday runs/tuesday --tensorboard board
    """
    from rich.text import Text

    from alexsim.documents.page import page_document
    from alexsim.page.compare import comparison
    from alexsim.page.inputs import Wanted, beside, plan_subject
    from alexsim.page.page import page
    from alexsim.page.trackers.export import export
    from alexsim.units import format_bytes

    inputs = options.inputs
    given = fields.given(context, *_OF_NETWORKS)
    if given and all(Path(name).exists() for name in inputs):
        raise AlexsimError(
            f"{given[0]} is for a network's name; {' and '.join(inputs)} have their own"
        )
    changed = {
        field: getattr(options, name)
        for name, field in _OF_NETWORKS.items()
        if f"--{name}" in given
    }
    if "gpus" in changed:
        # Not those of a run, which had others.
        changed = {"partition": None, "replicas": 1, **changed}
    measured = [_measured(name) for name in inputs]
    pairs = [*zip(inputs, measured, strict=True)]
    exports = export(pairs, options.tensorboard, options.wandb)
    like = next(filter(None, measured), None)
    subjects = [
        subject
        or plan_subject(replace(beside(like, name) if like else Wanted(network=name), **changed))
        for subject, name in zip(measured, inputs, strict=True)
    ]
    sharing = dict.fromkeys(each.document.sharing for each in subjects if each.kind == "plan")
    lines = [*filter(None, sharing), *(each.text for each in exports)]
    written, size = None, 0
    if not exports or fields.given(context, "output"):
        text = page(subjects[0]) if len(subjects) == 1 else comparison(*subjects)
        write_text(options.output, text)
        written, size = options.output, len(text.encode())
        lines.append(f"{written}: {format_bytes(size)}, opens in any browser")
    answer = Given(
        document=lambda: page_document(subjects, written, size, exports),
        tables=lambda _: Text("\n".join(lines)),
        figures=subjects[0].figures if len(subjects) == 1 else None,
    )
    give(options, answer, soft_wrap=True)


def _measured(given: str) -> Subject | None:
    """A folder is a run, a file a profile; None for a name, or FILE.py:NAME, of a network."""
    from alexsim.page.inputs import profile_subject, run_subject

    path = Path(given)
    if path.is_dir():
        return run_subject(path)
    if given.endswith(".py") or ".py:" in given:
        return None
    if path.exists():
        return profile_subject(path)
    if "/" in given or (path.suffix and edition(given) == given):
        raise AlexsimError(f"there is no {given}")
    return None

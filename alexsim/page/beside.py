"""PyTorch's step of the same module beside ours."""

from __future__ import annotations

from alexsim.documents.beside import BesideDocument
from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.page.elements import Figure, Section, mib, ms, number, table
from alexsim.page.figures.beside import group_name
from alexsim.page.figures.text import digits, seconds

_MOST_ROWS = 60
"""Longer tables are folded."""


def beside_section(document: PlanDocument) -> Section | None:
    """Steps, and times by group; None where no module was measured."""
    beside = document.beside if isinstance(document, ProfileDocument) else None
    if beside is None or not isinstance(document, ProfileDocument):
        return None
    rows = table(
        "beside-table", "Milliseconds per step by module, forward and backward",
        beside.eager.groups,
        {
            "group": group_name,
            "layers": lambda group: ", ".join(group.layers),
            "ours, ms": lambda group: ms(group.ours_s),
            "eager, ms": lambda group: ms(group.eager_s),
            "eager / ours": lambda group: number(group.ratio),
        },
        sortable=True, folded=len(beside.eager.groups) > _MOST_ROWS,
    )  # fmt: skip
    parts = table(
        "beside-parts", "What else is in the timed steps",
        [("cost", "loss_s"), ("update", "update_s"), ("rest", "rest_s"),
         ("timed step", "timed_step_s")],
        {
            "part": lambda part: part[0],
            "ours, ms": lambda part: ms(getattr(beside.ours, part[1])),
            "eager, ms": lambda part: ms(getattr(beside.eager, part[1])),
        },
    )  # fmt: skip
    text = "A group is a module that was called, and the layers named after it."
    figure = Figure("beside", "Time by group, ours and eager PyTorch's", text, rows)
    steps = table(
        "beside-steps", "Steps without timing, in turns", _steps(document, beside),
        {
            "whose": lambda step: step[0],
            "ms": lambda step: ms(step[1]),
            "over ours": lambda step: number(step[2]),
            "MiB held": lambda step: mib(step[3]),
        },
    )  # fmt: skip
    return Section("beside", "Beside PyTorch", _sentence(beside), [figure], [steps, parts])


def _steps(
    document: ProfileDocument, beside: BesideDocument
) -> list[tuple[str, float, float | None, int | None]]:
    planned = sum(device.planned_bytes for device in document.memory.devices)
    eager, compiled = beside.eager, beside.compiled
    steps: list[tuple[str, float, float | None, int | None]] = [
        ("ours", document.step_s, None, planned),
        ("eager PyTorch", eager.step_s, eager.over_ours, eager.held_bytes),
    ]
    if compiled:
        steps.append(("compiled PyTorch", compiled.step_s, compiled.over_ours, None))
    return steps


def _sentence(beside: BesideDocument) -> str:
    low, high = beside.eager.over_ours_interval
    text = (
        f"PyTorch {beside.torch}, eager, on the same module and minibatch, in this process:"
        f" {digits(beside.eager.over_ours)} times our step ({digits(low)} to {digits(high)})."
    )
    if beside.compiled is None:
        return f"{text} Nothing compiled: {beside.why_not}"
    low, high = beside.compiled.over_ours_interval
    return (
        f"{text} By torch.compile, which took {seconds(beside.compiled.compile_s)},"
        f" {digits(beside.compiled.over_ours)} times ({digits(low)} to {digits(high)})."
    )

"""Time by group, ours and eager PyTorch's."""

from __future__ import annotations

from plotly.graph_objects import Figure

from alexsim.documents.beside import BesideDocument, BesideGroup
from alexsim.page.figures.layers import rows_height
from alexsim.page.figures.style import LIGHT, bars, figure, words
from alexsim.page.figures.text import seconds
from alexsim.report.beside import ITSELF


def group_name(group: BesideGroup) -> str:
    """As a reader knows it."""
    return group.name or ITSELF


def beside_times(beside: BesideDocument) -> Figure:
    """Two rows per group; milliseconds per step."""
    groups = beside.eager.groups
    names = [words(group_name(group)) for group in groups]
    sides = {
        "ours": (LIGHT["blue"], [group.ours_s or 0.0 for group in groups]),
        "eager PyTorch": (LIGHT["orange"], [group.eager_s for group in groups]),
    }
    traces = [
        bars(side, hue, [f"{name} {side}: {seconds(time)}" for name, time in zip(names, times,
             strict=True)], x=[1e3 * time for time in times], y=names)
        for side, (hue, times) in sides.items()
    ]  # fmt: skip
    return figure(
        traces,
        height=rows_height(len(names), 26),
        x="ms per step",
        barmode="group",
        bargap=0.25,
        yaxis={"autorange": "reversed", "categoryarray": names},
    )

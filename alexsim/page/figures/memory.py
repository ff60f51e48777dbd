"""Memory: by category against the budget, and through the step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from plotly.graph_objects import Figure

from alexsim.documents.profile import PlanDocument
from alexsim.documents.step import DeviceMemory, SpanTimes
from alexsim.page.figures.style import LIGHT, bars, figure, words
from alexsim.page.figures.text import in_mib, percent
from alexsim.plan.plan import Category
from alexsim.units import MIB, format_bytes

CATEGORIES = {
    "weight": "weights",
    "momentum": "momentum",
    "weight_grad": "weight and bias gradients",
    "partial_sum": "weight-gradient partial sums",
    "activation": "activations",
    "activation_grad": "activation gradients",
    "norm": "norm denominators",
    "mask": "dropout masks",
    "remote": "copies of the other GPU's activations",
    "remote_grad": "their gradients",
    "input": "input, two minibatches",
    "workspace": "workspace",
    "padding": "alignment and packing gaps",
    "context": "device context",
}
"""From the bottom of a stack to its top: what stays for the whole run comes first."""
_HUES = {
    "weight": "orange", "momentum": "orange", "weight_grad": "red", "partial_sum": "red",
    "activation": "blue", "activation_grad": "blue", "norm": "teal", "mask": "teal",
    "remote": "pink", "remote_grad": "pink", "input": "purple", "workspace": "olive",
}  # fmt: skip
_HATCHED = ("momentum", "partial_sum", "activation_grad", "mask", "remote_grad", "padding")
"""Told from its neighbour of the same colour by hatching."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a GPU may use, and whose figure that is."""

    bytes: int
    source: str


def usable(document: PlanDocument) -> Budget | None:
    """What programs can use of the predicted GPU, where that is known."""
    size = document.device_memory_bytes
    return Budget(size, "usable memory of the predicted GPU") if size else None


def alike(devices: Sequence[DeviceMemory]) -> list[tuple[DeviceMemory, ...]]:
    """Devices in groups that hold the same through the step, as replicas do."""
    groups: dict[tuple[int, str], list[DeviceMemory]] = {}
    for device in devices:
        held = str([change.by_category for change in device.timeline])
        groups.setdefault((device.planned_bytes, held), []).append(device)
    return [tuple(group) for group in groups.values()]


def with_context(devices: Sequence[DeviceMemory]) -> str:
    """Whether what they hold has in it what a card's driver takes, in words."""
    counted = any(Category.CONTEXT in device.by_category for device in devices)
    return "context included" if counted else "without a card's context"


def ordered(categories: Iterable[str]) -> list[str]:
    """Categories from bottom to top; unknown ones last."""
    known = list(CATEGORIES)
    return sorted(
        set(categories), key=lambda name: (known.index(name) if name in known else 99, name)
    )


def category(name: str) -> str:
    """A category in words."""
    return CATEGORIES.get(name, name)


def memory_by_category(devices: Sequence[DeviceMemory], budget: Budget | None) -> Figure:
    """A bar per GPU, stacked by category, and the budget's line; MiB."""
    names = [words(device.name) for device in devices]
    traces = []
    for key in ordered(key for device in devices for key in device.by_category):
        sizes = [device.by_category.get(key, 0) for device in devices]
        title = words(category(key))
        hover = (
            f"{name}, {title}: {in_mib(size)} MiB,"
            f" {percent(size / (device.planned_bytes or 1))} of the whole"
            for device, name, size in zip(devices, names, sizes, strict=True)
        )
        traces.append(
            bars(title, _hue(key), hover, hatched=key in _HATCHED,
                 x=[size / MIB for size in sizes], y=names)
        )  # fmt: skip
    fullest = max(device.planned_bytes for device in devices)
    high = fullest
    if budget:
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": words(budget.source),
                "x": [budget.bytes / MIB] * len(names), "y": names,
                "marker": {
                    "symbol": "line-ns-open", "size": 40, "color": LIGHT["red"],
                    "line": {"width": 3},
                },
                "hoverinfo": "text", "hovertext": [
                    f"{words(budget.source)}: {format_bytes(budget.bytes)}, of which {name} holds"
                    f" {percent(device.planned_bytes / budget.bytes)}, {with_context(devices)}"
                    for device, name in zip(devices, names, strict=True)
                ],
            }
        )  # fmt: skip
        # A budget far off would leave nothing to see of the bars; double-clicking shows it.
        high = budget.bytes if fullest < budget.bytes < 4 * fullest else fullest
    return figure(
        traces,
        height=48 * len(devices),
        x=f"MiB, {with_context(devices)}",
        barmode="stack",
        bargap=0.3,
        xaxis={"range": [0, 1.04 * high / MIB]},
        yaxis={"autorange": "reversed", "categoryarray": names},
    )


def _hue(key: str) -> str:
    return LIGHT[_HUES.get(key, "grey")]


@dataclass(frozen=True, slots=True)
class AliveFrom:
    """From when on other bytes are alive, and the op that begins then."""

    start_s: float
    op: str
    by_category: dict[str, int]

    @property
    def total_bytes(self) -> int:
        """Of all categories."""
        return sum(self.by_category.values())


def alive_through(device: DeviceMemory, spans: Sequence[SpanTimes]) -> list[AliveFrom]:
    """What is alive while each op runs, in issue order; time never runs back."""
    starts = {span.id: span.start_s for span in spans}
    reached, moments = 0.0, []
    for index, change in enumerate(device.timeline):
        # What is alive at the first op was so before it.
        reached = max(reached, starts.get(change.op, reached)) if index else 0.0
        moments.append(AliveFrom(reached, change.op, change.by_category))
    return moments


def memory_through_step(device: DeviceMemory, spans: Sequence[SpanTimes], clock: str) -> Figure:
    """What is alive, by category, over the step's time; MiB over ms."""
    moments = alive_through(device, spans)
    ends = 1e3 * max((span.end_s for span in spans), default=0.0)
    times = [1e3 * moment.start_s for moment in moments] + [ends]
    traces: list[dict[str, Any]] = []
    for key in ordered(key for moment in moments for key in moment.by_category):
        sizes = [moment.by_category.get(key, 0) / MIB for moment in moments]
        traces.append(
            {
                "type": "scatter", "mode": "lines", "name": words(category(key)),
                "stackgroup": "alive", "x": times, "y": [*sizes, sizes[-1]],
                "line": {"shape": "hv", "width": 0.8, "color": LIGHT["ground"]},
                "fillcolor": _hue(key),
                "fillpattern": {
                    "shape": "/" if key in _HATCHED else "", "fillmode": "overlay", "size": 6,
                    "fgcolor": LIGHT["ground"], "fgopacity": 0.45,
                },
                "hovertemplate": "%{y:,.1f} MiB",
            }
        )  # fmt: skip
    totals = [moment.total_bytes / MIB for moment in moments]
    traces.append(
        {
            "type": "scatter", "mode": "lines", "name": "all", "x": times,
            "y": [*totals, totals[-1]], "line": {"shape": "hv", "width": 1, "color": LIGHT["ink"]},
            "text": [words(moment.op) for moment in (*moments, moments[-1])],
            "hovertemplate": "%{y:,.1f} MiB, from %{text} on", "showlegend": False,
        }
    )  # fmt: skip
    return figure(
        traces,
        height=260,
        x=f"ms since the step began, {clock}",
        y="MiB alive",
        hovermode="x unified",
        xaxis={"range": [0, ends or 1.0], "hoverformat": ",.3f"},
        yaxis={"rangemode": "tozero"},
    )

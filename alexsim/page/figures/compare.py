"""Several runs, profiles and plans in one figure, and whether their times differ."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from plotly.graph_objects import Figure

from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.step import MeasuredLayer, PlannedLayer
from alexsim.network.counts import PASSES
from alexsim.page.figures.layers import rows_height
from alexsim.page.figures.memory import with_context
from alexsim.page.figures.passes import Clock, clocks_of, layer_s, pass_s
from alexsim.page.figures.style import LIGHT, bars, colour, figure, words
from alexsim.page.figures.text import in_mib, seconds
from alexsim.units import MIB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the interval that it is said with."""

    value: float
    low: float
    high: float

    def over(self, other: Estimate) -> Estimate:
        """The quotient, its interval from both.

        Relative deviations of independent quantities add as their squares (JCGM 100:2008, 5.1.6;
        here in logarithms, each side by itself). Intervals are those of the documents: where a step
        was measured, from the 10 % to the 90 % quantile of its rounds, which is wider than the
        median's own; where it is predicted, what holds it 9 times in 10. Predictions for one
        machine err alike. So this is cautious: what it calls different is.
        """
        down = math.hypot(math.log(self.value / self.low), math.log(other.high / other.value))
        up = math.hypot(math.log(self.high / self.value), math.log(other.value / other.low))
        value = self.value / other.value
        return Estimate(value, value * math.exp(-down), value * math.exp(up))

    @property
    def undecided(self) -> bool:
        """Of a quotient: 1 lies in its interval, so no difference is shown."""
        return self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """A document under a name of its own, and the clock on which it is compared."""

    name: str
    document: PlanDocument
    clock: Clock


def step_estimate(document: PlanDocument, clock: Clock) -> Estimate:
    """The step's seconds."""
    if clock == "measured" and isinstance(document, ProfileDocument):
        return Estimate(document.step_s, *document.step_s_interval)
    return Estimate(document.predicted_step_s, *document.predicted_step_s_interval)


def layer_estimate(layer: PlannedLayer | None, clock: Clock) -> Estimate | None:
    """A layer's seconds over its passes; None without an interval, or where it took no time."""
    if clock == "predicted" or not isinstance(layer, MeasuredLayer):
        return None
    value, down, up = layer_s(layer, clock), 0.0, 0.0
    for name in PASSES:
        time = pass_s(layer, clock, name)
        if time is not None and (ends := layer.measured_interval.get(f"{name}_s")):
            down, up = math.hypot(down, time - ends[0]), math.hypot(up, ends[1] - time)
    return Estimate(value, value - down, value + up) if value > down else None


def steps_compared(compared: Sequence[Compared]) -> Figure:
    """A row per clock of each, with its interval; milliseconds."""
    traces: list[dict[str, Any]] = []
    times: list[float] = []
    for index, each in enumerate(compared):
        spans = {clock: step_estimate(each.document, clock) for clock in clocks_of(each.document)}
        rows = [f"{words(each.name)}, {clock}" for clock in spans]
        times += [span.value for span in spans.values()]
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": words(each.name),
                "x": [1e3 * span.value for span in spans.values()], "y": rows,
                "marker": {
                    "size": 11, "color": colour(index),
                    "symbol": [{"measured": "circle"}.get(c, "diamond-open") for c in spans],
                },
                "error_x": {
                    "type": "data", "symmetric": False, "thickness": 2, "color": colour(index),
                    "array": [1e3 * (span.high - span.value) for span in spans.values()],
                    "arrayminus": [1e3 * (span.value - span.low) for span in spans.values()],
                },
                "hoverinfo": "text", "hovertext": [
                    f"{row}: {seconds(span.value)}, {seconds(span.low)} to {seconds(span.high)}"
                    for row, span in zip(rows, spans.values(), strict=True)
                ],
            }
        )  # fmt: skip
    axis: dict[str, Any] = {"rangemode": "tozero"}
    if max(times) > 20 * min(times):
        axis = {"type": "log", "dtick": 1}
    rows = [row for trace in traces for row in trace["y"]]
    return figure(
        traces,
        height=34 * len(rows),
        x="ms per step",
        xaxis=axis,
        yaxis={"autorange": "reversed", "categoryorder": "array", "categoryarray": rows},
        showlegend=True,
    )


def layer_names(compared: Iterable[Compared]) -> list[str]:
    """Of all networks, in the order of the first that has each."""
    return list(dict.fromkeys(layer.name for each in compared for layer in each.document.layers))


def layers_compared(compared: Sequence[Compared]) -> Figure:
    """A bar per layer and document; milliseconds per step."""
    names = layer_names(compared)
    traces = []
    for index, each in enumerate(compared):
        times = {layer.name: layer_s(layer, each.clock) for layer in each.document.layers}
        hover = (
            f"{words(layer)}, {words(each.name)}, {each.clock}: {seconds(time)},"
            f" {time / (sum(times.values()) or 1):.1%} of all layers"
            for layer, time in times.items()
        )
        traces.append(
            bars(words(each.name), colour(index), hover, hatched=index % 2 == 1,
                 x=[1e3 * time for time in times.values()], y=[words(name) for name in times])
        )  # fmt: skip
    return figure(
        traces,
        height=rows_height(len(names), 12 + 10 * len(compared)),
        x="ms per step",
        barmode="group",
        bargap=0.25,
        yaxis={
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": [words(name) for name in names],
        },
        showlegend=True,
    )


def memory_compared(compared: Sequence[Compared]) -> Figure:
    """A bar per GPU of each; MiB."""
    traces, rows = [], []
    largest = max(of.planned_bytes for each in compared for of in each.document.memory.devices)
    for index, each in enumerate(compared):
        devices = each.document.memory.devices
        names = [f"{words(each.name)}, {words(device.name)}" for device in devices]
        rows += names
        hover = (
            f"{name}: {in_mib(device.planned_bytes)} MiB, {with_context([device])}"
            for name, device in zip(names, devices, strict=True)
        )
        sizes = [device.planned_bytes / MIB for device in devices]
        traces.append(
            bars(words(each.name), colour(index), hover, hatched=index % 2 == 1, x=sizes, y=names,
                 text=[f"{size:,.1f}" for size in sizes], textposition="outside",
                 textfont={"color": LIGHT["muted"]}, cliponaxis=False)
        )  # fmt: skip
    return figure(
        traces,
        height=30 * len(rows),
        x="MiB",
        xaxis={"range": [0, 1.2 * largest / MIB]},
        barmode="overlay",
        bargap=0.3,
        yaxis={"autorange": "reversed", "categoryorder": "array", "categoryarray": rows},
        showlegend=True,
    )

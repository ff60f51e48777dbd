"""Figures of Plotly, one function each, from records; the page and notebooks show the same ones.

A document has them all by name, as ``figures()`` and ``plot(name)``.
"""

from __future__ import annotations

from collections.abc import Sequence

from plotly.graph_objects import Figure

from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.run import HeldOutMetrics, StepMetrics
from alexsim.documents.step import TelemetrySample
from alexsim.page.figures.beside import beside_times
from alexsim.page.figures.curves import QUANTITIES, error, loss, said, step_times, telemetry
from alexsim.page.figures.layers import layer_times
from alexsim.page.figures.memory import (
    Budget,
    alike,
    memory_by_category,
    memory_through_step,
    usable,
)
from alexsim.page.figures.passes import clocks_of
from alexsim.page.figures.roofline import roofline
from alexsim.page.figures.timeline import spans_of, timeline


def step_figures(document: PlanDocument, budget: Budget | None = None) -> dict[str, Figure]:
    """A step's figures by name; ``budget`` is the predicted GPU's if None."""
    figures = {f"layers-{clock}": layer_times(document, clock) for clock in clocks_of(document)}
    if isinstance(document, ProfileDocument) and document.beside:
        figures["beside"] = beside_times(document.beside)
    if (roof := roofline(document)) is not None:
        figures["roofline"] = roof
    spans = spans_of(document)
    figures |= {f"timeline-{clock}": timeline(document, clock) for clock in spans}
    devices = document.memory.devices
    figures["memory-by-category"] = memory_by_category(devices, budget or usable(document))
    for clock in list(spans)[:1]:
        for device, *_ in alike(devices):
            mine = [span for span in spans[clock] if span.device == device.name]
            # Of GPUs that all do the same, the simulator may time the first alone.
            if mine:
                figures[f"memory-{device.name}"] = memory_through_step(device, mine, clock)
    return figures


def run_figures(
    metrics: Sequence[StepMetrics],
    held_out: Sequence[HeldOutMetrics],
    samples: Sequence[TelemetrySample],
) -> dict[str, Figure]:
    """What a run adds, by name: its curves, and what its cards said."""
    figures = {}
    if metrics:
        figures["loss"] = loss(metrics, held_out)
        figures["error"] = error(metrics, held_out)
        figures["step-times"] = step_times(metrics)
    for quantity in QUANTITIES:
        if said(samples, quantity):
            figures[f"card-{quantity[0].replace('_', '-')}"] = telemetry(samples, quantity)
    return figures

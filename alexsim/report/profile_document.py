"""A profiled step as JSON: what ``profile --json`` prints, runs keep, and the HTML page draws."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median
from typing import Any

from alexsim.plan.records import DevicePlan, Plan
from alexsim.plan.tables import memory_table
from alexsim.plan.timeline import Moment, holdings, memory_timeline
from alexsim.profile.breakdown import Rounds, counted_layers, rounds_of
from alexsim.profile.nvml import Telemetry
from alexsim.profile.records import Ceilings, LayerCount, LayerProfile, StepProfile
from alexsim.report.documents import head, step_parts, words_of
from alexsim.report.tables import data_path_text
from alexsim.simulate.records import Simulation
from alexsim.trace import Span

_LARGEST = 12
"""Buffers named of those that are alive at the peak."""


def plan_document(plan: Plan, simulation: Simulation, sheet: Ceilings) -> dict[str, Any]:
    """A planned step with its predicted times, where nothing was measured.

    Keys are those of ``profile_document`` without what only a measurement knows; ``ceilings`` are
    the peaks on the data sheet of the machine that is predicted.
    """
    return _planned(plan, simulation) | {
        "ceilings": asdict(sheet),
        "layers": [_counted(layer) for layer in counted_layers(plan, simulation)],
        "memory": {"held": [], "devices": _devices(plan)},
        "exchanges": _exchanges(plan, simulation),
        "spans": {"simulated": _spans(simulation.trace.spans)},
    }


def profile_document(found: StepProfile, *, only: str = "") -> dict[str, Any]:
    """``alexsim profile --json``; times in seconds per step, counts per step over the batch."""
    timing, plan = found.timing, found.plan
    measured_s = _exchanges_s(plan, rounds_of(found.trace, plan)[: found.rounds])
    return _planned(plan, found.simulation) | {
        "where": found.where,
        "rounds": found.rounds,
        "step_s": found.step.median_s,
        "step_s_interval": [found.step.low_s, found.step.high_s],
        "timed_step_s": found.timed.median_s,
        "timing_overhead": timing.overhead.median - 1 if timing else None,
        "timing_overhead_interval": [timing.overhead.low - 1, timing.overhead.high - 1]
        if timing
        else None,
        "events": timing.events if timing else None,
        "event_s": timing.event_s if timing else None,
        "transfers_s": found.transfers_s,
        "rest_s": found.rest_s,
        "ceilings": asdict(found.ceilings),
        "layers": [_measured(layer) for layer in found.layers if only in ("", layer.name)],
        "memory": {
            "held": [asdict(held) for held in found.held],
            "devices": _devices(plan),
        },
        "exchanges": [
            exchange | {"measured_s": measured_s[exchange["name"]]}
            for exchange in _exchanges(plan, found.simulation)
        ],
        "telemetry": _telemetry(found.telemetry),
        "spans": {
            "measured": _spans(_typical_step(found)),
            "simulated": _spans(found.simulation.trace.spans),
        },
    }


def _planned(plan: Plan, simulation: Simulation) -> dict[str, Any]:
    """What is planned and predicted."""
    return (
        head(plan.network.name, plan.images)
        | words_of(plan)
        | {
            "fused": {op.layer: op.epilogue for op in plan.ops() if op.epilogue},
            "layers_by_others": list(plan.lent),
            "machine": simulation.machine,
            "library": simulation.library,
            "flop_counts": "direct",
            "device_memory_bytes": simulation.device_memory_bytes,
            "predicted_step_s": simulation.step_s,
            "predicted_step_s_interval": [
                simulation.step_interval.low,
                simulation.step_interval.high,
            ],
            "predicted_parts": step_parts(simulation) | {"text": data_path_text(simulation)},
        }
    )


def _counted(layer: LayerCount) -> dict[str, Any]:
    flop = {one.name: one.flop for one in layer.passes}
    moved = sum(one.moved_bytes for one in layer.passes)
    return {
        "name": layer.name,
        "kind": layer.kind,
        "shape": list(layer.shape),
        "parameters": layer.parameters,
        "mac": next((one.mac for one in layer.passes if one.name == "forward"), 0),
        "flop": flop.get("forward", 0),
        "grad_input_flop": flop.get("grad_input", 0),
        "grad_weight_flop": flop.get("grad_weight", 0),
        "elementwise_flop": sum(one.elementwise_flop for one in layer.passes),
        "elementwise_flop_by_pass": {one.name: one.elementwise_flop for one in layer.passes},
        "bytes": moved,
        "bytes_by_pass": {one.name: one.moved_bytes for one in layer.passes},
        "arithmetic_intensity": sum(flop.values()) / moved if moved else None,
        "memory_bytes": layer.memory_bytes,
        "predicted": {f"{one.name}_s": one.predicted_s for one in layer.passes},
        "predicted_limit": {one.name: one.predicted_limit for one in layer.passes},
    }


def _measured(layer: LayerProfile) -> dict[str, Any]:
    whole = sum(one.flop for one in layer.passes)
    seconds = layer.measured_s
    return _counted(layer) | {
        "measured": {f"{one.name}_s": one.measured.median_s for one in layer.passes}
        | {"gflop_per_s": whole / seconds / 1e9 if seconds else None},
        "measured_interval": {
            f"{one.name}_s": [one.measured.low_s, one.measured.high_s] for one in layer.passes
        },
        "ceiling_share": sum(one.floor_s for one in layer.passes) / seconds if seconds else None,
        "limit": {one.name: one.limit for one in layer.passes},
    }


def _devices(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "name": device.name,
            "planned_bytes": device.total_bytes,
            "by_category": {key: size for key, size in table.by_category.items() if size},
            "peak_op": max(moments, key=lambda moment: moment.total_bytes).op_id,
            "alive_at_peak": _alive(device, moments),
            "timeline": _changes(moments),
        }
        for device, table, moments in (
            (device, table, memory_timeline(device))
            for device, table in zip(plan.devices, memory_table(plan), strict=True)
        )
    ]


def _alive(device: DevicePlan, moments: tuple[Moment, ...]) -> list[dict[str, Any]]:
    """The largest buffers at the fullest op."""
    peak = max(range(len(moments)), key=lambda index: moments[index].total_bytes)
    return [
        {
            "name": held.buffer.name,
            "label": held.buffer.label,
            "category": str(held.buffer.category),
            "bytes": held.buffer.size_bytes,
        }
        for held in holdings(device)
        if held.first <= peak <= held.last
    ][:_LARGEST]


def _changes(moments: tuple[Moment, ...]) -> list[dict[str, Any]]:
    """Moments that differ from the one before."""
    found: list[dict[str, Any]] = []
    for moment in moments:
        if not found or found[-1]["by_category"] != moment.by_category:
            found.append({"op": moment.op_id, "by_category": dict(moment.by_category)})
    return found


def _telemetry(found: Telemetry | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "cards": list(found.cards),
        "why": found.why,
        "joules_per_image": found.joules_per_image,
        "samples": [asdict(sample) for sample in found.samples],
    }


def _exchanges(plan: Plan, simulation: Simulation) -> list[dict[str, Any]]:
    predicted = {one.name: one.seconds for one in simulation.exchanges}
    return [
        {
            "name": one.name,
            "label": one.label,
            "source": one.source,
            "target": one.target,
            "bytes": one.exchanged_bytes,
            "predicted_s": predicted.get(one.name),
        }
        for one in plan.transfers
    ]


def _exchanges_s(plan: Plan, rounds: Rounds) -> dict[str, float | None]:
    """Measured seconds of every exchange: its post and its wait, or the longest of those that
    took part in it at a time."""
    ops: dict[str, list[str]] = {}
    for op in plan.ops():
        if name := op.exchange or op.collective:
            ops.setdefault(name, []).append(op.id)
    together = {one.name for one in plan.collectives}
    return {
        name: _middle(
            [
                (max if name in together else sum)([times.get(op, 0.0) for op in ids])
                for times in rounds
            ]
        )
        for name, ids in ops.items()
    }


def _middle(values: list[float]) -> float | None:
    return median(values) if values else None


def _typical_step(found: StepProfile) -> list[Span]:
    """The spans of the step whose length is nearest to the median."""
    # A step with torch.profiler under it may follow: it is slower.
    lengths = dict(list(found.trace.step_s().items())[: found.rounds])
    if not lengths:
        return []
    middle = median(lengths.values())
    chosen = min(lengths, key=lambda step: abs(lengths[step] - middle))
    return [span for span in found.trace.spans if span.step == chosen]


def _spans(spans: list[Span] | tuple[Span, ...]) -> list[dict[str, Any]]:
    start = min((span.start_s for span in spans), default=0.0)
    return [
        {
            "id": span.op_id,
            "activity": span.activity,
            "kind": span.kind,
            "layer": span.layer,
            "exchange": span.exchange,
            "device": span.device,
            "device_index": span.device_index,
            "queue": span.queue,
            "start_s": round(span.start_s - start, 9),
            "end_s": round(span.end_s - start, 9),
        }
        for span in sorted(spans, key=lambda span: (span.device, span.start_s))
    ]

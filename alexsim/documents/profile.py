"""A step as JSON: what ``profile --json`` prints, runs keep, and the page draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Annotated

from pydantic import Field

from alexsim.documents.base import From, Interval, Joined, NetworkDocument
from alexsim.documents.beside import BesideDocument
from alexsim.documents.plan import PlanWords, Shares
from alexsim.documents.simulation import StepParts
from alexsim.documents.step import (
    CardTelemetry,
    Finite,
    GradientSum,
    MeasuredLayer,
    MeasuredSpans,
    MeasuredTransfer,
    PlannedLayer,
    PlannedSpans,
    PlannedTransfer,
    Rates,
    StepMemory,
    devices_of,
)
from alexsim.plan.plan import OpKind, Plan
from alexsim.profile.breakdown import Rounds, counted_layers, rounds_of
from alexsim.profile.step_profile import Ceilings, StepProfile
from alexsim.report.tables import data_path_text
from alexsim.simulate.simulation import Simulation
from alexsim.trace import Span


class PredictedParts(StepParts):
    """What the predicted step is made of, in a line too."""

    text: Annotated[str, From(data_path_text)]


class PlanDocument(PlanWords, Shares, NetworkDocument, Finite):
    """A planned step with its predicted times."""

    network: Annotated[str, From("plan.network.name")]
    batch_size: Annotated[int, From("plan.images")]
    fused: Annotated[
        dict[str, str],
        From(lambda of: {op.layer: op.epilogue for op in of.plan.ops() if op.epilogue}),
    ] = Field({})
    """By layer, the layer that its op does too."""
    layers_by_others: Annotated[tuple[str, ...], From("plan.lent")] = ()
    """Layers that another backend runs."""
    machine: Annotated[str, From("simulation.machine")]
    library: Annotated[str, From("simulation.library")]
    flop_counts: Annotated[str, From(lambda _: "direct")] = "direct"
    """FLOP are those of direct convolution."""
    device_memory_bytes: Annotated[int | None, From("simulation.device_memory_bytes")] = None
    """What programs can use of the predicted device's memory."""
    predicted_step_s: Annotated[float, From("simulation.step_s")]
    predicted_step_s_interval: Annotated[Interval, From("simulation.step_interval")]
    predicted_parts: Annotated[PredictedParts | None, From("simulation")] = None
    ceilings: Rates
    """Measured here; of a plan, those on the predicted machine's data sheet."""
    layers: tuple[PlannedLayer, ...]
    memory: Annotated[
        StepMemory,
        From(lambda of: {"held": of.held, "devices": devices_of(of.plan, of.context_bytes)}),
    ]
    exchanges: Annotated[
        tuple[PlannedTransfer, ...], From(lambda of: _transfers(of.plan, of.simulation))
    ]
    gradient_sums: Annotated[
        tuple[GradientSum, ...],
        From(lambda of: [op for op in of.plan.ops() if op.kind == OpKind.ALL_REDUCE]),
    ] = ()
    """Of one replica's GPUs; when, and for how long, their ``spans`` say."""
    spans: Annotated[
        PlannedSpans, From(lambda of: {"simulated": _spans(of.simulation.trace.spans)})
    ]


class ProfileDocument(PlanDocument):
    """``alexsim profile --json``; times in seconds per step, counts per step over the batch."""

    where: str
    rounds: int
    step_s: Annotated[float, From("step.median_s")]
    step_s_interval: Annotated[Interval, From(lambda of: (of.step.low_s, of.step.high_s))]
    timed_step_s: Annotated[float, From("timed.median_s")]
    timing_overhead: Annotated[
        float | None, From(lambda of: of.timing.overhead.median - 1 if of.timing else None)
    ] = None
    """Of timing every op, over the untimed step; null where every step was timed."""
    timing_overhead_interval: Annotated[
        Interval | None,
        From(
            lambda of: (
                (of.timing.overhead.low - 1, of.timing.overhead.high - 1) if of.timing else None
            )
        ),
    ] = None
    events: Annotated[int | None, From(lambda of: of.timing and of.timing.events)] = None
    event_s: Annotated[float | None, From(lambda of: of.timing and of.timing.event_s)] = None
    """Cost of timing one op."""
    transfers_s: float
    """Uploads, exchanges and sums."""
    rest_s: float
    """What of the timed step lies between its ops."""
    layers: tuple[MeasuredLayer, ...]
    exchanges: Annotated[
        tuple[MeasuredTransfer, ...],
        From(
            lambda of: _transfers(
                of.plan,
                of.simulation,
                _exchanges_s(of.plan, rounds_of(of.trace, of.plan)[: of.rounds]),
            )
        ),
    ]
    telemetry: CardTelemetry | None = None
    """null where no card ran it."""
    beside: BesideDocument | None = None
    """null where no PyTorch module was measured beside it."""
    spans: Annotated[
        MeasuredSpans,
        From(
            lambda of: {
                "measured": _spans(_typical_step(of)),
                "simulated": _spans(of.simulation.trace.spans),
            }
        ),
    ]


def plan_document(plan: Plan, simulation: Simulation, sheet: Ceilings) -> PlanDocument:
    """A planned step with its predicted times, where nothing was measured."""
    return PlanDocument.of(
        plan=plan,
        simulation=simulation,
        ceilings=sheet,
        layers=counted_layers(plan, simulation),
        held=(),
        context_bytes=_context_bytes(plan, simulation),
    )


def _context_bytes(plan: Plan, simulation: Simulation) -> list[int]:
    """What the driver takes of every device's card, as the simulation has it."""
    taken = {
        device.name: times.memory_bytes - device.total_bytes
        for device, times in zip(plan.devices, simulation.devices, strict=False)
    }
    # Of GPUs that all do the same, the first alone may be simulated.
    first = next(iter(taken.values()))
    return [taken.get(device.name, first) for device in plan.devices]


def profile_document(profile: StepProfile, *, only: str = "") -> ProfileDocument:
    """A measured step, of all layers or of one."""
    layers = tuple(layer for layer in profile.layers if only in ("", layer.name))
    beside = BesideDocument.of_profile(profile, only=only)
    # No allocator sees a context.
    context_bytes = [0 for _ in profile.plan.devices]
    return ProfileDocument.of(profile, layers=layers, beside=beside, context_bytes=context_bytes)


def _transfers(
    plan: Plan, simulation: Simulation, measured_s: Mapping[str, float | None] | None = None
) -> list[Joined]:
    """Whatever brings values from device to device, with its times."""
    predicted_s = {exchange.name: exchange.seconds for exchange in simulation.exchanges}
    return [
        Joined(
            transfer,
            {
                "predicted_s": predicted_s.get(transfer.name),
                "measured_s": (measured_s or {}).get(transfer.name),
            },
        )
        for transfer in plan.transfers
    ]


def _exchanges_s(plan: Plan, rounds: Rounds) -> dict[str, float | None]:
    """Measured seconds of every exchange: its post and its wait, or the longest of those that
    took part in it at a time."""
    ops: dict[str, list[str]] = {}
    for op in plan.ops():
        if name := op.exchange or op.collective:
            ops.setdefault(name, []).append(op.id)
    together = {collective.name for collective in plan.collectives}
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


def _typical_step(profile: StepProfile) -> list[Span]:
    """The spans of the step whose length is nearest to the median."""
    # A step with torch.profiler under it may follow: it is slower.
    lengths = dict(list(profile.trace.step_s().items())[: profile.rounds])
    if not lengths:
        return []
    middle = median(lengths.values())
    chosen = min(lengths, key=lambda step: abs(lengths[step] - middle))
    return [span for span in profile.trace.spans if span.step == chosen]


def _spans(spans: Sequence[Span]) -> list[Span]:
    """In order, from the step's start on."""
    start = min((span.start_s for span in spans), default=0.0)
    return [
        replace(span, start_s=round(span.start_s - start, 9), end_s=round(span.end_s - start, 9))
        for span in sorted(spans, key=lambda span: (span.device, span.start_s))
    ]

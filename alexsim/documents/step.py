"""A step's layers, memory, exchanges and spans, as parts of documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Annotated

from pydantic import ConfigDict, Field

from alexsim.documents.base import From, Interval, Part
from alexsim.ledger.tables import memory_table
from alexsim.ledger.timeline import Holding, Moment, holdings, memory_timeline
from alexsim.plan.plan import Category, DevicePlan, Plan

_LARGEST = 12
"""Buffers named of those that are alive at the peak."""


class Finite(Part):
    """A part without NaN and infinities: times and counts are numbers."""

    model_config = ConfigDict(allow_inf_nan=False)


def _by_pass(name: str, key: str = "{}") -> From:
    """A figure of every pass of a layer, by the pass's name."""
    return From(lambda layer: {key.format(p.name): getattr(p, name) for p in layer.passes})


def _flop(name: str) -> From:
    return From(lambda layer: sum(p.flop for p in layer.passes if p.name == name))


def _total(name: str) -> From:
    return From(lambda layer: sum(getattr(each, name) for each in layer.passes))


def _quotient(value: float, of: float) -> float | None:
    return value / of if of else None


class PlannedLayer(Finite):
    """A layer: what it computes, moves and holds in a step over the whole batch, and its predicted
    times."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of its output, without the batch."""
    parameters: int
    mac: Annotated[
        int, From(lambda layer: sum(p.mac for p in layer.passes if p.name == "forward"))
    ] = 0
    flop: Annotated[int, _flop("forward")]
    grad_input_flop: Annotated[int, _flop("grad_input")]
    grad_weight_flop: Annotated[int, _flop("grad_weight")]
    elementwise_flop: Annotated[int, _total("elementwise_flop")]
    elementwise_flop_by_pass: Annotated[dict[str, int], _by_pass("elementwise_flop")] = Field({})
    bytes: Annotated[int, _total("moved_bytes")]
    bytes_by_pass: Annotated[dict[str, int], _by_pass("moved_bytes")]
    arithmetic_intensity: Annotated[
        float | None,
        From(
            lambda layer: _quotient(
                sum(p.flop for p in layer.passes), sum(p.moved_bytes for p in layer.passes)
            )
        ),
    ] = None
    """FLOP of all passes per byte moved; null where nothing is."""
    memory_bytes: dict[str, int]
    """By device."""
    predicted: Annotated[dict[str, float], _by_pass("predicted_s", "{}_s")]
    """Seconds by pass: ``forward_s`` ..."""
    predicted_limit: Annotated[dict[str, str], _by_pass("predicted_limit")]
    algorithm: Annotated[dict[str, str] | None, _by_pass("algorithm")] = None
    """Of each pass here: the backend, and how it computes a convolution."""

    @property
    def training_flop(self) -> int:
        """Of the forward pass and both gradients."""
        return self.flop + self.grad_input_flop + self.grad_weight_flop


class MeasuredLayer(PlannedLayer):
    """A layer that was measured too."""

    measured: Annotated[
        dict[str, float | None],
        From(
            lambda layer: (
                {f"{p.name}_s": p.measured.median_s for p in layer.passes}
                | {
                    "gflop_per_s": _quotient(
                        sum(p.flop for p in layer.passes) / 1e9, layer.measured_s
                    )
                }
            )
        ),
    ]
    """Seconds by pass, medians: ``forward_s`` ...; and ``gflop_per_s``."""
    measured_interval: Annotated[
        dict[str, Interval],
        From(
            lambda layer: {
                f"{p.name}_s": (p.measured.low_s, p.measured.high_s) for p in layer.passes
            }
        ),
    ]
    """Quantiles of 10 % and 90 %."""
    ceiling_share: Annotated[
        float | None,
        From(lambda layer: _quotient(sum(p.floor_s for p in layer.passes), layer.measured_s)),
    ]
    """What products that are done, or memory, need at the ceilings here, over the time taken."""
    limit: Annotated[dict[str, str], _by_pass("limit")]
    """What binds each pass here."""


class Rates(Finite):
    """Ceilings: of a data sheet, or measured by products (our own where they run) and a copy."""

    flop_per_s: float
    bytes_per_s: float


class HeldBytes(Finite):
    """Most memory that devices held, as planned and as the allocator saw it."""

    devices: str
    planned_bytes: int
    measured_bytes: int


class AliveBuffer(Finite):
    """A buffer that is alive at the fullest op."""

    name: Annotated[str, From("buffer.name")]
    label: Annotated[str, From("buffer.label")] = ""
    category: Annotated[str, From("buffer.category")]
    bytes: Annotated[int, From("buffer.size_bytes")]


class MemoryChange(Finite):
    """From which op on other bytes are alive."""

    op: Annotated[str, From("op_id")]
    by_category: dict[str, int]


class DeviceMemory(Finite):
    """What a device holds, and when."""

    name: Annotated[str, From("device.name")]
    planned_bytes: Annotated[int, From("held.total_bytes")]
    """With what the card's driver takes, where ``by_category`` has a ``context``: in the documents
    of plans, as ``memory`` and ``simulate`` say it. What was measured is without."""
    by_category: Annotated[
        dict[str, int],
        From(lambda of: {key: size for key, size in of.held.by_category.items() if size}),
    ]
    peak_op: Annotated[
        str, From(lambda of: max(of.moments, key=lambda moment: moment.total_bytes).op_id)
    ]
    """The op during which most is alive."""
    alive_at_peak: Annotated[
        tuple[AliveBuffer, ...], From(lambda of: _alive(of.device, of.moments))
    ]
    """The largest buffers then."""
    timeline: Annotated[tuple[MemoryChange, ...], From(lambda of: _changes(of.moments))]


class StepMemory(Finite):
    """Memory of a step."""

    held: tuple[HeldBytes, ...]
    devices: tuple[DeviceMemory, ...]


class PlannedTransfer(Finite):
    """An exchange or a collective."""

    name: str
    label: str = ""
    source: str
    target: str
    bytes: Annotated[int, From("exchanged_bytes")]
    predicted_s: float | None


class GradientSum(Finite):
    """An all-reduce: gradients of a layer that GPUs sum with those of their copies of it."""

    name: Annotated[str, From("id")]
    layer: str
    device: str
    bytes: Annotated[int, From("count.moved_bytes")]
    """Of the gradients that this GPU has."""


class MeasuredTransfer(PlannedTransfer):
    """One that was measured too."""

    measured_s: float | None


class TelemetrySample(Finite):
    """One card at one time; null where the card does not say."""

    time_s: float
    card: int
    utilisation: float | None
    memory_bytes: float | None
    power_w: float | None
    sm_mhz: float | None
    memory_mhz: float | None
    pcie_sent_bytes_per_s: float | None
    pcie_received_bytes_per_s: float | None
    temperature_c: float | None = None
    throttle: tuple[str, ...] | None = None
    """What held the clocks down."""


class CardTelemetry(Finite):
    """What NVML said while the steps ran."""

    cards: tuple[str, ...]
    why: str
    """Why there is nothing; empty where there is."""
    joules_per_image: float | None = None
    samples: tuple[TelemetrySample, ...]


class SpanTimes(Finite):
    """One run of one op; seconds since the step began."""

    id: Annotated[str, From("op_id")]
    activity: str = ""
    kind: str = ""
    layer: str = ""
    exchange: str = ""
    device: str
    device_index: int = -1
    queue: str
    start_s: float
    end_s: float


class PlannedSpans(Finite):
    """A step on the virtual clock."""

    simulated: tuple[SpanTimes, ...]


class MeasuredSpans(PlannedSpans):
    """And on the wall's: that whose length is nearest to the median."""

    measured: tuple[SpanTimes, ...]


def _alive(device: DevicePlan, moments: tuple[Moment, ...]) -> tuple[Holding, ...]:
    """The largest buffers at the fullest op."""
    peak = max(range(len(moments)), key=lambda index: moments[index].total_bytes)
    return tuple(h for h in holdings(device) if h.first <= peak <= h.last)[:_LARGEST]


def _changes(moments: tuple[Moment, ...]) -> tuple[Moment, ...]:
    """Moments that differ from the one before."""
    return moments[:1] + tuple(
        after for before, after in pairwise(moments) if after.by_category != before.by_category
    )


def devices_of(plan: Plan, context_bytes: Sequence[int]) -> list[SimpleNamespace]:
    """What ``DeviceMemory`` is made from; ``context_bytes``: what the driver takes of each card."""
    tables = zip(plan.devices, memory_table(plan), context_bytes, strict=True)
    return [
        SimpleNamespace(
            device=device,
            held=replace(table, by_category=table.by_category | {Category.CONTEXT: taken}),
            moments=memory_timeline(device),
        )
        for device, table, taken in tables
    ]

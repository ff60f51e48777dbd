"""A profiled step as terminal tables: narrow at 80 columns, more at 120 and above."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.profile.records import LayerProfile, PassProfile, StepProfile
from alexsim.report.tables import data_path_text, plain_table, reconciliation
from alexsim.units import MIB

_WIDE = 120


def profile_tables(found: StepProfile, *, width: int) -> RenderableType:
    """The whole step, layer by layer."""
    step, batch = found.step, found.plan.images
    head = (
        f"{found.plan.network.name}, batch {batch}, medians of {found.rounds} rounds\n"
        f"here ({found.where}): {1e3 * step.median_s:,.1f} ms per step"
        f" ({1e3 * step.low_s:,.1f} to {1e3 * step.high_s:,.1f}),"
        f" {batch / step.median_s:,.1f} images/s\n"
        f"there: {1e3 * found.simulation.step_s:,.1f} ms by {found.simulation.library} on"
        f"\n  {found.simulation.machine}\n"
        f"  {data_path_text(found.simulation)}\n"
        f"ceilings here: {found.ceilings.flop_per_s / 1e9:,.0f} GFLOP/s,"
        f" {found.ceilings.bytes_per_s / 1e9:,.1f} GB/s"
    )
    foot = "\n".join(
        [*_timing(found), *_sums(found), *_memory(found), *_cards(found), *_articles(found)]
    )
    return Group(Text(head), _wide(found) if width >= _WIDE else _narrow(found), Text(foot))


def _timing(found: StepProfile) -> list[str]:
    """What timing cost: by pairs of steps, and by the cost of one event."""
    if found.timing is None:
        return []
    cost, timing = found.timing.overhead, found.timing
    events = timing.events * timing.event_s
    return [
        f"timing cost {100 * (cost.median - 1):+.1f} % of a step, median of {cost.pairs} pairs"
        f" (95 %: {100 * (cost.low - 1):+.1f} to {100 * (cost.high - 1):+.1f});",
        f"  {timing.events} events of {1e6 * timing.event_s:.1f} us are"
        f" {100 * events / timing.untimed.median_s:.3f} %",
    ]


def _cards(found: StepProfile) -> list[str]:
    telemetry = found.telemetry
    if telemetry is None:
        return []
    if telemetry.why:
        return [f"no telemetry: {telemetry.why}"]
    joules = telemetry.joules_per_image
    watts = [sample.power_w for sample in telemetry.samples if sample.power_w is not None]
    return [
        f"{', '.join(telemetry.cards)}:"
        + (f" {sum(watts) / len(watts):,.0f} W on average" if watts else " power unknown")
        + (f", {joules:.3f} J per image" if joules is not None else "")
    ]


def _memory(found: StepProfile) -> list[str]:
    return [
        f"memory of {held.devices}: {held.measured_bytes / MIB:,.1f} MiB measured,"
        f" {held.planned_bytes / MIB:,.1f} planned"
        for held in found.held
    ]


def _articles(found: StepProfile) -> list[str]:
    """The forward pass against the figure that articles give."""
    forward = [one for layer in found.layers for one in layer.passes if one.name == "forward"]
    flop = sum(one.flop for one in forward) / (found.plan.images // found.plan.replicas)
    said = reconciliation(found.plan.network)
    return [f"forward pass: {flop / 1e9:.4f} GFLOP per image", *said] if said else []


def _sums(found: StepProfile) -> list[str]:
    whole = found.timed.median_s
    parts = [("layers", found.layers_s), ("uploads and exchanges", found.transfers_s)]
    # Beside each other, devices take more together than the step is long.
    beside = found.rest_s < 0
    parts += [] if beside else [("between ops", found.rest_s)]
    text = ", ".join(f"{name} {100 * s / whole:.1f} %" for name, s in parts)
    return [
        f"timed step {1e3 * whole:,.1f} ms{', summed over GPUs that ran together' * beside}:",
        f"  {text}",
        "GFLOP/s count direct convolution. ceil.: what arithmetic or memory needs at the",
        "  ceilings, over the time taken; above 100 % where Winograd multiplies less or data",
        "  stays in the cache",
    ]


def _narrow(found: StepProfile) -> RenderableType:
    out = plain_table(
        "ms per step here, all columns; on the other machine, per GPU",
        "layer", "forward", "input", "weight", "update", "all", "GFLOP/s", "ceil.", "there",
    )  # fmt: skip
    for layer in found.layers:
        out.add_row(layer.name, *_times(layer), *_rates(layer.passes), _ms(layer.predicted_s))
    every = [one for layer in found.layers for one in layer.passes]
    out.add_section()
    sums = [
        sum(one.measured.median_s for one in every if one.name == name)
        for name in ("forward", "grad_input", "grad_weight", "update")
    ]
    there = sum(layer.predicted_s for layer in found.layers)
    out.add_row("sum", *map(_ms, sums), _ms(sum(sums)), *_rates(every), _ms(there))
    return out


def _wide(found: StepProfile) -> RenderableType:
    out = plain_table(
        "ms per step here, all columns; on the other machine, per GPU",
        "layer", "output", "parameters", "GMAC", "GFLOP", "MiB moved", "FLOP/B", "MiB held",
        "forward", "input", "weight", "update", "all", "+-", "GFLOP/s", "ceiling", "there",
    )  # fmt: skip
    for layer in found.layers:
        mac = sum(one.mac for one in layer.passes)
        moved = sum(one.moved_bytes for one in layer.passes)
        spread = sum(one.measured.high_s - one.measured.low_s for one in layer.passes) / 2
        out.add_row(
            layer.name,
            "x".join(map(str, layer.shape)),
            f"{layer.parameters:,}" if layer.parameters else "",
            f"{mac / 1e9:,.2f}" if mac else "",
            f"{2 * mac / 1e9:,.2f}" if mac else "",
            f"{moved / MIB:,.1f}",
            f"{2 * mac / moved:,.1f}" if mac else "",
            f"{sum(layer.memory_bytes.values()) / MIB:,.1f}",
            *_times(layer),
            f"{100 * spread / layer.measured_s:.0f} %" if layer.measured_s else "",
            *_rates(layer.passes),
            _ms(layer.predicted_s),
        )
    return out


def layer_tables(found: StepProfile, layer: LayerProfile) -> RenderableType:
    """One layer, pass by pass."""
    held = ", ".join(f"{name} {size / MIB:,.2f}" for name, size in layer.memory_bytes.items())
    head = (
        f"{layer.name}: {layer.kind} of {found.plan.network.name}, output"
        f" {' x '.join(map(str, layer.shape))}, {layer.parameters:,} parameters\n"
        f"batch {found.plan.images}, here ({found.where}), medians of {found.rounds} rounds\n"
        f"MiB held: {held}"
    )
    counts = plain_table(
        "Counts per step, all columns", "pass", "MAC", "FLOP", "elementwise", "bytes", "FLOP/B"
    )
    for one in layer.passes:
        counts.add_row(
            one.name,
            f"{one.mac:,}" if one.mac else "",
            f"{one.flop:,}" if one.flop else "",
            f"{one.elementwise_flop:,}" if one.elementwise_flop else "",
            f"{one.moved_bytes:,}",
            f"{one.flop / one.moved_bytes:,.1f}" if one.flop else "",
        )
    times = plain_table(
        f"Times; there: {found.simulation.machine}"[:76],
        "pass", "ms", "10 %", "90 %", "GFLOP/s", "ceil.", "limit", "there", "limit",
    )  # fmt: skip
    for one in layer.passes:
        m = one.measured
        times.add_row(
            one.name,
            *map(_ms, (m.median_s, m.low_s, m.high_s)),
            *_rates([one]),
            one.limit,
            _ms(one.predicted_s),
            one.predicted_limit,
        )
    share = layer.measured_s / found.timed.median_s
    foot = (
        f"{1e3 * layer.measured_s:,.1f} ms, {100 * share:.1f} % of the step;"
        f" there {1e3 * layer.predicted_s:,.1f} ms per GPU,"
        f" {100 * layer.predicted_s / found.simulation.step_s:.1f} %"
    )
    return Group(Text(head), counts, times, Text(foot))


def _times(layer: LayerProfile) -> list[str]:
    of = {one.name: one.measured.median_s for one in layer.passes}
    each = [of.get(name, 0.0) for name in ("forward", "grad_input", "grad_weight", "update")]
    return [*map(_ms, each), _ms(sum(each))]


def _rates(passes: Sequence[PassProfile]) -> list[str]:
    seconds = sum(one.measured.median_s for one in passes)
    flop = sum(one.flop for one in passes)
    floor = sum(one.floor_s for one in passes)
    rate = f"{flop / seconds / 1e9:,.0f}" if flop and seconds else ""
    return [rate, f"{100 * floor / seconds:.0f} %" if seconds else ""]


def _ms(seconds: float) -> str:
    if not seconds:
        return ""
    places = 2 if seconds < 0.01 else 1 if seconds < 1 else 0
    return f"{1e3 * seconds:,.{places}f}"

"""A profiled step as terminal tables: narrow at 80 columns, more at 120 and above."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network.counts import PASSES
from alexsim.profile.step_profile import LayerProfile, PassProfile, StepProfile
from alexsim.report.beside import beside_tables, group_lines, ms
from alexsim.report.tables import data_path_text, plain_table, reconciliation
from alexsim.units import MIB

_WIDE = 120


def profile_tables(profile: StepProfile, layer: str, *, width: int) -> RenderableType:
    """The whole step, layer by layer; or one layer, if it is named."""
    if layer:
        return _layer_tables(profile, next(each for each in profile.layers if each.name == layer))
    step, batch = profile.step, profile.plan.images
    head = (
        f"{profile.plan.network.name}, batch {batch}, medians of {profile.rounds} rounds\n"
        f"here ({profile.where}): {1e3 * step.median_s:,.1f} ms per step"
        f" ({1e3 * step.low_s:,.1f} to {1e3 * step.high_s:,.1f}),"
        f" {batch / step.median_s:,.1f} images/s\n"
        f"there: {1e3 * profile.simulation.step_s:,.1f} ms by {profile.simulation.library} on"
        f"\n  {profile.simulation.machine}\n"
        f"  {data_path_text(profile.simulation)}\n"
        f"ceilings here: {profile.ceilings.flop_per_s / 1e9:,.0f} GFLOP/s,"
        f" {profile.ceilings.bytes_per_s / 1e9:,.1f} GB/s"
    )
    sections = (_timing, _sums, _memory, _cards, _articles)
    foot = "\n".join(line for section in sections for line in section(profile))
    wide = width >= _WIDE
    return Group(
        Text(head),
        _wide(profile) if wide else _narrow(profile),
        Text(foot),
        *beside_tables(profile, wide=wide),
    )


def _timing(profile: StepProfile) -> list[str]:
    """What timing cost: by pairs of steps, and by the cost of one event."""
    if profile.timing is None:
        return []
    cost, timing = profile.timing.overhead, profile.timing
    events = timing.events * timing.event_s
    return [
        f"timing cost {100 * (cost.median - 1):+.1f} % of a step, median of {cost.pairs} pairs"
        f" (95 %: {100 * (cost.low - 1):+.1f} to {100 * (cost.high - 1):+.1f});",
        f"  {timing.events} events of {1e6 * timing.event_s:.1f} us are"
        f" {100 * events / timing.untimed.median_s:.3f} %",
    ]


def _cards(profile: StepProfile) -> list[str]:
    telemetry = profile.telemetry
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


def _memory(profile: StepProfile) -> list[str]:
    return [
        f"memory of {held.devices}: {held.measured_bytes / MIB:,.1f} MiB measured,"
        f" {held.planned_bytes / MIB:,.1f} planned"
        for held in profile.held
    ]


def _articles(profile: StepProfile) -> list[str]:
    """The forward pass against the figure that articles give."""
    passes = (pass_ for layer in profile.layers for pass_ in layer.passes)
    images = profile.plan.images // profile.plan.replicas
    flop = sum(pass_.flop for pass_ in passes if pass_.name == "forward") / images
    lines = reconciliation(profile.plan.network)
    return [f"forward pass: {flop / 1e9:.4f} GFLOP per image", *lines] if lines else []


def _sums(profile: StepProfile) -> list[str]:
    step_s = profile.timed.median_s
    parts = [("layers", profile.layers_s), ("uploads and exchanges", profile.transfers_s)]
    # Beside each other, devices take more together than the step is long.
    beside = profile.rest_s < 0
    parts += [] if beside else [("between ops", profile.rest_s)]
    text = ", ".join(f"{name} {100 * s / step_s:.1f} %" for name, s in parts)
    return [
        f"timed step {1e3 * step_s:,.1f} ms{', summed over GPUs that ran together' * beside}:",
        f"  {text}",
        "GFLOP/s count direct convolution; Winograd's multiplies less. ceil.: what the",
        "  products that are done, or memory, need at the ceilings, over the time taken;",
        "  above 100 % where data stays in the cache",
    ]


def _narrow(profile: StepProfile) -> RenderableType:
    out = plain_table(
        "ms per step here, all columns; on the other machine, per GPU",
        "layer", "forward", "input", "weight", "update", "all", "GFLOP/s", "ceil.", "there",
    )  # fmt: skip
    for layer in profile.layers:
        out.add_row(layer.name, *_times(layer), *_rates(layer.passes), ms(layer.predicted_s))
    passes = [pass_ for layer in profile.layers for pass_ in layer.passes]
    out.add_section()
    sums = [
        sum(pass_.measured.median_s for pass_ in passes if pass_.name == name) for name in PASSES
    ]
    predicted_s = sum(layer.predicted_s for layer in profile.layers)
    out.add_row("sum", *map(ms, sums), ms(sum(sums)), *_rates(passes), ms(predicted_s))
    return out


def _wide(profile: StepProfile) -> RenderableType:
    out = plain_table(
        "ms per step here, all columns; on the other machine, per GPU",
        "layer", "output", "parameters", "GMAC", "GFLOP", "MiB moved", "FLOP/B", "MiB held",
        "forward", "input", "weight", "update", "all", "+-", "GFLOP/s", "ceiling", "there",
    )  # fmt: skip
    for layer in profile.layers:
        mac = sum(pass_.mac for pass_ in layer.passes)
        moved = sum(pass_.moved_bytes for pass_ in layer.passes)
        spread = sum(pass_.measured.high_s - pass_.measured.low_s for pass_ in layer.passes) / 2
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
            ms(layer.predicted_s),
        )
    return out


def _by(layer: LayerProfile) -> str:
    """How passes are computed, alike ones together."""
    passes: dict[str, list[str]] = {}
    for pass_ in layer.passes:
        passes.setdefault(pass_.algorithm, []).append(pass_.name)
    return "; ".join(f"{algorithm}: {', '.join(names)}" for algorithm, names in passes.items())


def _layer_tables(profile: StepProfile, layer: LayerProfile) -> RenderableType:
    """One layer, pass by pass."""
    held = ", ".join(f"{name} {size / MIB:,.2f}" for name, size in layer.memory_bytes.items())
    head = (
        f"{layer.name}: {layer.kind} of {profile.plan.network.name}, output"
        f" {' x '.join(map(str, layer.shape))}, {layer.parameters:,} parameters\n"
        f"batch {profile.plan.images}, here ({profile.where}), medians of {profile.rounds} rounds\n"
        f"MiB held: {held}\n"
        f"by {_by(layer)}"
    )
    counts = plain_table(
        "Counts per step, all columns", "pass", "MAC", "FLOP", "elementwise", "bytes", "FLOP/B"
    )
    for pass_ in layer.passes:
        counts.add_row(
            pass_.name,
            f"{pass_.mac:,}" if pass_.mac else "",
            f"{pass_.flop:,}" if pass_.flop else "",
            f"{pass_.elementwise_flop:,}" if pass_.elementwise_flop else "",
            f"{pass_.moved_bytes:,}",
            f"{pass_.flop / pass_.moved_bytes:,.1f}" if pass_.flop else "",
        )
    times = plain_table(
        f"Times; there: {profile.simulation.machine}"[:76],
        "pass", "ms", "10 %", "90 %", "GFLOP/s", "ceil.", "limit", "there", "limit",
    )  # fmt: skip
    for pass_ in layer.passes:
        m = pass_.measured
        times.add_row(
            pass_.name,
            *map(ms, (m.median_s, m.low_s, m.high_s)),
            *_rates([pass_]),
            pass_.limit,
            ms(pass_.predicted_s),
            pass_.predicted_limit,
        )
    share = layer.measured_s / profile.timed.median_s
    foot = (
        f"{1e3 * layer.measured_s:,.1f} ms, {100 * share:.1f} % of the step;"
        f" there {1e3 * layer.predicted_s:,.1f} ms per GPU,"
        f" {100 * layer.predicted_s / profile.simulation.step_s:.1f} %"
    )
    foot = "\n".join((foot, *group_lines(profile, layer.name)))
    return Group(Text(head), counts, times, Text(foot))


def _times(layer: LayerProfile) -> list[str]:
    seconds = {pass_.name: pass_.measured.median_s for pass_ in layer.passes}
    times = [seconds.get(name, 0.0) for name in PASSES]
    return [*map(ms, times), ms(sum(times))]


def _rates(passes: Sequence[PassProfile]) -> list[str]:
    seconds = sum(pass_.measured.median_s for pass_ in passes)
    flop = sum(pass_.flop for pass_ in passes)
    floor = sum(pass_.floor_s for pass_ in passes)
    rate = f"{flop / seconds / 1e9:,.0f}" if flop and seconds else ""
    return [rate, f"{100 * floor / seconds:.0f} %" if seconds else ""]

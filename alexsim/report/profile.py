"""A profiled step as terminal tables: narrow at 80 columns, more at 120 and above."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network.counts import PASSES
from alexsim.profile.step_profile import LayerProfile, PassProfile, StepProfile
from alexsim.report.beside import beside_tables, group_lines, ms
from alexsim.report.profile_answer import profile_answer
from alexsim.report.tables import plain_table, reconciliation
from alexsim.units import MIB

_WIDE = 120


def profile_tables(
    profile: StepProfile, layer: str, *, width: int, layers: bool = False
) -> RenderableType:
    """The answer, and all layers below it if they are asked for; or one layer, if it is named."""
    if layer:
        return _layer_tables(profile, next(each for each in profile.layers if each.name == layer))
    if not layers:
        return profile_answer(profile)
    wide = width >= _WIDE
    return Group(
        profile_answer(profile),
        Text(),
        _wide(profile) if wide else _narrow(profile),
        Text("\n".join((*_sums(profile), *_articles(profile)))),
        *beside_tables(profile, wide=wide),
    )


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

"""What a profiled step answers, on one screen: how long, what of, how far from what is possible."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network.counts import PASSES
from alexsim.profile.step_profile import LayerProfile, Ratio, StepProfile
from alexsim.report.tables import answer_rows, milliseconds
from alexsim.units import format_bytes

_NAMED = 3
"""Layers that are named."""
_NOISY = 1.5
"""Bounds of an interval that are this many times apart say little."""


def profile_answer(profile: StepProfile) -> RenderableType:
    """The first screen: at most 24 lines of 80 columns."""
    head = (
        f"{profile.plan.network.name}, {profile.plan.images:,} images of a step,"
        f" here ({profile.where}), medians of {profile.rounds} rounds"
    )
    return Group(Text(head), Text(), answer_rows(_rows(profile)), Text(), Text(_asks_next(profile)))


def _rows(profile: StepProfile) -> Iterator[tuple[str, str, str]]:
    step, ceilings = profile.step, profile.ceilings
    yield (
        "step",
        f"{milliseconds(step.median_s)} ms",
        f"80 %: {milliseconds(step.low_s)} to {milliseconds(step.high_s)}; {_passes(profile)}",
    )
    yield "throughput", f"{profile.plan.images / step.median_s:,.1f} images/s", _rate(profile)
    yield from _slowest(profile)
    yield from _beside(profile)
    there = profile.simulation
    binds = "; its data path binds" if there.data_bound else ""
    yield "there", f"{milliseconds(there.step_s)} ms", f"{there.machine}, {there.library}{binds}"
    yield from _memory(profile)
    yield (
        "ceilings",
        f"{ceilings.flop_per_s / 1e9:,.0f} GFLOP/s",
        f"of products, and {ceilings.bytes_per_s / 1e9:,.1f} GB/s of a large copy, measured now",
    )
    if profile.timing is not None:
        cost = profile.timing.overhead
        yield (
            "timing cost",
            f"{100 * (cost.median - 1):+.1f} %",
            f"of a step, {cost.pairs} pairs (95 %: {100 * (cost.low - 1):+.1f} to"
            f" {100 * (cost.high - 1):+.1f}); not in the step above",
        )
    yield from _cards(profile)
    if step.high_s > _NOISY * step.low_s:
        why = "steps differ that much: others use these cores; measure again when it is quiet"
        yield "disturbed", f"{step.high_s / step.low_s:.1f} times", why


def _passes(profile: StepProfile) -> str:
    """Shares of the passes in the layers' time."""
    seconds = dict.fromkeys(PASSES, 0.0)
    for layer in profile.layers:
        for pass_ in layer.passes:
            seconds[pass_.name] += pass_.measured.median_s
    forward_s, update_s = seconds.pop("forward"), seconds.pop("update")
    parts = (("forward", forward_s), ("backward", sum(seconds.values())), ("update", update_s))
    return ", ".join(f"{name} {milliseconds(s)}" for name, s in parts)


def _rate(profile: StepProfile) -> str:
    """What the layers do of what products and copies reach here."""
    passes = [pass_ for layer in profile.layers for pass_ in layer.passes]
    flop = sum(pass_.flop for pass_ in passes)
    reached = sum(pass_.floor_s for pass_ in passes) / profile.layers_s
    return (
        f"{flop / profile.layers_s / 1e9:,.0f} GFLOP/s; {100 * reached:.0f} % of what the ceilings"
        f" allow; between ops {100 * max(profile.rest_s, 0) / profile.timed.median_s:.1f} %"
    )


def _slowest(profile: StepProfile) -> Iterator[tuple[str, str, str]]:
    """The layers that take longest, and the one that is furthest from the ceilings."""

    def lost_s(layer: LayerProfile) -> float:
        return layer.measured_s - sum(pass_.floor_s for pass_ in layer.passes)

    ordered = sorted(profile.layers, key=lambda layer: -layer.measured_s)
    first, *others = ordered[:_NAMED]
    rest = ", ".join(f"{each.name} {100 * each.measured_s / profile.layers_s:.0f} %"
                     for each in others)  # fmt: skip
    slow = max(first.passes, key=lambda pass_: pass_.measured.median_s)
    yield (
        "slowest",
        first.name,
        f"{100 * first.measured_s / profile.layers_s:.0f} % of the layers' time, its {slow.name}"
        f" bound by {slow.limit}" + (f"; {rest}" if rest else ""),
    )
    most = max(profile.layers, key=lost_s)
    if lost_s(most) > 0:
        yield (
            "to gain",
            most.name,
            f"{milliseconds(lost_s(most))} of its {milliseconds(most.measured_s)} ms are more than"
            " the ceilings need",
        )


def _beside(profile: StepProfile) -> Iterator[tuple[str, str, str]]:
    beside = profile.beside
    if beside is None:
        return

    def over(ratio: Ratio | None, whose: str) -> str:
        if ratio is None:
            return ""
        told = f"{ratio.median:.2f} of {whose} time, round by round"
        sure = ratio.high <= _NOISY * ratio.low
        return told if sure else f"{told}, but {ratio.low:.2f} to {ratio.high:.2f}: too noisy"

    eager, compiled = beside.eager, beside.compiled
    notes = [over(beside.over_ours, "our"), f"PyTorch {eager.torch}, the same module and minibatch"]
    yield (
        "eager",
        f"{milliseconds(eager.untimed.median_s)} ms",
        "; ".join(note for note in notes if note),
    )
    if compiled is None:
        yield "compiled", "none", beside.why_not
    else:
        notes = [over(compiled.over_ours, "our"), over(compiled.over_eager, "eager's")]
        yield (
            "compiled",
            f"{milliseconds(compiled.untimed.median_s)} ms",
            "; ".join(note for note in notes if note),
        )


def _memory(profile: StepProfile) -> Iterator[tuple[str, str, str]]:
    if not profile.held:
        return
    most = max(profile.held, key=lambda held: held.measured_bytes)
    yield (
        "memory",
        format_bytes(most.measured_bytes),
        f"held by {most.devices}, without a card's context;"
        f" planned {format_bytes(most.planned_bytes)}",
    )


def _cards(profile: StepProfile) -> Iterator[tuple[str, str, str]]:
    telemetry = profile.telemetry
    if telemetry is None:
        return
    if telemetry.why:
        yield "telemetry", "none", telemetry.why
        return
    joules = telemetry.joules_per_image
    watts = [sample.power_w for sample in telemetry.samples if sample.power_w is not None]
    yield (
        "power",
        f"{sum(watts) / len(watts):,.0f} W" if watts else "unknown",
        ", ".join(telemetry.cards) + (f"; {joules:.3f} J per image" if joules is not None else ""),
    )


def _asks_next(profile: StepProfile) -> str:
    slowest = max(profile.layers, key=lambda layer: layer.measured_s).name
    return f"More: --layers. Next: --layer {slowest}; -o FILE and `alexsim report FILE`"

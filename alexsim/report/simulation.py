"""Simulations as terminal tables, within 80 columns."""

from __future__ import annotations

import itertools
import textwrap
from collections import defaultdict
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.costs.precision import Computed
from alexsim.explore.sensitivity import Sensitivity
from alexsim.explore.what_if import WhatIf, kinds_of, waits_s
from alexsim.network.network import Network
from alexsim.plan.spec import PlanSpec
from alexsim.recipe.stages import Training
from alexsim.report.not_run import not_run_lines
from alexsim.report.recipe import stages_table
from alexsim.report.tables import data_path_text, milliseconds, plain_table, sharing_text
from alexsim.report.what_if import ACTIVITIES, days_text, elasticities_table, what_if_table
from alexsim.simulate.evidence import Evidence
from alexsim.simulate.simulation import ExchangeTimes, Simulation
from alexsim.trace import Activity
from alexsim.units import MIB

_BAR = 56
_LONGEST = 12
_ARTICLES_FLOP_PER_S = 1.581e12
"""Peak of the paper's card, a GTX 580, to four digits: articles make speeds of it."""


def simulation_tables(
    simulation: Simulation,
    spec: PlanSpec,
    training: Training,
    *,
    sensitivities: Sequence[Sensitivity] = (),
    elasticities: bool = False,
    what_ifs: Sequence[WhatIf] = (),
    before: Simulation | None = None,
) -> RenderableType:
    """The training, the step, its parts, every device, and a picture of its timeline."""
    network, sharing = spec.network, sharing_text(spec)
    parts: list[RenderableType] = [
        *([Text(sharing)] if sharing else ()),
        Text(_head(simulation, training, before)),
        *([stages_table(training.stages)] if training.stages else ()),
        *([what_if_table(what_ifs, simulation, training)] if what_ifs else ()),
        Text(timeline(simulation)),
        _devices(simulation),
        _parts(simulation, network),
        _critical_path(simulation, network),
        *([elasticities_table(simulation, network)] if elasticities else ()),
        _layers(simulation),
        _longest(simulation),
    ]
    if simulation.exchanges:
        parts.append(_exchanges(simulation))
    if lines := not_run_lines(network, simulation):
        parts.append(Text("\n".join(lines)))
    if sensitivities:
        parts.append(_sensitivities(sensitivities))
    return Group(*parts)


def _machines(simulation: Simulation) -> str:
    if simulation.replicas > 1:
        per_replica = simulation.devices_count // simulation.replicas
        return f"{simulation.replicas} replicas of {per_replica} device(s)"
    split = ", hybrid" if simulation.partition == "hybrid" else ""
    return f"{simulation.devices_count} device(s){split}"


def _head(simulation: Simulation, training: Training, before: Simulation | None) -> str:
    bounds, between = training.days_interval, simulation.step_interval
    first = " at first" if training.stages else ""
    # Stages differ in the third digit.
    days = f"{training.days:.3g}" if training.stages else days_text(training.days)
    lines = [
        f"{simulation.network} on {simulation.machine}, {simulation.library}:"
        f" {_machines(simulation)}, {simulation.batch_size} images per step",
        f"  {f'recipe {training.recipe}, ' if training.stages else ''}{training.epochs} epochs of"
        f" {training.images:,} images: {days} days"
        f" (90 %: {days_text(bounds.low)} to {days_text(bounds.high)})",
        f"  step {milliseconds(simulation.step_s)} ms{first} (90 %: {milliseconds(between.low)} to"
        f" {milliseconds(between.high)}), {simulation.images_per_s:,.0f} images/s,"
        f" {100 * simulation.utilisation:.0f} % of peak",
        *_counted(simulation),
        *_computed(simulation.computed),
        *rests_on(simulation.evidence),
        *_before(before),
        f"  {data_path_text(simulation)}",
        f"  forward {milliseconds(simulation.forward_s)} ms"
        f"{', with the wait for images' if simulation.data_bound else ''},"
        f" backward {milliseconds(simulation.backward_s)} ms",
        f"  forward passes/s under ideal conditions (all cards at peak):"
        f" {simulation.ideal_forward_images_per_s:,.0f}",
        _ideal_training(simulation),
    ]
    peak = simulation.device_flop_per_s
    if round(peak, -9) == _ARTICLES_FLOP_PER_S and simulation.network.startswith("alexnet"):
        # Articles give both as speeds; see the notes on what they say and what is true.
        lines.append(
            '  Articles say "over 2,200": 2 x 1.581 TFLOP/s over 1.43 GFLOP, the one-column'
            "\n  net's; and \"395\": 1.581 TFLOP/s over a training step's 4.0 GFLOP, taken for"
            "\n  a forward pass. Both are peaks, which nothing reaches."
        )
    if not simulation.fits:
        full = next(d for d in simulation.devices if d.memory_bytes > d.capacity_bytes)
        whose = f"{full.name} ({full.card})" if _unlike(simulation) else "a device"
        lines.append(
            f"  Does not fit: {whose} has {full.capacity_bytes / MIB:,.0f} MiB;"
            " `alexsim memory` says what would."
        )
    return "\n".join(lines)


def _before(before: Simulation | None) -> list[str]:
    if before is None:
        return []
    between = before.step_interval
    return [
        f"  By the shipped fit alone: step {milliseconds(before.step_s)} ms (90 %:"
        f" {milliseconds(between.low)} to {milliseconds(between.high)})"
    ]


def rests_on(evidence: Evidence) -> list[str]:
    """What a prediction rests on, in lines of 80 columns; none where this machine was measured."""
    if evidence.error is None:
        return []
    error = evidence.error

    def seen(name: str, rows: int) -> str:
        return f"{name} {f'seen ({rows:,} rows)' if rows else 'never seen'}"

    given = f" Given {evidence.given}." if evidence.given else ""
    said = (
        f"Rests on {evidence.rows:,} rows: {seen(evidence.device, evidence.device_rows)},"
        f" {seen(evidence.library, evidence.library_rows)};"
        f" {100 * evidence.inside:.0f} % of the time in shapes as measured.{given}"
        f" {error.words[0].upper()}{error.words[1:]}: left out, {error.rows:,} were"
        f" {100 * error.median:.0f} % off at the median, {100 * error.mean:.0f} % at the mean."
    )
    return textwrap.wrap(said, 79, initial_indent="  ", subsequent_indent="  ")


def _counted(simulation: Simulation) -> list[str]:
    """What rates over peak count, where that is not a direct convolution's multiply-adds."""
    if simulation.utilisation_counts == "direct":
        return []
    share = 100 * simulation.done_share
    return [
        f"  Winograd or FFT do {share:.0f} % of the multiply-adds of direct convolution; these",
        "  count against the peak, here and below.",
    ]


def _computed(how: Computed) -> list[str]:
    """In which types it computes, and which PyTorch itself would choose."""
    match how.precision:
        case "amp" if how.tensor_cores:
            return [
                f"  mixed precision: products in {how.half_type} on tensor cores, gradients float32"
            ]
        case "amp":
            return [
                f"  mixed precision, {how.half_type}; no tensor cores: fewer bytes, no more FLOP/s"
            ]
        case "pytorch" if how.tf32_by_default:
            return [
                "  as PyTorch does unless told otherwise: convolutions in TF32, the rest float32"
            ]
        case "fp32" if how.tf32_by_default:
            return ["  PyTorch itself would run convolutions in TF32 here: --precision pytorch"]
    return []


def _ideal_training(simulation: Simulation) -> str:
    """The rate of all cards, as predicted rates are; then the rate of one card."""
    per_device, count = simulation.ideal_training_images_per_s, simulation.devices_count
    if count == 1:
        return f"  images/s that one card at peak could train: {per_device:,.0f}"
    return (
        f"  images/s that all cards at peak could train: {count * per_device:,.0f}"
        f" (one: {per_device:,.0f})"
    )


def _devices(simulation: Simulation) -> RenderableType:
    out = plain_table(
        "Per device, ms per step (of transfers: what no computing hides)",
        "device", "computing", "exchange", "upload", "all-reduce", "idle", "MiB",
    )  # fmt: skip
    for device in simulation.devices:
        out.add_row(
            f"{device.name} {device.card}" if _unlike(simulation) else device.name,
            milliseconds(device.busy_s),
            _exposed(device.exposed_exchange_s, device.exchange_s),
            _exposed(device.exposed_upload_s, device.upload_s),
            _exposed(device.exposed_all_reduce_s, simulation.all_reduce_s),
            milliseconds(device.idle_s),
            f"{device.memory_bytes / MIB:,.0f}",
        )
    return out


def _unlike(simulation: Simulation) -> bool:
    return len({device.card for device in simulation.devices}) > 1


def _exposed(exposed_s: float, whole_s: float) -> str:
    if not whole_s:
        return ""
    if whole_s - exposed_s < 5e-5:
        return milliseconds(exposed_s)
    return f"{milliseconds(exposed_s)} of {milliseconds(whole_s)}"


def _parts(simulation: Simulation, network: Network) -> RenderableType:
    kinds, device = kinds_of(network), simulation.devices[0]
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * 4)
    for layer in simulation.layers:
        if layer.device == device.name:
            passes = (layer.forward_s, layer.grad_input_s, layer.grad_weight_s, layer.update_s)
            for column, seconds in enumerate(passes):
                sums[kinds[layer.name]][column] += seconds
    out = plain_table(
        f"Where {device.name}'s step goes, ms",
        "part", "forward", "input gr.", "weight gr.", "update", "all", "share",
    )  # fmt: skip
    step_s = simulation.step_s
    for name, times in sums.items():
        cells = [milliseconds(seconds) if seconds else "" for seconds in times]
        out.add_row(name, *cells, milliseconds(sum(times)), f"{100 * sum(times) / step_s:.0f} %")
    for name, seconds in waits_s(device).items():
        if seconds > step_s / 2000:
            share = f"{100 * seconds / step_s:.0f} %"
            out.add_row(name, "", "", "", "", milliseconds(seconds), share)
    return out


def _critical_path(simulation: Simulation, network: Network) -> RenderableType:
    """The path by device and part, and how often it changes device."""
    kinds = kinds_of(network)
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    pieces: dict[tuple[str, str], int] = defaultdict(int)
    for span in simulation.critical_path:
        name = ACTIVITIES.get(span.activity) or kinds[span.layer]
        seconds[span.device, name] += span.duration_s
        pieces[span.device, name] += 1
    devices = [span.device for span in simulation.critical_path]
    changes = sum(a != b for a, b in itertools.pairwise(devices))
    out = plain_table(
        f"Critical path: {len(devices)} pieces, {changes} changes of device",
        "device", "part", "pieces", "ms", "share",
    )  # fmt: skip
    out.columns[1].justify = "left"
    for (device, name), total in sorted(seconds.items(), key=lambda item: -item[1]):
        if total > simulation.step_s / 1000:
            out.add_row(
                device,
                name,
                str(pieces[device, name]),
                milliseconds(total),
                f"{100 * total / simulation.step_s:.1f} %",
            )
    return out


def _layers(simulation: Simulation) -> RenderableType:
    out = plain_table(
        "Layers, ms per step", "layer", "device", "forward", "input gr.", "weight gr.", "update",
        "limit",
    )  # fmt: skip
    devices: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for layer in simulation.layers:
        if layer.total_s < simulation.step_s / 2000:
            continue
        passes = (layer.forward_s, layer.grad_input_s, layer.grad_weight_s, layer.update_s)
        cells = [f"{1e3 * seconds:.2f}" if seconds else "" for seconds in passes]
        devices[layer.name, *cells, layer.limit].append(layer.device)
    for (name, *cells), alike in devices.items():
        out.add_row(name, " ".join(alike), *cells)
    return out


def _longest(simulation: Simulation) -> RenderableType:
    out = plain_table(
        f"The longest ops (--json has all {len(simulation.ops)})",
        "op", "devices", "ms", "share", "limit",
    )  # fmt: skip
    devices: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for op in sorted(simulation.ops, key=lambda op: -op.seconds):
        share = f"{100 * op.seconds / simulation.step_s:.1f} %"
        cells = (f"{op.layer} {op.label}", f"{1e3 * op.seconds:.2f}", share, op.limit)
        devices[cells].append(op.device)
    for (name, *rest), alike in itertools.islice(devices.items(), _LONGEST):
        out.add_row(name, " ".join(alike), *rest)
    return out


def _exchanges(simulation: Simulation) -> RenderableType:
    out = plain_table("Exchanges", "what", "from", "to", "MiB", "ms")
    in_turns: dict[str, list[ExchangeTimes]] = defaultdict(list)
    rows = []
    for exchange in simulation.exchanges:
        if exchange.turn is None:
            rows.append((exchange.label, exchange.source, exchange.target, [exchange]))
        else:
            in_turns[f"{exchange.layer} {exchange.direction}"].append(exchange)
    rows += [
        (f"{name}, {len(turns)} turns", "all", "all", turns) for name, turns in in_turns.items()
    ]
    for name, source, target, turns in rows:
        size = sum(exchange.size_bytes for exchange in turns)
        seconds = sum(exchange.seconds for exchange in turns)
        out.add_row(name, source, target, f"{size / MIB:.2f}", f"{1e3 * seconds:.2f}")
    return out


def _sensitivities(rows: Sequence[Sensitivity]) -> RenderableType:
    out = plain_table("What the prediction rests on", "assumption", "changed by", "step changes by")
    for row in rows:
        out.add_row(row.assumption, row.change, f"{100 * (row.ratio - 1):+.1f} %")
    return out


_MARKS: dict[Activity, str] = {"computing": "#", "host": "#", "barrier": "."}


def timeline(simulation: Simulation) -> str:
    """A picture of one step: a row per device and queue."""
    lines = ["Timeline of a step: # computing, = transfer, . idle"]
    rows: dict[tuple[str, str], list[tuple[float, float, str]]] = defaultdict(list)
    for span in simulation.trace.spans:
        mark = _MARKS.get(span.activity, "=")
        rows[span.device, span.queue].append((span.start_s, span.end_s, mark))
    for (device, queue), spans in sorted(rows.items()):
        bar = ["."] * _BAR
        for start, end, mark in spans:
            first, last = (int(_BAR * t / simulation.step_s) for t in (start, end))
            for column in range(first, min(_BAR, max(last, first + (mark == "=")))):
                bar[column] = mark
        lines.append(f"  {device + ' ' + queue:15s}|{''.join(bar)}|")
    return "\n".join(lines)

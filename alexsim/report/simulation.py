"""Simulations as terminal tables, within 80 columns."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.budget.policies import policy_words
from alexsim.explore.sensitivity import Sensitivity
from alexsim.explore.what_if import WhatIf, kinds_of, waits_s
from alexsim.network.network import Network
from alexsim.plan.choices import Policy
from alexsim.plan.spec import PlanSpec
from alexsim.recipe.stages import Training
from alexsim.report.answer import answer
from alexsim.report.not_run import not_run_lines
from alexsim.report.recipe import stages_table
from alexsim.report.tables import milliseconds, plain_table
from alexsim.report.what_if import ACTIVITIES, elasticities_table, what_if_table
from alexsim.simulate.simulation import ExchangeTimes, Simulation
from alexsim.trace import Activity
from alexsim.units import MIB, format_bytes

Shown = Literal["layers", "ops", "transfers", "articles", "elasticities"]
SHOWN: tuple[Shown, ...] = get_args(Shown)
"""What may be shown below the answer."""
TABLES_ONLY = SHOWN[:-1]
"""What of that a document has whether it is asked for or not."""
_BAR = 56
_LONGEST = 12
_ARTICLES_FLOP_PER_S = 1.581e12
"""Peak of the paper's card, a GTX 580, to four digits: articles make speeds of it."""


def simulation_tables(
    simulation: Simulation,
    spec: PlanSpec,
    training: Training,
    *,
    shown: Collection[Shown] = (),
    sensitivities: Sequence[Sensitivity] = (),
    what_ifs: Sequence[WhatIf] = (),
    before: Simulation | None = None,
    policies: Mapping[Policy, int] | None = None,
) -> RenderableType:
    """The answer on one screen, and what else was asked for."""
    network = spec.network
    parts: list[RenderableType] = [answer(simulation, spec, training, before, policies)]
    if training.stages:
        parts.append(stages_table(training.stages))
    if what_ifs:
        parts.append(what_if_table(what_ifs, simulation, training))
    if "layers" in shown:
        parts += [_parts(simulation, network), _layers(simulation)]
    if "ops" in shown:
        parts += [_critical_path(simulation, network), _longest(simulation)]
    if "transfers" in shown:
        parts += [Text(timeline(simulation)), _devices(simulation)]
        parts += [_exchanges(simulation)] if simulation.exchanges else []
    if "articles" in shown:
        parts.append(Text("\n".join(_at_peak(simulation))))
    if "elasticities" in shown:
        parts.append(elasticities_table(simulation, network))
    if lines := not_run_lines(network, simulation):
        parts.append(Text("\n".join(lines)))
    if sensitivities:
        parts.append(_sensitivities(sensitivities))
    # A line between the answer and what was asked for beside it, and between these.
    return Group(parts[0], *(Group(Text(), part) for part in parts[1:]))


def does_not_fit(simulation: Simulation, policies: Mapping[Policy, int]) -> str:
    """What the fullest device lacks, and by which policies the step would fit, in a line."""
    fullest = simulation.fullest
    whose = f"its {fullest.card}" if simulation.unlike else "its card"
    what = "what else" if policies else "what"
    would = f" it would fit by {', '.join(policy_words(policies))};" if policies else ""
    return (
        f"{fullest.name} needs {format_bytes(fullest.memory_bytes)}, {whose} has"
        f" {format_bytes(fullest.capacity_bytes)}: {format_bytes(-fullest.free_bytes)} over;"
        f"{would} `alexsim memory` with the same options says {what} would fit"
    )


def _at_peak(simulation: Simulation) -> list[str]:
    """Rates of cards at their peak, and what articles made of them."""
    per_device, count = simulation.ideal_training_images_per_s, simulation.devices_count
    cards = "one card" if count == 1 else "all cards"
    lines = [
        f"forward passes/s of {cards} at peak: {simulation.ideal_forward_images_per_s:,.0f}",
        f"images/s that {cards} at peak could train: {count * per_device:,.0f}"
        + (f" (one: {per_device:,.0f})" if count > 1 else ""),
    ]
    peak = simulation.device_flop_per_s
    if round(peak, -9) == _ARTICLES_FLOP_PER_S and simulation.network.startswith("alexnet"):
        # Articles give both as speeds; see the notes on what they say and what is true.
        lines += [
            'Articles say "over 2,200": 2 x 1.581 TFLOP/s over 1.43 GFLOP, the one-column',
            "net's; and \"395\": 1.581 TFLOP/s over a training step's 4.0 GFLOP, taken for a",
            "forward pass. Both are peaks, which nothing reaches.",
        ]
    return lines


def _devices(simulation: Simulation) -> RenderableType:
    out = plain_table(
        "Per device, ms per step (of transfers: what no computing hides)",
        "device", "computing", "exchange", "upload", "all-reduce", "idle", "MiB",
    )  # fmt: skip
    for device in simulation.devices:
        out.add_row(
            f"{device.name} {device.card}" if simulation.unlike else device.name,
            milliseconds(device.busy_s),
            _exposed(device.exposed_exchange_s, device.exchange_s),
            _exposed(device.exposed_upload_s, device.upload_s),
            _exposed(device.exposed_all_reduce_s, device.all_reduce_s),
            milliseconds(device.idle_s),
            f"{device.memory_bytes / MIB:,.0f}",
        )
    return out


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

"""Simulations, validations and sweeps as terminal tables, within 80 columns."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from alexsim.network.network import Network
from alexsim.report.tables import plain_table
from alexsim.simulate.records import Simulation
from alexsim.simulate.rows import Excluded
from alexsim.simulate.sensitivity import Sensitivity
from alexsim.simulate.sweep import Point
from alexsim.simulate.validation import Prediction, Summary
from alexsim.units import MIB

if TYPE_CHECKING:
    from alexsim.profile.calibrate import Check
    from alexsim.simulate.costs.measured import Calibration

_KINDS = {
    "Convolution": "convolutions",
    "FullyConnected": "fully connected",
    "LocalResponseNorm": "response norms",
    "SpatialResponseNorm": "response norms",
    "MaxPool": "pools",
    "AveragePool": "pools",
}
_BAR = 56


def simulation_tables(
    simulation: Simulation,
    network: Network,
    *,
    images: int,
    epochs: int,
    sensitivities: Sequence[Sensitivity] = (),
) -> RenderableType:
    """The step, its parts, every device, and a picture of its timeline."""
    days, bounds = (
        simulation.training_days(images, epochs),
        simulation.training_days_interval(images, epochs),
    )
    head = (
        f"{simulation.network} on {simulation.machine}, {simulation.library}:"
        f" {simulation.devices_count} device(s), {simulation.batch_size} images per step\n"
        f"  step {_ms(simulation.step_s)} ms (90 %: {_ms(simulation.step_interval.low)} to"
        f" {_ms(simulation.step_interval.high)}), {simulation.images_per_s:,.0f} images/s,"
        f" {100 * simulation.utilisation:.0f} % of peak\n"
        f"  {epochs} epochs of {images:,} images: {days:.2g} days"
        f" (90 %: {bounds.low:.2g} to {bounds.high:.2g})\n"
        f"  forward {_ms(simulation.forward_s)} ms, backward {_ms(simulation.backward_s)} ms;"
        f" at peak a forward pass alone could do"
        f" {simulation.ideal_forward_images_per_s:,.0f} images/s"
    )
    if simulation.host_s > simulation.step_s * 0.999:
        head += "\n  The data path sets the pace: more decoding cores or a faster disk would help."
    if not simulation.fits:
        head += (
            f"\n  Does not fit: a device has {simulation.device_memory_bytes / MIB:,.0f} MiB;"
            " `alexsim memory` says what would."
        )
    parts: list[RenderableType] = [
        Text(head),
        _devices(simulation),
        _parts(simulation, network),
        _layers(simulation),
        Text(timeline(simulation)),
    ]
    if simulation.exchanges:
        parts.insert(3, _exchanges(simulation))
    if sensitivities:
        parts.append(_sensitivities(sensitivities))
    return Group(*parts)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def _devices(simulation: Simulation) -> RenderableType:
    out = plain_table(
        "Per device, ms per step", "device", "computing", "exchange", "upload", "idle", "MiB"
    )
    for device in simulation.devices:
        out.add_row(
            device.name,
            _ms(device.busy_s),
            _ms(device.exchange_s),
            _ms(device.upload_s),
            _ms(device.idle_s),
            f"{device.memory_bytes / MIB:,.0f}",
        )
    if simulation.all_reduce_s:
        out.caption = f"all-reduce of gradients: {_ms(simulation.all_reduce_s)} ms"
    return out


def _parts(simulation: Simulation, network: Network) -> RenderableType:
    kinds = {
        layer.name: _KINDS.get(type(layer).__name__, "other layers") for layer in network.layers
    }
    first = simulation.devices[0].name
    sums: dict[str, float] = defaultdict(float)
    for layer in simulation.layers:
        if layer.device == first:
            sums[kinds[layer.name]] += layer.total_s
    sums["exchange"] = simulation.devices[0].exchange_s
    sums["upload"] = simulation.devices[0].upload_s
    if simulation.all_reduce_s:
        sums["all-reduce"] = simulation.all_reduce_s
    out = plain_table(f"Where {first}'s step goes", "part", "ms", "share")
    for name, seconds in sums.items():
        out.add_row(name, _ms(seconds), f"{100 * seconds / simulation.step_s:.0f} %")
    return out


def _layers(simulation: Simulation) -> RenderableType:
    out = plain_table(
        "Layers, ms per step", "layer", "device", "forward", "input gr.", "weight gr.", "update",
        "limit",
    )  # fmt: skip
    for layer in simulation.layers:
        if layer.total_s < simulation.step_s / 2000:
            continue
        out.add_row(
            layer.name,
            layer.device,
            *(
                f"{1e3 * seconds:.2f}" if seconds else ""
                for seconds in (
                    layer.forward_s,
                    layer.grad_input_s,
                    layer.grad_weight_s,
                    layer.update_s,
                )
            ),
            layer.limit,
        )
    return out


def _exchanges(simulation: Simulation) -> RenderableType:
    out = plain_table("Exchanges", "what", "from", "to", "MiB", "ms")
    for exchange in simulation.exchanges:
        out.add_row(
            ".".join(exchange.name.split(".")[:3]),
            exchange.source,
            exchange.target,
            f"{exchange.size_bytes / MIB:.2f}",
            f"{1e3 * exchange.seconds:.2f}",
        )
    return out


def _sensitivities(rows: Sequence[Sensitivity]) -> RenderableType:
    out = plain_table("What the prediction rests on", "assumption", "changed by", "step changes by")
    for row in rows:
        out.add_row(row.assumption, row.change, f"{100 * (row.ratio - 1):+.1f} %")
    return out


def timeline(simulation: Simulation) -> str:
    """A picture of one step: a row per device and queue."""
    lines = ["Timeline of a step: # computing, = transfer, . idle"]
    rows: dict[tuple[str, str], list[tuple[float, float, str]]] = defaultdict(list)
    for span in simulation.trace.spans:
        talks = ".exchange" in span.op_id or span.op_id.endswith(
            (".upload", ".wait", ".post", ".all_reduce", ".all_gather")
        )
        mark = "=" if talks else "." if ".barrier" in span.op_id else "#"
        rows[span.device, span.queue].append((span.start_s, span.end_s, mark))
    for (device, queue), spans in sorted(rows.items()):
        bar = ["."] * _BAR
        for start, end, mark in spans:
            first, last = (int(_BAR * t / simulation.step_s) for t in (start, end))
            for column in range(first, min(_BAR, max(last, first + (mark == "=")))):
                bar[column] = mark
        lines.append(f"  {device + ' ' + queue:15s}|{''.join(bar)}|")
    return "\n".join(lines)


def validation_tables(
    summaries: Sequence[Summary], excluded: Sequence[Excluded], *, rows: int, predicted: int
) -> RenderableType:
    """Errors by set of rows and by fit; why rows were left out."""
    out = plain_table(
        f"{predicted} of {rows} rows predicted; errors of times, on rows with a value",
        "what", "rows", "mean", "median", "bias", "in 90 %",
    )  # fmt: skip
    for summary in summaries:
        out.add_row(
            summary.name,
            str(summary.rows),
            f"{100 * summary.mean_absolute_error:.1f} %",
            f"{100 * summary.median_absolute_error:.1f} %",
            f"{100 * summary.bias:+.1f} %",
            f"{100 * summary.coverage:.0f} %",
        )
    if not excluded:
        return out
    why: dict[str, int] = defaultdict(int)
    for row in excluded:
        why[row.why] += 1
    left = plain_table("Not predicted, by a rule on the row's conditions", "why", "rows")
    for text, count in sorted(why.items(), key=lambda item: -item[1]):
        left.add_row(text if len(text) < 66 else f"{text[:63]}...", str(count))
    return Group(out, left)


def predictions_csv(predictions: Iterable[Prediction], excluded: Iterable[Excluded]) -> str:
    """One line per row: the prediction in the row's unit and its bounds, or why there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "predicted", "low", "high", "reason", "unit", "measured", "error"])
    for prediction in predictions:
        row = prediction.case.row
        writer.writerow(
            [
                row.id,
                *(f"{value:.6g}" for value in (prediction.value, prediction.low, prediction.high)),
                "",
                row.unit,
                "" if row.value is None else f"{row.value:g}",
                "" if row.value is None else f"{prediction.error:.4f}",
            ]
        )
    for left in excluded:
        measured = "" if left.row.value is None else f"{left.row.value:g}"
        writer.writerow([left.row.id, "", "", "", left.why, left.row.unit, measured, ""])
    return text.getvalue()


def calibration_tables(
    calibration: Calibration, checks: Sequence[Check], path: str
) -> RenderableType:
    """What was measured, and how well it predicts batch sizes that it has not seen."""
    head = Text(
        f"{calibration.machine}, {calibration.threads} threads:"
        f" {calibration.flop_per_s / 1e9:,.0f} GFLOP/s,"
        f" {calibration.memory_bytes_per_s / 1e9:,.1f} GB/s, {len(calibration.ops)} ops,"
        f" {calibration.rounds} rounds\nwritten to {path}"
    )
    parts: list[RenderableType] = [head]
    for batch in dict.fromkeys(row.batch_size for row in checks):
        out = plain_table(
            f"Batch {batch}, not seen by the calibration: ms per step",
            "what", "predicted", "measured", "error", "share", "rounds, 90 %",
        )  # fmt: skip
        rows = [row for row in checks if row.batch_size == batch]
        for row in rows:
            out.add_row(
                row.name,
                f"{1e3 * row.predicted_s:,.2f}",
                f"{1e3 * row.measured_s:,.2f}",
                f"{100 * row.error:+.1f} %",
                f"{100 * row.measured_s / rows[0].measured_s:.1f} %",
                f"{100 * (row.low - 1):+.0f} to {100 * (row.high - 1):+.0f} %",
            )
        parts.append(out)
    return Group(*parts)


_COLUMNS = ("step_s", "low_s", "high_s", "images_per_s", "training_days", "utilisation")


def sweep_csv(points: Sequence[Point]) -> str:
    """One line per configuration."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    keys = list(dict.fromkeys(key for point in points for key in point.settings))
    writer.writerow([*keys, *_COLUMNS, "memory_bytes", "fits", "error"])
    for point in points:
        values = [f"{getattr(point, name):.6g}" for name in _COLUMNS]
        writer.writerow(
            [
                *(point.settings.get(key, "") for key in keys),
                *([""] * len(values) if point.error else values),
                "" if point.error else point.memory_bytes,
                "" if point.error else str(point.fits).lower(),
                point.error,
            ]
        )
    return text.getvalue()


def sweep_table(points: Sequence[Point], axes: Sequence[str], most: int = 40) -> RenderableType:
    """The first configurations, in order; what varies, and the result."""
    shown = points[:most]
    title = f"{len(points)} configurations"
    if len(points) > most:
        title += f", the first {most} (-o FILE.csv has all)"
    out = plain_table(title, *axes, "ms", "images/s", "days", "MiB", "fits")
    for point in shown:
        values = [point.settings[axis] for axis in axes]
        if point.error:
            out.add_row(*values, "", "", "", "", "-")
            continue
        out.add_row(
            *values,
            _ms(point.step_s),
            f"{point.images_per_s:,.0f}",
            f"{point.training_days:.2f}",
            f"{point.memory_bytes / MIB:,.0f}",
            "yes" if point.fits else "no",
        )
    errors = list(dict.fromkeys(point.error for point in points if point.error))
    notes = [Text(f"no result: {error}") for error in errors[:5]]
    return Group(out, *notes)

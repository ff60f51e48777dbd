"""Records as terminal tables, within 80 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alexsim.editions.load import load_network
from alexsim.ledger.tables import FlopTable, StepFlops, step_flops
from alexsim.machine.device import Device
from alexsim.network import counts
from alexsim.network.layers import Layer
from alexsim.network.network import Network
from alexsim.plan.plan import Plan
from alexsim.plan.spec import PlanSpec
from alexsim.report.not_run import not_run_lines
from alexsim.units import format_bytes

if TYPE_CHECKING:
    from alexsim.simulate.simulation import Simulation
    from alexsim.train.settings import TrainResult


def shortened(name: str, width: int) -> str:
    """A name that is cut between words or at a hyphen, not in one, where it is longer."""
    if len(name) <= width:
        return name
    return textwrap.wrap(name, width - 3)[0].rstrip(" -+(,") + "..."


def folded(name: str, width: int, most: int | None = None) -> str:
    """The same in lines, all or ``most`` of them."""
    return "\n".join(textwrap.wrap(name, width, max_lines=most, placeholder="..."))


def answer_rows(rows: Iterable[tuple[str, str, str]]) -> Table:
    """A first screen's rows: what is answered, the figure, and what to know of it."""
    table = Table.grid(padding=(0, 2))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def plain_table(title: str, *columns: str) -> Table:
    """A table without frame; the first column to the left, the others to the right.

    Where they do not fit, the names in the first are folded: figures stay whole.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for index, column in enumerate(columns):
        if index:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def sharing_text(spec: PlanSpec) -> str:
    """How several GPUs share the images of a step, in a line; empty where there is one GPU."""
    gpus, name, copies = spec.all_gpus, spec.network.name, spec.copies
    images = f"{spec.op_images:,} of a step's {spec.batch_size:,} images"
    if gpus == 1:
        return ""
    if spec.partition == "hybrid":
        return (
            f"hybrid: {gpus} GPUs, each with {images} in all convolutions, and with a share of the"
            " units of the fully connected layers"
        )
    if copies == gpus:
        return f"data parallel: {gpus} GPUs, each with all of {name} and {images}"
    split = f"{spec.network.columns} columns of {name} on {gpus // copies} GPUs"
    if copies > 1:
        return f"data parallel: {copies} replicas of the {split}, each with {images}"
    return f"{split}, each with all {spec.batch_size:,} images of a step"


def flops_tables(
    table: FlopTable, spec: PlanSpec | None = None, device: Device | None = None
) -> RenderableType:
    """FLOPs per layer, totals, a step's on the GPUs of ``spec``, and the articles' figure."""
    out = plain_table(
        f"{table.network.name}: FLOP per image, in millions (1 MAC = 2 FLOP)",
        "layer",
        "parameters",
        "MAC",
        "forward",
        "input gr.",
        "weight gr.",
        "other",
    )
    views = {layer.name for layer in table.network.layers if layer.views}
    for layer in (layer for layer in table.layers if layer.name not in views):
        out.add_row(
            layer.name,
            f"{layer.parameters:,}" if layer.parameters else "",
            *(
                f"{value / 1e6:,.2f}" if value else ""
                for value in (
                    layer.mac,
                    layer.flop,
                    layer.grad_input_flop,
                    layer.grad_weight_flop,
                    layer.elementwise_flop,
                )
            ),
        )
    out.add_section()
    sums = (
        table.mac,
        table.flop,
        sum(layer.grad_input_flop for layer in table.layers),
        sum(layer.grad_weight_flop for layer in table.layers),
        sum(layer.elementwise_flop for layer in table.layers),
    )
    out.add_row(
        "total", f"{table.network.parameters:,}", *(f"{value / 1e6:,.2f}" for value in sums)
    )
    lines = [
        f"forward:  {table.mac:,} MAC = {table.flop / 1e9:.4f} GFLOP per image",
        f"training: {table.training_flop / 1e9:.4f} GFLOP per image, forward and backward",
        f"neurons:  {table.network.neurons:,} (outputs of convolutions and fc layers)",
        "MAC, forward and gradients are convolutions and fc layers only; other is all",
        "the rest, forward and backward: one FLOP per operation on an element.",
        *([f"Not listed: {len(views)} views, which cost nothing."] * bool(views)),
        *not_run_lines(table.network),
        *(_step_lines(step_flops(table, spec), device) if spec else ()),
        *([""] if (articles := reconciliation(table.network)) else []),
        *articles,
    ]
    first = [Text(sharing)] if spec and (sharing := sharing_text(spec)) else []
    return Group(*first, out, Text("\n".join(lines)))


def _step_lines(step: StepFlops, device: Device | None) -> list[str]:
    """What a step's arithmetic is on several GPUs, and how long at their peak."""
    of_each = f", {step.flop_of_gpu / 1e9:,.2f} on the fullest of {step.gpus} GPUs"
    lines = [
        "",
        f"step:     {step.flop / 1e9:,.2f} GFLOP for {step.batch_size:,} images"
        + of_each * (step.gpus > 1),
    ]
    if step.summed_bytes:
        lines.append(f"          {format_bytes(step.summed_bytes)} of gradients summed by each GPU")
    if device:
        peak_s = step.flop_of_gpu / device.flop_per_s
        lines.append(
            f"          {milliseconds(peak_s)} ms at the peak of {device.name},"
            f" {device.flop_per_s / 1e12:.3g} TFLOP/s in float32"
        )
    return lines


def reconciliation(network: Network) -> list[str]:
    """The articles' "about 1.43 GFLOPs" beside the two nets it could mean."""
    if not network.name.startswith("alexnet-"):
        return []
    both = {
        name: sum(2 * counts.macs(p) for ps in load_network(name).parts for p in ps) / 1e9
        for name in ("alexnet-2012", "alexnet-owt")
    }
    return [
        'Articles say "about 1.43 GFLOPs" per forward pass: that is the one-column net of',
        f"2014 (alexnet-owt, {both['alexnet-owt']:.4f}); the two-column net of 2012 takes"
        f" {both['alexnet-2012']:.4f}.",
    ]


def network_table(network: Network) -> RenderableType:
    """Layers with shapes, parameters and multiply-adds, per column.

    What the layers of a graph read is left to its drawing, so that names of any length have room.
    """
    graph = not network.is_chain
    reads_column = () if graph else ("reads",)
    out = plain_table(
        f"{network.name}: {network.title or network.name}",
        "layer",
        "window",
        *reads_column,
        "output" if graph else "out per column",
        "parameters",
        "MMAC",
    )
    for parts in network.parts:
        part = parts[0]
        reads = () if graph else ("all" if len(part.columns_read) > 1 else "",)
        shape = "x".join(str(extent) for extent in part.output_shape)
        where = "" if len(parts) == network.columns else "a only: "
        macs = sum(counts.macs(p) for p in parts)
        out.add_row(
            part.layer.name,
            part.layer.window if graph else _size(part.layer),
            *reads,
            where + shape,
            f"{sum(p.parameters for p in parts):,}" if part.weight_shape else "",
            f"{macs / 1e6:,.2f}" if macs else "",
        )
    out.add_section()
    macs = sum(counts.macs(p) for parts in network.parts for p in parts)
    blanks = [""] * len(reads_column)
    out.add_row("total", "", *blanks, "", f"{network.parameters:,}", f"{macs / 1e6:,.2f}")
    pixels = "x".join(str(extent) for extent in network.input_shape)
    not_run = "".join(f"\n{line}" for line in not_run_lines(network))
    text = (
        f"input {pixels} = {math.prod(network.input_shape):,} values;"
        f" {network.columns} column(s); {network.neurons:,} neurons{not_run}"
    )
    return Group(out, Text(text))


def _size(layer: Layer) -> str:
    padding = getattr(layer, "padding", 0)
    return layer.window + (f" pad {padding}" if padding else "")


def lent_text(plan: Plan) -> str:
    """Which layers another backend runs, if only in part."""
    backend = plan.spec.backend
    others = sorted({op.backend for op in plan.ops() if op.layer in plan.lent} - {backend})
    count = f"{len(plan.lent)} of {len(plan.network.layers)} layers"
    named = ", ".join(plan.lent[:8]) + (", ..." if len(plan.lent) > 8 else "")
    return f"{count} by {' and '.join(others)}: {named}"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, one decimal below a thousand."""
    return f"{1e3 * seconds:,.1f}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def data_path_text(simulation: Simulation) -> str:
    """What sets a step's pace, in one line: the GPUs or the data path, with the times of both."""
    path, alone = simulation.data_path, milliseconds(simulation.step_without_data_s)
    share = simulation.issue_s / simulation.step_s
    paced = f"; the host, issuing ops, paces {100 * share:.0f} %" if share > 0.02 else ""
    if path is None:
        return f"images are ready: the data path is left out{paced}"
    pace = f"{_STAGES[path.slowest]} {path.images_per_s:,.0f}/s of {path.side} x {path.side}"
    host = f"data path {milliseconds(path.seconds)} ms ({pace})"
    if simulation.data_bound:
        return f"GPUs {alone} ms, {host}, which binds"
    # Those that mostly wait for their host do not bind.
    binds = ", which bind" if share < 0.5 else ""
    return f"GPUs {alone} ms{binds}{paced}; {host}"


_STAGES = {"disk": "reads", "decode": "decodes", "crop": "crops"}


def side_by_side(drawings: list[str]) -> RenderableType:
    """Text drawings one beside the other, unwrapped."""
    table = Table.grid(padding=(0, 1))
    for _ in drawings:
        table.add_column(no_wrap=True)
    table.add_row(*(Text(drawing, no_wrap=True) for drawing in drawings))
    return table


def train_summary(result: TrainResult, machine: str, simulated: Simulation) -> RenderableType:
    """What a run achieved, in a few lines."""
    settings, held_out = result.settings, result.held_out
    lines = [
        f"{result.steps} of {settings.steps} steps, {result.images_per_s:.1f} images/s"
        f" ({result.compute_images_per_s:.1f} without waiting for data)",
    ]
    lines.append(
        f"{machine}, simulated: {simulated.images_per_s:.0f} images/s, these steps in"
        f" {result.steps * simulated.step_s:.1f} s"
    )
    lines.append(f"  {data_path_text(simulated)}")
    if result.losses:
        lines.append(f"training loss {result.losses[0]:.3f} -> {result.losses[-1]:.3f}")
    if held_out:
        lines.append(
            f"held out: loss {held_out.loss:.3f}, top-1 error {held_out.top1:.1%},"
            f" top-5 error {held_out.top5:.1%}"
        )
        if held_out.nan_images:
            lines.append(f"the network puts out NaN for {held_out.nan_images} held-out images")
    lines += [
        f"{name}: peak {format_bytes(peak)} of {format_bytes(budget)}, without a card's context"
        for name, budget, peak in result.devices
    ]
    if result.exchanged_bytes_per_step:
        lines.append(f"exchanged {format_bytes(result.exchanged_bytes_per_step)} per step")
    if result.reduced_bytes_per_step:
        lines.append(f"summed {format_bytes(result.reduced_bytes_per_step)} of gradients per step")
    if result.joules_per_image is not None:
        lines.append(f"{result.joules_per_image:.2f} J per image ({', '.join(result.cards)})")
    if result.broken:
        lines.append(f"{len(result.broken)} broken files were skipped")
    if result.interrupted:
        lines.append(f"stopped early; go on with: alexsim train --resume {result.run_dir}")
    else:
        lines.append(f"saved in {result.run_dir}")
        lines.append(f"Next: alexsim report {result.run_dir} -o report.html")
    return Text("\n".join(lines))

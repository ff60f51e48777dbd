"""Layers: counts, times measured and predicted, what binds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alexsim.report.documents.profile import PlanDocument, ProfileDocument
from alexsim.report.documents.step import MeasuredLayer, PlannedLayer
from alexsim.report.figures.passes import (
    NAMES,
    PASSES,
    Clock,
    clocks_of,
    layer_s,
    pass_s,
    timed_s,
)
from alexsim.report.figures.text import digits, in_mib, milliseconds, percent, ratio, seconds
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Section,
    Table,
    number_columns,
    text_columns,
    words,
)
from alexsim.report.page.steps import share, time

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot

_MOST_ROWS = 60
"""Tables of more layers are folded."""
_KINDS = {
    "FullyConnected": "fully connected",
    "LocalResponseNorm": "response norm",
    "SpatialResponseNorm": "spatial norm",
    "MaxPool": "max pool",
    "AveragePool": "average pool",
    "SoftmaxCrossEntropy": "softmax",
}


def layer_section(document: PlanDocument, plots: Mapping[str, Plot]) -> Section:
    """Figures and tables of all layers."""
    clocks = clocks_of(document)
    return Section(
        id="layers",
        title="Layers",
        text=_parts(document) if isinstance(document, ProfileDocument) else "",
        figures=tuple(
            Figure(
                id=f"layers-{clock}",
                title=f"Time by layer and pass, {clock}",
                text=_slowest(document, clock),
                drawing=plots[f"layers-{clock}"],
                table=_pass_table(document, clock),
                wide=len(clocks) == 1,
            )
            for clock in clocks
        ),
        tables=(layer_table(document), count_table(document)),
    )


def _parts(document: ProfileDocument) -> str:
    """What of the timed step is layers, transfers, and neither."""
    between = document.rest_s / document.timed_step_s
    moved = document.transfers_s / document.timed_step_s
    whole = seconds(document.timed_step_s)
    layers, moves = percent(1 - between - moved), percent(moved)
    text = (
        f"Of the timed step of {whole}, layers take {layers}, uploads, exchanges and sums"
        f" {moves}, what lies between ops {percent(between)}."
        if between >= 0
        else f"The timed step took {whole}. Summed over GPUs, which ran beside each other,"
        f" layers take {layers} of that, uploads, exchanges, sums and waiting for them"
        f" {moves}."
    )
    return (
        f"{text} The ceiling is what arithmetic or memory needs at the machine's own rates, over"
        " the time taken."
    )


def _slowest(document: PlanDocument, clock: Clock) -> str:
    layer = max(document.layers, key=lambda layer: layer_s(layer, clock))
    spent = layer_s(layer, clock)
    text = (
        f"{layer.name} takes longest, {seconds(spent)} {clock},"
        f" {percent(spent / timed_s(document, clock))} of the step."
    )
    if clock == "measured":
        return f"{text} Time is summed over all columns."
    return f"{text} Where several GPUs share a layer, the time is that of the slowest."


def _pass_table(document: PlanDocument, clock: Clock) -> Table:
    whole = timed_s(document, clock)
    return Table(
        id=f"layers-{clock}-table",
        caption=f"Milliseconds per step by layer and pass, {clock}",
        columns=text_columns("layer") + number_columns(*NAMES.values(), "all", "share"),
        rows=tuple(
            (
                Cell(text=layer.name),
                *(time(pass_s(layer, clock, name)) for name in PASSES),
                time(layer_s(layer, clock)),
                share(layer_s(layer, clock) / whole),
            )
            for layer in document.layers
        ),
    )


def count_table(document: PlanDocument) -> Table:
    """What every layer is, computes, moves and holds, and the sums."""
    layers = document.layers
    return Table(
        id="count-table",
        caption="What each layer computes, moves and holds, per step of the whole batch",
        columns=text_columns("layer", "kind", "output")
        + number_columns(
            "parameters", "GFLOP", "elementwise GFLOP", "MiB moved", "FLOP/B", "MiB held"
        ),
        rows=tuple(
            (
                *words(
                    layer.name,
                    _KINDS.get(layer.kind, layer.kind.lower()),
                    " × ".join(map(str, layer.shape)),
                ),
                *_counts([layer]),
            )
            for layer in layers
        ),
        foot=((*words(f"all {len(layers)}", "", ""), *_counts(layers)),),
        sortable=True,
        folded=len(layers) > _MOST_ROWS,
    )


def layer_table(document: PlanDocument) -> Table:
    """The time of every layer, what binds it, and the sums."""
    measured = isinstance(document, ProfileDocument)
    heads = [*(f"{NAMES[name]}, ms" for name in PASSES), "all, ms", "of step"]
    if measured:
        heads += ["GFLOP/s", "of ceiling", "predicted, ms", "of predicted step", "times predicted"]
    layers = document.layers
    return Table(
        id="layer-table",
        caption="Time of each layer, " + ("measured and predicted" if measured else "predicted"),
        columns=text_columns("layer", "bound by") + number_columns(*heads),
        rows=tuple(
            (*words(layer.name, _bound(layer)), *_times([layer], document)) for layer in layers
        ),
        foot=((*words(f"all {len(layers)}", ""), *_times(layers, document)),),
        sortable=True,
        folded=len(layers) > _MOST_ROWS,
    )


def _bound(layer: PlannedLayer) -> str:
    """What limits the pass that takes longest; nothing, where another layer's op does it too."""
    clock: Clock = "predicted"
    limits = layer.predicted_limit
    if isinstance(layer, MeasuredLayer):
        clock, limits = "measured", layer.limit
    longest = max(limits, key=lambda name: pass_s(layer, clock, name) or 0.0, default="")
    return limits.get(longest, "")


def _counts(layers: Sequence[PlannedLayer]) -> list[Cell]:
    parameters = sum(layer.parameters for layer in layers)
    flop = sum(layer.training_flop for layer in layers)
    elementwise = sum(layer.elementwise_flop for layer in layers)
    moved = sum(layer.bytes for layer in layers)
    held = sum(sum(layer.memory_bytes.values()) for layer in layers)
    return [
        Cell(text=f"{parameters:,}" if parameters else "", value=parameters),
        Cell(text=digits(flop / 1e9) if flop else "", value=flop),
        Cell(text=digits(elementwise / 1e9) if elementwise else "", value=elementwise),
        Cell(text=in_mib(moved), value=moved),
        Cell(text=digits(flop / moved) if flop else "", value=flop / moved if moved else 0),
        Cell(text=in_mib(held), value=held),
    ]


def _times(layers: Sequence[PlannedLayer], document: PlanDocument) -> list[Cell]:
    predicted = sum(layer_s(layer, "predicted") for layer in layers)
    there = [time(predicted), share(predicted / document.predicted_step_s)]
    if not isinstance(document, ProfileDocument):
        return [*_passes(layers, "predicted"), *there]
    spent = sum(layer_s(layer, "measured") for layer in layers)
    flop = sum(layer.training_flop for layer in layers)
    rate = flop / spent / 1e9 if spent and flop else None
    floor = sum(
        layer_s(layer, "measured") * (layer.ceiling_share or 0)
        for layer in layers
        if isinstance(layer, MeasuredLayer)
    )
    quotient = spent / predicted if predicted else None
    return [
        *_passes(layers, "measured"),
        time(spent),
        share(spent / document.timed_step_s),
        Cell(text=digits(rate) if rate else "", value=rate),
        share(floor / spent if spent else 0),
        *there,
        Cell(text=ratio(quotient), value=quotient),
    ]


def _passes(layers: Sequence[PlannedLayer], clock: Clock) -> list[Cell]:
    sums = (sum(pass_s(layer, clock, name) or 0.0 for layer in layers) for name in PASSES)
    return [
        Cell(text=milliseconds(value), value=value) if value else Cell(text="", value=0)
        for value in sums
    ]

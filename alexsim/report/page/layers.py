"""The table of layers: counts, times measured and predicted, what binds."""

from __future__ import annotations

from typing import Any

from alexsim.report.page.elements import Cell, Table, number_columns, text_columns
from alexsim.report.page.passes import NAMES, PASSES, seconds_of
from alexsim.report.page.text import digits, in_mib, milliseconds, percent, ratio

_KINDS = {
    "FullyConnected": "fully connected",
    "LocalResponseNorm": "response norm",
    "SpatialResponseNorm": "spatial norm",
    "MaxPool": "max pool",
    "AveragePool": "average pool",
    "SoftmaxCrossEntropy": "softmax",
}


def count_table(document: dict[str, Any]) -> Table:
    """What every layer is, computes, moves and holds, and the sums."""
    layers = document["layers"]
    return Table(
        id="count-table",
        caption="What each layer computes, moves and holds, per step of the whole batch",
        columns=text_columns("layer", "kind", "output")
        + number_columns(
            "parameters", "GFLOP", "elementwise GFLOP", "MiB moved", "FLOP/B", "MiB held"
        ),
        rows=tuple(
            (
                Cell(text=layer["name"]),
                Cell(text=_KINDS.get(layer["kind"], layer["kind"].lower())),
                Cell(text=" × ".join(map(str, layer["shape"]))),
                *_counts([layer]),
            )
            for layer in layers
        ),
        foot=((Cell(text=f"all {len(layers)}"), Cell(text=""), Cell(text=""), *_counts(layers)),),
        sortable=True,
    )


def layer_table(document: dict[str, Any]) -> Table:
    """The time of every layer, what binds it, and the sums."""
    measured = "step_s" in document
    heads = [*(f"{NAMES[name]}, ms" for name in PASSES), "all, ms", "of step"]
    if measured:
        heads += ["GFLOP/s", "of ceiling", "predicted, ms", "of predicted step", "times predicted"]
    layers = document["layers"]
    return Table(
        id="layer-table",
        caption="Time of each layer, " + ("measured and predicted" if measured else "predicted"),
        columns=text_columns("layer", "bound by") + number_columns(*heads),
        rows=tuple(
            (Cell(text=layer["name"]), Cell(text=_bound(layer)), *_times([layer], document))
            for layer in layers
        ),
        foot=((Cell(text=f"all {len(layers)}"), Cell(text=""), *_times(layers, document)),),
        sortable=True,
    )


def _bound(layer: dict[str, Any]) -> str:
    """What limits the pass that takes longest; nothing, where another layer's op does it too."""
    which = "measured" if "measured" in layer else "predicted"
    limits = layer["limit" if which == "measured" else "predicted_limit"]
    longest = max(limits, key=lambda name: layer[which].get(f"{name}_s") or 0.0, default="")
    return str(limits.get(longest, ""))


def _flop(layers: list[dict[str, Any]]) -> int:
    return sum(
        layer["flop"] + layer["grad_input_flop"] + layer["grad_weight_flop"] for layer in layers
    )


def _counts(layers: list[dict[str, Any]]) -> list[Cell]:
    parameters = sum(layer["parameters"] for layer in layers)
    flop = _flop(layers)
    elementwise = sum(layer["elementwise_flop"] for layer in layers)
    moved = sum(layer["bytes"] for layer in layers)
    held = sum(sum(layer["memory_bytes"].values()) for layer in layers)
    return [
        Cell(text=f"{parameters:,}" if parameters else "", value=parameters),
        Cell(text=digits(flop / 1e9) if flop else "", value=flop),
        Cell(text=digits(elementwise / 1e9) if elementwise else "", value=elementwise),
        Cell(text=in_mib(moved), value=moved),
        Cell(text=digits(flop / moved) if flop else "", value=flop / moved if moved else 0),
        Cell(text=in_mib(held), value=held),
    ]


def _times(layers: list[dict[str, Any]], document: dict[str, Any]) -> list[Cell]:
    predicted = sum(seconds_of(layer, "predicted") for layer in layers)
    there = [_time(predicted), _share(predicted / document["predicted_step_s"])]
    if "step_s" not in document:
        return [*_passes(layers, "predicted"), *there]
    spent = sum(seconds_of(layer, "measured") for layer in layers)
    flop = _flop(layers)
    rate = flop / spent / 1e9 if spent and flop else None
    floor = sum(seconds_of(layer, "measured") * (layer["ceiling_share"] or 0) for layer in layers)
    quotient = spent / predicted if predicted else None
    return [
        *_passes(layers, "measured"),
        _time(spent),
        _share(spent / document["timed_step_s"]),
        Cell(text=digits(rate) if rate else "", value=rate),
        _share(floor / spent if spent else 0),
        *there,
        Cell(text=ratio(quotient), value=quotient),
    ]


def _passes(layers: list[dict[str, Any]], which: str) -> list[Cell]:
    sums = (sum(layer[which].get(f"{name}_s") or 0.0 for layer in layers) for name in PASSES)
    return [_time(value) if value else Cell(text="", value=0) for value in sums]


def _time(value: float) -> Cell:
    return Cell(text=milliseconds(value), value=value)


def _share(value: float) -> Cell:
    return Cell(text=percent(value), value=value)

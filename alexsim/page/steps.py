"""Where a step's time goes: layers, the roofline, timelines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.step import MeasuredLayer, PlannedLayer
from alexsim.network.layers.kinds import kind_words
from alexsim.page.elements import (
    Cell,
    Figure,
    Section,
    Table,
    mib,
    ms,
    number,
    share,
    table,
)  # fmt: skip
from alexsim.page.figures.passes import (
    NAMES,
    Clock,
    clocks_of,
    layer_s,
    pass_s,
    passes_of,
    timed_s,
)  # fmt: skip
from alexsim.page.figures.roofline import rates_of
from alexsim.page.figures.text import digits, percent, scaled, seconds
from alexsim.page.figures.timeline import spans_of, spent_of

_MOST_ROWS = 60
"""Tables of more layers are folded."""
_Columns = dict[str, Callable[[Sequence[PlannedLayer]], Cell | str]]
"""Of one layer, or of several summed."""


def layer_section(document: PlanDocument) -> Section:
    """Figures and tables of all layers."""
    clocks = clocks_of(document)
    figures = [
        Figure(
            f"layers-{clock}", f"Time by layer and pass, {clock}", _slowest(document, clock),
            _pass_table(document, clock), wide=len(clocks) == 1,
        )
        for clock in clocks
    ]  # fmt: skip
    text = _parts(document) if isinstance(document, ProfileDocument) else ""
    tables = layer_table(document), count_table(document)
    return Section("layers", "Layers", text, figures, tables)


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


def _sum(layers: Sequence[PlannedLayer], clock: Clock, name: str = "") -> float:
    """Seconds of a pass, or of all."""
    return sum(
        (pass_s(layer, clock, name) or 0.0) if name else layer_s(layer, clock) for layer in layers
    )


def _name(layers: Sequence[PlannedLayer]) -> str:
    return layers[0].name if len(layers) == 1 else f"all {len(layers)}"


def _pass_columns(clock: Clock, whole: float) -> _Columns:
    passes: _Columns = {
        f"{title}, ms": lambda of, name=name: ms(_sum(of, clock, name) or None)  # type: ignore[misc]
        for name, title in NAMES.items()
    }
    return passes | {
        "all, ms": lambda of: ms(_sum(of, clock)),
        "of step": lambda of: share(_sum(of, clock) / whole),
    }


def _layer_rows(document: PlanDocument, id_: str, caption: str, columns: _Columns) -> Table:
    """A row per layer, and the sums."""
    layers = document.layers
    return table(
        id_, caption, [[layer] for layer in layers], {"layer": _name} | columns,
        foot=[layers] if len(layers) > 1 else [], sortable=True, folded=len(layers) > _MOST_ROWS,
    )  # fmt: skip


def _pass_table(document: PlanDocument, clock: Clock) -> Table:
    columns = _pass_columns(clock, timed_s(document, clock))
    caption = f"Milliseconds per step by layer and pass, {clock}"
    return _layer_rows(document, f"layers-{clock}-table", caption, columns)


def count_table(document: PlanDocument) -> Table:
    """What every layer is, computes, moves and holds, and the sums."""

    def total(field: str) -> Callable[[Sequence[PlannedLayer]], int]:
        return lambda of: sum(getattr(layer, field) for layer in of)

    flop, moved, elementwise = total("training_flop"), total("bytes"), total("elementwise_flop")
    parameters = total("parameters")

    def only(write: Callable[[PlannedLayer], str]) -> Callable[[Sequence[PlannedLayer]], str]:
        return lambda of: write(of[0]) if len(of) == 1 else ""

    columns: _Columns = {
        "kind": only(lambda layer: kind_words(layer.kind).singular),
        "output": only(lambda layer: " × ".join(map(str, layer.shape))),
        "parameters": lambda of: number(parameters(of) or None, "{:,}".format),
        "GFLOP": lambda of: number(flop(of) / 1e9 or None),
        "elementwise GFLOP, update included": lambda of: number(elementwise(of) / 1e9 or None),
        "MiB moved": lambda of: mib(moved(of)),
        "FLOP/B": lambda of: number(flop(of) / moved(of) or None if moved(of) else None),
        "MiB held": lambda of: mib(sum(sum(layer.memory_bytes.values()) for layer in of)),
    }
    whose = "the whole batch"
    if document.gpus > len(document.memory.devices):
        whose = f"one replica's {document.images_per_gpu:,} images"
    caption = f"What each layer computes, moves and holds, per step of {whose}"
    return _layer_rows(document, "count-table", caption, columns)


def layer_table(document: PlanDocument) -> Table:
    """The time of every layer, what binds it, and the sums."""
    columns: _Columns = {"bound by": lambda of: _bound(of[0]) if len(of) == 1 else ""}
    if not isinstance(document, ProfileDocument):
        columns |= _pass_columns("predicted", document.predicted_step_s)
        return _layer_rows(document, "layer-table", "Time of each layer, predicted", columns)

    def rate(of: Sequence[PlannedLayer]) -> float | None:
        flop, spent = sum(layer.training_flop for layer in of), _sum(of, "measured")
        return flop / spent / 1e9 if flop and spent else None

    def ceiling(of: Sequence[PlannedLayer]) -> float:
        floor = sum(
            layer_s(layer, "measured") * (layer.ceiling_share or 0)
            for layer in of
            if isinstance(layer, MeasuredLayer)
        )
        return floor / (_sum(of, "measured") or 1.0)

    def times(of: Sequence[PlannedLayer]) -> float | None:
        predicted = _sum(of, "predicted")
        return _sum(of, "measured") / predicted if predicted else None

    columns |= _pass_columns("measured", document.timed_step_s) | {
        "GFLOP/s": lambda of: number(rate(of)),
        "of ceiling": lambda of: share(ceiling(of)),
        "predicted, ms": lambda of: ms(_sum(of, "predicted")),
        "of predicted step": lambda of: share(_sum(of, "predicted") / document.predicted_step_s),
        "times predicted": lambda of: number(times(of)),
    }
    caption = "Time of each layer, measured and predicted"
    return _layer_rows(document, "layer-table", caption, columns)


def _bound(layer: PlannedLayer) -> str:
    """What limits the pass that takes longest; nothing, where another layer's op does it too."""
    clock: Clock = "predicted"
    limits = layer.predicted_limit
    if isinstance(layer, MeasuredLayer):
        clock, limits = "measured", layer.limit
    longest = max(limits, key=lambda name: pass_s(layer, clock, name) or 0.0, default="")
    return limits.get(longest, "")


def roofline_section(document: PlanDocument) -> Section | None:
    """What binds; None where no pass has a rate."""
    rates = rates_of(document)
    if not rates:
        return None
    measured = isinstance(document, ProfileDocument)
    flop_per_s, bytes_per_s = document.ceilings.flop_per_s, document.ceilings.bytes_per_s
    whose = "measured here" if measured else f"data sheet of {document.machine}"
    text = (
        f"Ceilings ({whose}): {scaled(flop_per_s, 'FLOP/s')} and {scaled(bytes_per_s, 'B/s')};"
        f" they meet at {digits(flop_per_s / bytes_per_s)} FLOP per byte. A dot is a pass of a"
        " layer; its area grows with its time."
    )
    if measured or any(rate.flop_per_s > rate.roof_flop_per_s for rate in rates):
        text += (
            " FLOP are those of direct convolution. Above the roof: Winograd or FFT multiply less"
            + (", or data stayed in a cache." if measured else ".")
        )
    if not measured and len(document.memory.devices) > 1:
        text += " Rates are those of one GPU."
    if left_out := sum(1 for _ in passes_of(document)) - len(rates):
        text += f" {left_out} passes for which no FLOP are counted are not drawn."
    rows = table(
        "roofline-table", "Every pass on the roofline", rates,
        {
            "pass": lambda rate: rate.of.title,
            "FLOP/B": lambda rate: number(rate.intensity),
            "GFLOP/s": lambda rate: number(rate.flop_per_s / 1e9),
            "roof, GFLOP/s": lambda rate: number(rate.roof_flop_per_s / 1e9),
            "of the roof": lambda rate: share(rate.flop_per_s / rate.roof_flop_per_s),
            "ms": lambda rate: ms(rate.seconds),
        },
        sortable=True,
    )  # fmt: skip
    title = "Roofline" if measured else "Roofline, predicted"
    return Section("roof", "What binds", figures=[Figure("roofline", title, text, rows)])


def timeline_section(document: PlanDocument) -> Section | None:
    """What each GPU does when; None without spans."""
    figures = []
    hybrid = document.partition == "hybrid"
    sums = "all-reduce, all-gather and reduce-scatter, ms" if hybrid else "all-reduce, ms"
    for clock in spans_of(document):
        spent = [each for each in spent_of(document) if each.clock == clock]
        where = document.machine
        if clock == "measured" and isinstance(document, ProfileDocument):
            where = document.where
        text = f"{where}: {seconds(spent[0].step_s)}. " + " ".join(
            f"{clock.capitalize()} {each.device}: idle {seconds(each.idle_s)} of"
            f" {seconds(each.step_s)} ({percent(each.idle_s / each.step_s)})."
            for each in spent
        )
        if clock == "simulated" and (parts := document.predicted_parts) and parts.data_path:
            text += " Images lie ready here"
            if parts.bound == "data path":
                text += f"; the data path makes a step of {seconds(document.predicted_step_s)}"
            text += "."
        if where.startswith("cpu") and len(spent) > 1:
            text += " Here the GPUs share one processor and take turns: hence the measured gaps."
        if document.gpus > sum(each.device != "host" for each in spent):
            text += f" Each of the {document.gpus:,} GPUs does as much as one of these."
        rows = table(
            f"timeline-{clock}-table", f"What each GPU did in the {clock} step", spent,
            {
                "GPU": lambda each: each.device,
                "step, ms": lambda each: ms(each.step_s),
                "computing, ms": lambda each: ms(each.computing_s),
                "exchanges, ms": lambda each: ms(each.exchange_s),
                sums: lambda each: ms(each.all_reduce_s),
                "upload, ms": lambda each: ms(each.upload_s),
                "idle, ms": lambda each: ms(each.idle_s),
                "idle": lambda each: share(each.idle_s / each.step_s),
            },
        )  # fmt: skip
        figures.append(Figure(f"timeline-{clock}", f"One step, {clock}", text, rows))
    text = "Drag over a stretch of time to see it larger; a double click shows the whole step."
    return Section("step", "Timeline", text, figures) if figures else None

"""Where a step's time goes: the roofline, timelines, exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alexsim.report.documents.profile import PlanDocument, ProfileDocument
from alexsim.report.documents.step import MeasuredTransfer, PlannedTransfer
from alexsim.report.figures.passes import passes_of
from alexsim.report.figures.roofline import Rate, rates_of
from alexsim.report.figures.text import digits, in_mib, milliseconds, percent, scaled, seconds
from alexsim.report.figures.timeline import Spent, spans_of, spent_of
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Section,
    Table,
    number_columns,
    text_columns,
    words,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Plot


def roofline_section(document: PlanDocument, plots: Mapping[str, Plot]) -> Section | None:
    """What binds; None where no pass has a rate."""
    if "roofline" not in plots:
        return None
    rates = rates_of(document)
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
    figure = Figure(
        id="roofline",
        title="Roofline" + ("" if measured else ", predicted"),
        text=text,
        drawing=plots["roofline"],
        table=_roofline_table(rates),
    )
    return Section(id="roof", title="What binds", figures=(figure,))


def _roofline_table(rates: Sequence[Rate]) -> Table:
    return Table(
        id="roofline-table",
        caption="Every pass on the roofline",
        columns=text_columns("pass")
        + number_columns("FLOP/B", "GFLOP/s", "roof, GFLOP/s", "of the roof", "ms"),
        rows=tuple(
            (
                Cell(text=rate.of.title),
                Cell(text=digits(rate.intensity), value=rate.intensity),
                Cell(text=digits(rate.flop_per_s / 1e9), value=rate.flop_per_s),
                Cell(text=digits(rate.roof_flop_per_s / 1e9), value=rate.roof_flop_per_s),
                share(rate.flop_per_s / rate.roof_flop_per_s),
                time(rate.seconds),
            )
            for rate in rates
        ),
        sortable=True,
    )


def share(value: float) -> Cell:
    """A share of one."""
    return Cell(text=percent(value), value=value)


def time(value: float | None) -> Cell:
    """Milliseconds, of seconds; empty for None."""
    return Cell(text=milliseconds(value), value=value)


def timeline_section(document: PlanDocument, plots: Mapping[str, Plot]) -> Section | None:
    """What each GPU does when; None without spans."""
    clocks = list(spans_of(document))
    if not clocks:
        return None
    spent = spent_of(document)
    figures = []
    for clock in clocks:
        mine = [each for each in spent if each.clock == clock]
        where = document.machine
        if clock == "measured" and isinstance(document, ProfileDocument):
            where = document.where
        text = f"{where}: {seconds(mine[0].step_s)}. " + " ".join(
            f"{clock.capitalize()} {each.device}: idle {seconds(each.idle_s)} of"
            f" {seconds(each.step_s)} ({percent(each.idle_s / each.step_s)})."
            for each in mine
        )
        if where.startswith("cpu") and len(mine) > 1:
            text += " Here the GPUs share one processor and take turns: hence the measured gaps."
        figures.append(
            Figure(
                id=f"timeline-{clock}",
                title=f"One step, {clock}",
                text=text,
                drawing=plots[f"timeline-{clock}"],
                table=_spent_table(clock, mine),
            )
        )
    text = "Drag over a stretch of time to see it larger; a double click shows the whole step."
    return Section(id="step", title="Timeline", text=text, figures=tuple(figures))


def _spent_table(clock: str, spent: Sequence[Spent]) -> Table:
    heads = "step, ms", "computing, ms", "exchanges, ms", "upload, ms", "idle, ms", "idle"
    return Table(
        id=f"timeline-{clock}-table",
        caption=f"What each GPU did in the {clock} step",
        columns=text_columns("GPU") + number_columns(*heads),
        rows=tuple(
            (
                Cell(text=each.device),
                *map(
                    time,
                    (
                        each.step_s, each.computing_s, each.exchange_s, each.upload_s, each.idle_s,
                    ),
                ),
                share(each.idle_s / each.step_s),
            )
            for each in spent
        ),
    )  # fmt: skip


def traffic_section(document: PlanDocument) -> Section:
    """Every exchange of a step: bytes, measured and predicted seconds."""
    if not document.exchanges:
        return Section(
            id="traffic", title="Traffic", text="One GPU holds everything: nothing is exchanged."
        )
    return Section(
        id="traffic",
        title="Traffic",
        text="Each exchange copies one column's activations, or their gradients, to the other GPU.",
        tables=(traffic_table(document),),
    )


def traffic_table(document: PlanDocument) -> Table:
    """A row per exchange, and the sums."""
    clocks = ["measured", "predicted"] if isinstance(document, ProfileDocument) else ["predicted"]
    heads = [f"{clock}, {unit}" for clock in clocks for unit in ("ms", "GB/s")]

    def cells(name: str, way: str, transfers: Sequence[PlannedTransfer]) -> tuple[Cell, ...]:
        size = sum(transfer.bytes for transfer in transfers)
        row = [*words(name, way), Cell(text=in_mib(size), value=size)]
        for clock in clocks:
            spent = sum(_transfer_s(transfer, clock) for transfer in transfers)
            rate = size / spent / 1e9 if spent else None
            row += [
                time(spent or None),
                Cell(text=digits(rate) if rate else "", value=rate),
            ]
        return tuple(row)

    return Table(
        id="traffic-table",
        caption="Exchanges of one step",
        columns=text_columns("exchange", "way") + number_columns("MiB", *heads),
        rows=tuple(
            cells(each.label, f"{each.source} → {each.target}", [each])
            for each in document.exchanges
        ),
        foot=(cells(f"all {len(document.exchanges)}", "", document.exchanges),),
        sortable=True,
    )


def _transfer_s(transfer: PlannedTransfer, clock: str) -> float:
    if clock == "predicted":
        return transfer.predicted_s or 0.0
    return (transfer.measured_s or 0.0) if isinstance(transfer, MeasuredTransfer) else 0.0

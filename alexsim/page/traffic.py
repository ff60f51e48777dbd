"""What GPUs send each other in a step: exchanges, and sums of gradients."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from alexsim.documents.profile import PlanDocument
from alexsim.documents.step import MeasuredTransfer, SpanTimes
from alexsim.documents.step import PlannedTransfer as Transfer
from alexsim.page.elements import Cell, Section, Table, mib, ms, number, table
from alexsim.page.figures.passes import Clock, clocks_of
from alexsim.page.figures.text import seconds
from alexsim.page.figures.timeline import spans_of
from alexsim.plan.plan import OpKind
from alexsim.units import format_bytes

_MOST_ROWS = 60
"""Longer tables are folded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summed:
    """Gradients that a GPU sums with its copies' in a step: of a layer, or of all."""

    device: str
    layer: str
    """Or how many."""
    bytes: int
    times: dict[str, tuple[float, float]]
    """By clock, the seconds that this takes, and those of them that no computing hides."""

    @property
    def text(self) -> str:
        """How long it takes on each clock, and how much of that is hidden."""
        return "; ".join(
            f"{seconds(spent)} {clock}, {_hidden(spent, exposed)}"
            for clock, (spent, exposed) in self.times.items()
        )


def _hidden(spent: float, exposed: float) -> str:
    # Documents round to nanoseconds.
    if spent - exposed < 1e-3 * spent:
        return "all of it exposed"
    return f"{seconds(exposed)} of it exposed" if exposed > 1e-3 * spent else "all of it hidden"


def sums_of(document: PlanDocument) -> list[Summed]:
    """Every GPU's sums of gradients, layer by layer, of GPUs that a clock has timed."""
    sizes: dict[tuple[str, str], int] = defaultdict(int)
    for each in document.gradient_sums:
        sizes[each.device, each.layer] += each.bytes
    times: dict[tuple[str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    for clock, spans in spans_of(document).items():
        for device in {device for device, _ in sizes}:
            mine = [span for span in spans if span.device == device]
            hidden = _Hidden(span for span in mine if span.activity in ("computing", "exchange"))
            for span in mine:
                key = (device, span.layer)
                # The sum is begun in one span; its update may wait for it in another.
                if span.kind == OpKind.ALL_REDUCE and key in sizes:
                    spent, exposed = times[key].get(clock, (0.0, 0.0))
                    took = span.end_s - span.start_s
                    exposed += took - hidden.between(span.start_s, span.end_s)
                    times[key][clock] = spent + took, exposed
    return [
        Summed(device=device, layer=layer, bytes=size, times=times[device, layer])
        for (device, layer), size in sizes.items()
        if (device, layer) in times
    ]


def totals_of(sums: Sequence[Summed]) -> list[Summed]:
    """All sums of each GPU."""
    totals = []
    for device in dict.fromkeys(each.device for each in sums):
        mine = [each for each in sums if each.device == device]
        clocks = dict.fromkeys(clock for each in mine for clock in each.times)
        times = {}
        for clock in clocks:
            known = [each.times[clock] for each in mine if clock in each.times]
            times[clock] = sum(spent for spent, _ in known), sum(exposed for _, exposed in known)
        size = sum(each.bytes for each in mine)
        totals.append(Summed(device=device, layer=f"all {len(mine)}", bytes=size, times=times))
    return totals


class _Hidden:
    """How much of a stretch of time a device's spans cover."""

    def __init__(self, spans: Iterable[SpanTimes]) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._before: list[float] = []
        covered = 0.0
        for start, end in sorted((span.start_s, span.end_s) for span in spans):
            if self._ends and start <= self._ends[-1]:
                covered += max(0.0, end - self._ends[-1])
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)
                self._before.append(covered)
                covered += end - start

    def between(self, start_s: float, end_s: float) -> float:
        """Covered seconds."""
        return self._until(end_s) - self._until(start_s)

    def _until(self, time_s: float) -> float:
        index = bisect_right(self._starts, time_s) - 1
        if index < 0:
            return 0.0
        return self._before[index] + min(time_s, self._ends[index]) - self._starts[index]


def traffic_section(document: PlanDocument) -> Section:
    """Every exchange and every sum of gradients of a step: bytes and seconds, on each clock."""
    sums = sums_of(document)
    text, tables = "No GPU reads another's activations.", []
    if document.exchanges:
        text = (
            "All-gathers bring every GPU the activations of a turn's images, reduce-scatters take"
            " their gradients back."
            if document.partition == "hybrid"
            else "Each exchange copies one column's activations, or their gradients, to the other"
            " GPU."
        )
        tables.append(traffic_table(document))
    for total in totals_of(sums):
        text += (
            f" All-reduces sum {format_bytes(total.bytes)} of gradients on {total.device} with its"
            f" copies': {total.text}."
        )
    if document.gpus > len(document.memory.devices) and not document.gradient_sums:
        # Documents of earlier versions do not say of what.
        text += " Replicas sum their gradients once a step."
    if sums:
        tables.append(sums_table(sums))
    return Section("traffic", "Traffic", text, tables=tables)


def sums_table(sums: Sequence[Summed]) -> Table:
    """A row per all-reduce and GPU, and each GPU's sum."""
    columns: dict[str, Callable[[Summed], Cell | str]] = {
        "all-reduce": lambda each: each.layer,
        "GPU": lambda each: each.device,
        "MiB": lambda each: mib(each.bytes),
    }
    for clock in dict.fromkeys(clock for each in sums for clock in each.times):

        def part(each: Summed, index: int, clock: str = clock) -> Cell:
            return ms(each.times[clock][index] if clock in each.times else None)

        columns[f"{clock}, ms"] = lambda each, part=part: part(each, 0)  # type: ignore[misc]
        columns[f"exposed {clock}, ms"] = lambda each, part=part: part(each, 1)  # type: ignore[misc]
    return table(
        "sums-table", "All-reduces of gradients in one step", sums, columns, foot=totals_of(sums),
        sortable=True, folded=len(sums) > _MOST_ROWS,
    )  # fmt: skip


def traffic_table(document: PlanDocument) -> Table:
    """A row per exchange, and the sums."""
    columns: dict[str, Callable[[Sequence[Transfer]], Cell | str]] = {
        "exchange": lambda of: of[0].label if len(of) == 1 else f"all {len(of)}",
        "way": lambda of: f"{of[0].source} → {of[0].target}" if len(of) == 1 else "",
        "MiB": lambda of: mib(sum(each.bytes for each in of)),
    }
    for clock in clocks_of(document):

        def spent(of: Sequence[Transfer], clock: Clock = clock) -> float | None:
            return sum(_transfer_s(each, clock) for each in of) or None

        def rate(of: Sequence[Transfer], clock: Clock = clock) -> float | None:
            time = sum(_transfer_s(each, clock) for each in of)
            return sum(each.bytes for each in of) / time / 1e9 if time else None

        columns[f"{clock}, ms"] = lambda of, spent=spent: ms(spent(of))  # type: ignore[misc]
        columns[f"{clock}, GB/s"] = lambda of, rate=rate: number(rate(of))  # type: ignore[misc]
    exchanges = document.exchanges
    return table(
        "traffic-table", "Exchanges of one step", [[each] for each in exchanges], columns,
        foot=[exchanges] if len(exchanges) > 1 else [], sortable=True,
    )  # fmt: skip


def _transfer_s(transfer: Transfer, clock: Clock) -> float:
    if clock == "predicted":
        return transfer.predicted_s or 0.0
    return (transfer.measured_s or 0.0) if isinstance(transfer, MeasuredTransfer) else 0.0

"""One step on every GPU's queues: what was measured above what is simulated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from alexsim.plan.records import PASS_OF, OpKind
from alexsim.report.page.bars import bar, inside
from alexsim.report.page.chart import Scale, label, text_width, x_axis
from alexsim.report.page.elements import (
    Cell,
    Figure,
    Key,
    Table,
    number_columns,
    svg,
    tag,
    text_columns,
)
from alexsim.report.page.passes import HATCHED, pass_keys
from alexsim.report.page.text import digits, milliseconds, percent, seconds, shortened
from alexsim.trace import covered_s

_WIDTH, _LEFT, _RIGHT = 1120.0, 128.0, 1112.0
_ROW, _GAP = 30.0, 30.0
_HEAD, _FOOT = 34.0, 56.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a device did in a step, in seconds; ``idle_s`` is what nothing covers."""

    clock: str
    device: str
    step_s: float
    computing_s: float
    exchange_s: float
    upload_s: float
    idle_s: float


def spent_of(document: dict[str, Any]) -> tuple[Spent, ...]:
    """Every device on every clock."""
    found = []
    for clock, spans in document["spans"].items():
        step_s = max((span["end_s"] for span in spans), default=0.0)
        for device in dict.fromkeys(span["device"] for span in spans):
            mine = [span for span in spans if span["device"] == device]
            busy = [span for span in mine if span["activity"] != "barrier"]
            found.append(
                Spent(
                    clock=clock,
                    device=device,
                    step_s=step_s,
                    computing_s=_covered(busy, "computing"),
                    exchange_s=_covered(busy, "exchange"),
                    upload_s=_covered(busy, "upload"),
                    idle_s=step_s - covered_s((span["start_s"], span["end_s"]) for span in busy),
                )
            )
    return tuple(found)


def _covered(spans: Sequence[dict[str, Any]], what: str) -> float:
    return covered_s((span["start_s"], span["end_s"]) for span in spans if span["activity"] == what)


def timeline(document: dict[str, Any]) -> Figure | None:
    """A row per device and queue, each clock on a scale of its own; None without spans."""
    clocks = [clock for clock in ("measured", "simulated") if document["spans"].get(clock)]
    if not clocks:
        return None
    parts: list[Markup] = []
    top = 0.0
    for clock in clocks:
        drawn = _Clock(
            name=clock,
            spans=document["spans"][clock],
            top=top,
            columns=len(document["memory"]["devices"]),
        )
        parts += drawn.parts(_where(document, clock))
        top = drawn.bottom + _FOOT
    found = spent_of(document)
    text = " ".join(
        f"{one.clock.capitalize()} {one.device}: idle {seconds(one.idle_s)} of"
        f" {seconds(one.step_s)} ({percent(one.idle_s / one.step_s)})."
        for one in found
    )
    if len(clocks) == 2:
        text += " Each clock has a scale of its own."
        if document["where"].startswith("cpu") and len({one.device for one in found}) > 1:
            text += " Here the GPUs share one processor and take turns: hence the measured gaps."
    keys = (
        *pass_keys(),
        Key(style="exchange", name="exchange, and its way"),
        Key(style="upload", name="upload"),
        Key(style="idle", name="idle: nothing runs", mark="idle"),
    )
    return Figure(
        id="timeline",
        title="One step on the GPUs",
        text=text,
        drawing=svg(
            "timeline-picture", "One step on the GPUs", text, parts, size=(_WIDTH, top - 10),
            least=1020,
        ),
        keys=keys,
        table=_table(found),
    )  # fmt: skip


def _where(document: dict[str, Any], clock: str) -> str:
    return str(document["where"] if clock == "measured" else document["machine"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """The rows of one clock."""

    name: str
    spans: list[dict[str, Any]]
    top: float
    columns: int
    """Devices of a replica."""

    @property
    def step_s(self) -> float:
        return max(float(span["end_s"]) for span in self.spans)

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted({(span["device"], span["queue"]) for span in self.spans}))

    @property
    def bottom(self) -> float:
        return self.top + _HEAD + len(self.rows) * (_ROW + _GAP) - _GAP

    def y(self, row: tuple[str, str]) -> float:
        """Top of a row."""
        return self.top + _HEAD + self.rows.index(row) * (_ROW + _GAP)

    def parts(self, where: str) -> Iterator[Markup]:
        """Everything of this clock."""
        scale = Scale(low=0, high=1e3 * self.step_s, start=_LEFT, end=_RIGHT)
        head = f"{self.name}, {where}: {seconds(self.step_s)}"
        yield label(4, self.top + 18, head, "head")
        yield from x_axis(
            scale, self.top + _HEAD - 4, self.bottom + 4, "ms since the step began", about=10
        )
        several = len({queue for _, queue in self.rows}) > 1
        for row in self.rows:
            device, queue = row
            y = self.y(row)
            yield label(4, y + 14, device, "tick strong")
            if several:
                yield label(4, y + 27, queue.replace("_", " "), "small")
            for style in ("f-idle", ""):
                yield tag(
                    "rect", x=_LEFT, y=y, width=_RIGHT - _LEFT, height=_ROW,
                    class_=style or None, fill=None if style else "url(#idle)",
                )  # fmt: skip
        yield from self._idle()
        for span in self.spans:
            yield self._span(span, scale)
        yield from self._ways(scale)

    def _idle(self) -> Iterator[Markup]:
        """The sum of each device's gaps under its name."""
        for device in dict.fromkeys(device for device, _ in self.rows):
            busy = [
                (span["start_s"], span["end_s"])
                for span in self.spans
                if span["device"] == device and span["activity"] != "barrier"
            ]
            idle = self.step_s - covered_s(busy)
            last = [row for row in self.rows if row[0] == device][-1]
            several = len([row for row in self.rows if row[0] == device]) > 1
            at = self.y(last) + (_ROW + 12 if several else 27)
            yield label(4, at, f"idle {percent(idle / self.step_s)}", "small")

    def _span(self, span: dict[str, Any], scale: Scale) -> Markup:
        style = _style(span)
        if style == "barrier":
            return Markup("")
        y = self.y((span["device"], span["queue"]))
        left, right = scale(1e3 * span["start_s"]), scale(1e3 * span["end_s"])
        width = max(right - left, 1.6 if style == "exchange" else 0.4)
        name = shortened(span["layer"], 12)
        hatched = style in HATCHED
        took = seconds(span["end_s"] - span["start_s"])
        children = [
            tag("title", f"{span['id']}: {took}"),
            bar(left, y, width, _ROW, style, hatched=hatched),
        ]
        if style != "upload" and text_width(name) + 3 < width:
            children.append(inside((left + right) / 2, y + 19, name, style, hatched=hatched))
        return tag("g", *children)

    def _ways(self, scale: Scale) -> Iterator[Markup]:
        """A line for every exchange, from where it is posted to where it has arrived."""
        ends: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
        for span in self.spans:
            if span["kind"] in (OpKind.POST, OpKind.WAIT):
                replica = span["device_index"] // self.columns
                ends.setdefault((replica, span["exchange"]), {})[span["kind"]] = span
        for (_, name), both in ends.items():
            if len(both) < 2:
                continue
            post, wait = both[OpKind.POST], both[OpKind.WAIT]
            from_y, to_y = (self.y((one["device"], one["queue"])) for one in (post, wait))
            down = to_y > from_y
            yield tag(
                "g",
                tag("title", f"{name}: from {post['device']} to {wait['device']}"),
                tag(
                    "line",
                    x1=scale(1e3 * post["end_s"]),
                    x2=scale(1e3 * wait["end_s"]),
                    y1=from_y + (_ROW if down else 0),
                    y2=to_y + (0 if down else _ROW),
                    class_="way",
                ),
                tag(
                    "circle", cx=scale(1e3 * wait["end_s"]), cy=to_y + (0 if down else _ROW),
                    r=3, class_="f-exchange",
                ),
            )  # fmt: skip


def _style(span: dict[str, Any]) -> str:
    match span["activity"]:
        case "exchange" | "all_reduce":
            return "exchange"
        case "upload" | "host":
            return "upload"
        case "barrier":
            return "barrier"
    return PASS_OF.get(span["kind"], "forward")


def _table(found: Sequence[Spent]) -> Table:
    return Table(
        id="timeline-table",
        caption="What each GPU did in the step",
        columns=text_columns("clock and GPU")
        + number_columns(
            "step, ms", "computing, ms", "exchanges, ms", "upload, ms", "idle, ms", "idle"
        ),
        rows=tuple(
            (
                Cell(text=f"{one.clock} {one.device}"),
                *(
                    Cell(text=milliseconds(value))
                    for value in (
                        one.step_s, one.computing_s, one.exchange_s, one.upload_s, one.idle_s,
                    )
                ),
                Cell(text=percent(one.idle_s / one.step_s)),
            )
            for one in found
        ),
    )  # fmt: skip


def traffic(document: dict[str, Any]) -> Table | None:
    """Every exchange of a step: bytes, measured and predicted seconds; None where there is none."""
    exchanges = document["exchanges"]
    if not exchanges:
        return None
    measured = "step_s" in document
    whole = sum(one["bytes"] for one in exchanges)

    def sums(key: str) -> float:
        return sum(one.get(key) or 0.0 for one in exchanges)

    def cells(name: str, way: str, size: int, one: dict[str, float | None]) -> tuple[Cell, ...]:
        times = ["measured_s", "predicted_s"] if measured else ["predicted_s"]
        row = [Cell(text=name), Cell(text=way), Cell(text=digits(size / 2**20), value=size)]
        for key in times:
            value = one.get(key)
            rate = size / value / 1e9 if value else None
            row += [
                Cell(text=milliseconds(value), value=value),
                Cell(text=digits(rate) if rate else "", value=rate),
            ]
        return tuple(row)

    heads = ["MiB"]
    for which in ("measured", "predicted") if measured else ("predicted",):
        heads += [f"{which}, ms", f"{which}, GB/s"]
    return Table(
        id="traffic-table",
        caption="Exchanges of one step",
        columns=text_columns("exchange", "way") + number_columns(*heads),
        rows=tuple(
            cells(
                one["label"],
                f"{one['source']} → {one['target']}",
                one["bytes"],
                one,
            )
            for one in exchanges
        ),
        foot=(
            cells(
                f"all {len(exchanges)}", "", whole,
                {"measured_s": sums("measured_s"), "predicted_s": sums("predicted_s")},
            ),
        ),
        sortable=True,
    )  # fmt: skip

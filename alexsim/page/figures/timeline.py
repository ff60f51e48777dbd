"""One step on every GPU's queues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from plotly.graph_objects import Figure

from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.step import SpanTimes
from alexsim.page.figures.passes import HATCHED, HUES, NAMES
from alexsim.page.figures.style import LIGHT, bars, figure, words
from alexsim.page.figures.text import percent, seconds
from alexsim.plan.plan import PASS_OF, OpKind
from alexsim.trace import covered_s

# A kind that is no pass, such as ``clear``, prepares for the forward pass.
_STYLES = {str(kind): name for kind, name in PASS_OF.items()}
_TITLES = NAMES | {
    "exchange": "exchange",
    "all_reduce": "all-reduce of gradients",
    "collective": "all-gather, reduce-scatter",
    "upload": "upload",
}
_MOST_TEXTS = 600
"""Spans of a figure whose boxes have names in them; of more, they are said on hovering alone."""


def spans_of(document: PlanDocument) -> dict[str, tuple[SpanTimes, ...]]:
    """By clock, ``measured`` before ``simulated``; a clock without spans is left out."""
    spans = {"simulated": document.spans.simulated}
    if isinstance(document, ProfileDocument):
        spans = {"measured": document.spans.measured} | spans
    return {clock: of for clock, of in spans.items() if of}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a device did in a step, in seconds; ``idle_s`` is what nothing covers."""

    clock: str
    device: str
    step_s: float
    computing_s: float
    exchange_s: float
    all_reduce_s: float
    """Sums of gradients, and a hybrid plan's collectives."""
    upload_s: float
    idle_s: float


def spent_of(document: PlanDocument) -> tuple[Spent, ...]:
    """Every device on every clock."""
    spent = []
    for clock, spans in spans_of(document).items():
        step_s = max(span.end_s for span in spans)
        for device in dict.fromkeys(span.device for span in spans):
            idle = ("barrier",) if device == "host" else ("barrier", "host")
            busy = [s for s in spans if s.device == device and s.activity not in idle]
            spent.append(
                Spent(
                    clock=clock,
                    device=device,
                    step_s=step_s,
                    computing_s=_covered(busy, "computing"),
                    exchange_s=_covered(busy, "exchange"),
                    all_reduce_s=_covered(busy, "all_reduce"),
                    upload_s=_covered(busy, "upload"),
                    idle_s=step_s - covered_s((span.start_s, span.end_s) for span in busy),
                )
            )
    return tuple(spent)


def _covered(spans: Sequence[SpanTimes], activity: str) -> float:
    return covered_s((span.start_s, span.end_s) for span in spans if span.activity == activity)


def timeline(document: PlanDocument, clock: str) -> Figure:
    """A row per device and queue; a box per span, and a line from each post to its arrival."""
    spans = spans_of(document)[clock]
    whole = max(span.end_s for span in spans)
    labels = _labels(spans, {s.device: s.idle_s for s in spent_of(document) if s.clock == clock})
    traces = []
    for style, title in _TITLES.items():
        chosen = [span for span in spans if _style(span) == style]
        if chosen:
            traces.append(
                bars(
                    title, LIGHT[HUES[style]],
                    (_hover(span, whole) for span in chosen),
                    hatched=style in HATCHED,
                    base=[1e3 * span.start_s for span in chosen],
                    x=[1e3 * (span.end_s - span.start_s) for span in chosen],
                    y=[labels[span.device, span.queue] for span in chosen],
                    **_texts(chosen, style, len(spans)),
                )
            )  # fmt: skip
    traces += _ways(spans, labels, columns=len(document.memory.devices))
    return figure(
        traces,
        height=48 * len(labels),
        x=f"ms since the step began, {clock}",
        barmode="overlay",
        bargap=0.35,
        plot_bgcolor=LIGHT["panel"],
        xaxis={"range": [0, 1e3 * whole]},
        yaxis={
            "autorange": "reversed",
            "categoryorder": "array",
            "categoryarray": list(labels.values()),
            "fixedrange": True,
        },
        uniformtext={"minsize": 11, "mode": "hide"},
    )


def _labels(spans: Sequence[SpanTimes], idle_s: dict[str, float]) -> dict[tuple[str, str], str]:
    """By device and queue, its row's name; a device's first row says how long that was idle."""
    rows = sorted({(span.device, span.queue) for span in spans if span.activity != "barrier"})
    whole = max(span.end_s for span in spans)
    labels = {}
    for device, queue in rows:
        queues = [row for row in rows if row[0] == device]
        name = device if len(queues) == 1 else f"{device} {queue.replace('_', ' ')}"
        idle = f"<br>idle {percent(idle_s[device] / whole)}" if queues[0][1] == queue else ""
        labels[device, queue] = words(name) + idle
    return labels


def _texts(spans: Sequence[SpanTimes], style: str, count: int) -> dict[str, Any]:
    """Names of layers inside of boxes, where they fit."""
    if style == "upload" or count > _MOST_TEXTS:
        return {}
    return {
        "text": [words(span.layer) for span in spans], "textposition": "inside", "textangle": 0,
        "insidetextanchor": "middle", "insidetextfont": {"color": LIGHT["ground"], "size": 11},
    }  # fmt: skip


def _style(span: SpanTimes) -> str:
    match span.activity:
        case "exchange":
            return "exchange"
        case "all_reduce":
            return "all_reduce" if span.kind == OpKind.ALL_REDUCE else "collective"
        case "upload" | "host":
            return "upload"
        case "barrier":
            return "barrier"
    return _STYLES.get(span.kind, "forward")


def _hover(span: SpanTimes, whole: float) -> str:
    took = span.end_s - span.start_s
    return (
        f"{words(span.id)}<br>{words(span.device)}: {seconds(took)},"
        f" {percent(took / whole)} of the step, from {seconds(span.start_s)}"
    )


def _ways(
    spans: Sequence[SpanTimes], labels: dict[tuple[str, str], str], *, columns: int
) -> Iterator[dict[str, Any]]:
    """A line for every exchange, from where it is posted to where it has arrived."""
    ends: dict[tuple[int, str], dict[str, SpanTimes]] = {}
    for span in spans:
        if span.kind in (OpKind.POST, OpKind.WAIT):
            replica = span.device_index // columns
            ends.setdefault((replica, span.exchange), {})[span.kind] = span
    x, y, hover = [], [], []
    for (_, name), both in ends.items():
        if len(both) == 2:
            post, wait = both[OpKind.POST], both[OpKind.WAIT]
            text = f"{words(name)}: from {words(post.device)} to {words(wait.device)}"
            x += [1e3 * post.end_s, 1e3 * wait.end_s, None]
            y += [labels[post.device, post.queue], labels[wait.device, wait.queue], None]
            hover += [text, text, ""]
    if x:
        yield {
            "type": "scatter", "mode": "lines+markers", "name": "an exchange's way", "x": x, "y": y,
            "hoverinfo": "text", "hovertext": hover, "line": {"color": LIGHT["pink"], "width": 1.6},
            "marker": {"size": [0, 6, 0] * (len(x) // 3), "color": LIGHT["pink"]},
        }  # fmt: skip

"""Figures as data: their marks are the documents' figures, every one of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plotly.graph_objects import Figure
from test_report import measured

from alexsim.documents.profile import PlanDocument, ProfileDocument
from alexsim.documents.run import HeldOutMetrics, Scores, StepMetrics
from alexsim.documents.step import SpanTimes
from alexsim.errors import AlexsimError
from alexsim.page.figures import compare
from alexsim.page.figures.compare import Compared
from alexsim.page.figures.passes import NAMES, passes_of
from alexsim.page.inputs import Subject, Wanted, plan_subject
from alexsim.page.page import page
from alexsim.typed import read
from alexsim.units import MIB

DOCUMENTS = {
    "columns": {"network": "alexnet-2012", "batch_size": 32},
    "overlap": {"network": "alexnet-2012", "batch_size": 32, "schedule": "overlap"},
    "replicas": {"network": "lenet-5", "partition": "hybrid", "gpus": 2, "machine": "k20x8"},
    "eight": {"network": "alexnet-owt", "partition": "hybrid", "gpus": 8, "machine": "k20x8"},
    "reuse": {"network": "lenet-5", "policy": "reuse"},
}


@pytest.fixture(scope="module", params=[*DOCUMENTS, "measured"])
def document(request: pytest.FixtureRequest) -> PlanDocument:
    """Plans, and one as if it had been measured."""
    planned = Wanted(**DOCUMENTS.get(request.param, DOCUMENTS["columns"])).document()
    if request.param != "measured":
        return planned
    return read(ProfileDocument, measured(planned.document()), "it")


def traces(figure: Figure, kind: str = "bar") -> dict[str, dict[str, Any]]:
    """By name."""
    return {of["name"]: of for of in figure.to_plotly_json()["data"] if of["type"] == kind}


def marks(figure: Figure) -> None:
    """Every mark says what it is."""
    for trace in figure.to_plotly_json()["data"]:
        if trace.get("hoverinfo") == "skip":
            continue
        said = trace.get("hovertext", trace.get("hovertemplate"))
        assert said, trace
        assert isinstance(said, str) or len(said) == len(trace["x"]) == len(trace["y"])


def bars_by_row(figure: Figure) -> list[tuple[str, str, float]]:
    """Name of the trace, row, and length of every box that has one."""
    return [
        (name, row, length)
        for name, of in traces(figure).items()
        for row, length in zip(of["y"], of["x"], strict=True)
        if length
    ]


def close(found: list[tuple[Any, ...]], known: list[tuple[Any, ...]]) -> None:
    """The same in any order, numbers but for rounding."""
    assert len(found) == len(known)
    for one, other in zip(sorted(found), sorted(known), strict=True):
        for value, expected in zip(one, other, strict=True):
            assert value == (
                pytest.approx(expected, rel=1e-12) if isinstance(expected, float) else expected
            )


def spans_of(document: PlanDocument, clock: str) -> list[SpanTimes]:
    assert clock == "simulated" or isinstance(document, ProfileDocument)
    spans: tuple[SpanTimes, ...] = getattr(document.spans, clock)
    return [span for span in spans if span.activity != "barrier"]


def test_every_figures_marks_are_the_documents(document: PlanDocument) -> None:
    subject = Subject(name="it", kind="plan", document=document)
    figures = subject.figures()
    timed = isinstance(document, ProfileDocument)
    steps = {"measured", "simulated"} if timed else {"simulated"}
    clocks = {"measured", "predicted"} if timed else {"predicted"}
    devices = document.memory.devices
    timed = {span.device for span in document.spans.simulated}
    replicas = {str(d.timeline): d for d in reversed(devices) if d.name in timed}
    assert replicas
    assert set(figures) == {
        *(f"layers-{clock}" for clock in clocks), *(f"timeline-{clock}" for clock in steps),
        "roofline", "memory-by-category",
        *(f"memory-{device.name}" for device in replicas.values()),
    }  # fmt: skip
    for name, figure in figures.items():
        marks(figure)
        assert subject.plot(name).to_json() == figure.to_json()
        layout = figure.layout
        assert layout.width is None, "a figure is as wide as its place"
        assert layout.xaxis.title.text, name
    for clock in clocks:
        layers(figures[f"layers-{clock}"], document, clock)
    for clock in steps:
        timeline(figures[f"timeline-{clock}"], document, clock)
    roofline(figures["roofline"], document)
    memory(figures["memory-by-category"], document)
    for device in replicas.values():
        through = traces(figures[f"memory-{device.name}"], "scatter")
        by_category = [change.by_category for change in device.timeline]
        assert [MIB * v for v in through["all"]["y"][:-1]] == [sum(b.values()) for b in by_category]
        sums = [sum(column) for column in zip(
            *(of["y"] for name, of in through.items() if name != "all"), strict=True)]  # fmt: skip
        assert sums == pytest.approx(through["all"]["y"])
        assert through["all"]["text"][:-1] == [change.op for change in device.timeline]


def layers(figure: Figure, document: PlanDocument, clock: str) -> None:
    known = [
        (NAMES[each.name], each.layer, 1e3 * time)
        for each in passes_of(document)
        if (time := each.measured_s if clock == "measured" else each.predicted_s)
    ]
    close(bars_by_row(figure), known)
    assert list(figure.layout.yaxis.categoryarray) == [layer.name for layer in document.layers]


def roofline(figure: Figure, document: PlanDocument) -> None:
    timed = isinstance(document, ProfileDocument)
    devices = 1 if timed else len(document.memory.devices)
    known = [
        (each.flop / each.moved_bytes, each.flop / devices / spent)
        for each in passes_of(document)
        if (spent := each.measured_s if timed else each.predicted_s) and each.flop
    ]
    drawn = traces(figure, "scatter")
    dots = [
        dot for name in NAMES.values() if name in drawn
        for dot in zip(drawn[name]["x"], drawn[name]["y"], strict=True)
    ]  # fmt: skip
    close(dots, known)
    slope, flat = (of for name, of in drawn.items() if name not in NAMES.values())
    rates = document.ceilings
    assert flat["y"] == [rates.flop_per_s] * 2
    assert slope["y"][0] / slope["x"][0] == pytest.approx(rates.bytes_per_s)
    assert (slope["x"][1], slope["y"][1]) == (flat["x"][0], flat["y"][0])


def timeline(figure: Figure, document: PlanDocument, clock: str) -> None:
    spans = spans_of(document, clock)
    boxes = [
        (said.partition("<br>")[0], row.partition("<br>")[0].partition(" ")[0], start, length)
        for of in traces(figure).values()
        for said, row, start, length in zip(
            of["hovertext"], of["y"], of["base"], of["x"], strict=True
        )
    ]
    close(
        boxes,
        [(s.id, s.device, 1e3 * s.start_s, 1e3 * (s.end_s - s.start_s)) for s in spans],
    )
    ways = traces(figure, "scatter").get("an exchange's way", {"x": ()})
    posted = [span for span in spans if span.kind.endswith("post")]
    assert len(ways["x"]) == 3 * len(posted)
    for post in posted:
        assert 1e3 * post.end_s in ways["x"]


def memory(figure: Figure, document: PlanDocument) -> None:
    devices = document.memory.devices
    sizes = {
        (device.name, size / MIB) for device in devices for size in device.by_category.values()
    }
    assert {(row, length) for _, row, length in bars_by_row(figure)} == sizes
    for device in devices:
        drawn = sum(length for _, row, length in bars_by_row(figure) if row == device.name)
        assert drawn * MIB == pytest.approx(device.planned_bytes)
    budget = traces(figure, "scatter")["usable memory of the predicted GPU"]
    assert document.device_memory_bytes
    assert set(budget["x"]) == {document.device_memory_bytes / MIB}
    assert budget["y"] == [device.name for device in devices]


def test_curves_are_the_runs() -> None:
    plan = plan_subject(Wanted(network="lenet-5"))
    metrics = tuple(
        StepMetrics(
            step=n, loss=1 / (n + 1), top1=0.9 - n / 100, top5=0.5, step_s=0.1, data_wait_s=0.01 * n
        )
        for n in range(20)
    )
    scores = Scores(loss=0.5, top1=0.4, top5=0.1)
    run = Subject(
        name="run", kind="run", document=plan.document, metrics=metrics,
        held_out=(HeldOutMetrics(step=19, held_out=scores),),
    )  # fmt: skip
    figures = run.figures()
    for name in ("loss", "error", "step-times"):
        marks(figures[name])
    curves = traces(figures["loss"], "scatter")
    assert curves["training"]["x"] == list(range(20))
    assert curves["training"]["y"] == [each.loss for each in metrics]
    assert (curves["held out"]["x"], curves["held out"]["y"]) == ([19], [0.5])
    curves = traces(figures["error"], "scatter")
    assert curves["top-1"]["y"] == [100 * each.top1 for each in metrics]
    assert curves["held-out top-1"]["y"] == [40]
    curves = traces(figures["step-times"], "scatter")
    assert curves["data wait"]["y"] == [1e3 * each.data_wait_s for each in metrics]
    with pytest.raises(AlexsimError, match="no figure 'rofline'; there are layers-predicted, roof"):
        run.plot("rofline")


def test_a_page_has_the_same_figures(document: PlanDocument) -> None:
    subject = Subject(name="it", kind="plan", document=document)
    html = page(subject)
    start = html.index('id="drawn">') + len('id="drawn">')
    drawn = json.loads(html[start : html.index("</script>", start)])["figures"]
    figures = {name: json.loads(of.to_json()) for name, of in subject.figures().items()}
    assert drawn == figures


def test_a_comparisons_marks_are_the_documents(document: PlanDocument) -> None:
    other = Wanted(network="lenet-5").document()
    clock = "measured" if isinstance(document, ProfileDocument) else "predicted"
    compared = [
        Compared(name="one", document=document, clock=clock),
        Compared(name="other", document=other, clock="predicted"),
        Compared(name="again", document=other, clock="predicted"),
    ]
    steps = compare.steps_compared(compared)
    boxes = compare.layers_compared(compared)
    sizes = compare.memory_compared(compared)
    for figure in (steps, boxes, sizes):
        marks(figure)
        assert [of.name for of in figure.data] == ["one", "other", "again"]
    low, high = other.predicted_step_s_interval
    row = traces(steps, "scatter")["again"]
    assert row["y"] == ["again, predicted"]
    assert row["x"] == pytest.approx([1e3 * other.predicted_step_s])
    assert row["x"][0] - row["error_x"]["arrayminus"][0] == pytest.approx(1e3 * low)
    assert row["x"][0] + row["error_x"]["array"][0] == pytest.approx(1e3 * high)
    if isinstance(document, ProfileDocument):
        ends = traces(steps, "scatter")["one"]["x"]
        assert ends == pytest.approx([1e3 * document.step_s, 1e3 * document.predicted_step_s])
    times = {
        (each.name, layer.name): 1e3 * sum(
            (p.measured_s if each.clock == "measured" else p.predicted_s) or 0.0
            for p in passes_of(each.document) if p.layer == layer.name
        )
        for each in compared for layer in each.document.layers
    }  # fmt: skip
    close(bars_by_row(boxes), [(*key, time) for key, time in times.items() if time])
    assert bars_by_row(sizes) == [
        (each.name, f"{each.name}, {device.name}", device.planned_bytes / MIB)
        for each in compared
        for device in each.document.memory.devices
    ]

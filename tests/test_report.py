"""``alexsim report``: whole pages that need nothing else, whose figures are the documents'."""

from __future__ import annotations

import base64
import copy
import html
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs
from safetensors.numpy import save_file
from tiny import write_weights

from alexsim.cli.app import main
from alexsim.documents.profile import ProfileDocument
from alexsim.documents.run import StepMetrics
from alexsim.page.curves import curve_section
from alexsim.page.figures.compare import Estimate
from alexsim.page.figures.curves import smoothed, thinned
from alexsim.page.figures.passes import PASSES, passes_of
from alexsim.page.figures.style import DARK, LIGHT
from alexsim.page.figures.text import digits, in_mib, milliseconds, percent, scaled, seconds
from alexsim.page.figures.timeline import spent_of
from alexsim.page.inputs import Wanted, plan_subject
from alexsim.typed import read as read_document
from alexsim.units import format_bytes

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """A page's elements; fails where tags do not close in order.

    ``source`` is without the charting library, which must be there once, as it is.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.size = len(text.encode())
        before, library, after = text.partition(get_plotlyjs())
        assert library
        text = before + after
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.drawn: dict[str, Any] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._cell: list[str] | None = None
        self._table = ""
        self.source = text
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._table = dict(attrs)["id"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag
        if tag in ("td", "th") and self._cell is not None:
            self.tables[self._table][-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            if self.elements[-1][1].get("id") == "drawn":
                self.drawn = json.loads(data)
            return
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(data)

    def named(self, *tags: str) -> list[tuple[str, dict[str, str | None]]]:
        return [(tag, given) for tag, given in self.elements if tag in tags]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, table: str, name: str) -> list[str]:
        return next(row for row in self.tables[table] if row[0] == name)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, arguments)])
    return int(caught.value.code or 0)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def measured(document: dict[str, Any]) -> dict[str, Any]:
    """A plan's document as if it had been measured: everything takes three times as long."""
    made = copy.deepcopy(document)
    for layer in made["layers"]:
        layer["measured"] = {key: 3 * value for key, value in layer["predicted"].items()}
        layer["measured"]["gflop_per_s"] = 1.0
        layer["measured_interval"] = {
            key: [2 * value, 4 * value] for key, value in layer["predicted"].items()
        }
        layer["ceiling_share"] = 0.5
        layer["limit"] = dict.fromkeys(layer["predicted_limit"], "compute")
    for exchange in made["exchanges"]:
        exchange["measured_s"] = 3 * exchange["predicted_s"]
    step = 3 * made["predicted_step_s"]
    return made | {
        "where": "cpu, aten, 2 threads",
        "rounds": 5,
        "step_s": step,
        "step_s_interval": [0.9 * step, 1.1 * step],
        "timed_step_s": step,
        "transfers_s": 0.01 * step,
        "rest_s": 0.02 * step,
        "telemetry": None,
        "spans": made["spans"]
        | {
            "measured": [
                span | {"start_s": 3 * span["start_s"], "end_s": 3 * span["end_s"]}
                for span in made["spans"]["simulated"]
            ]
        },
    }


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Two GPUs, as if measured."""
    return measured(Wanted(network="alexnet-2012", batch_size=32).document().document())


@pytest.fixture(scope="module")
def profiled(document: dict[str, Any]) -> ProfileDocument:
    """The same, read."""
    return read_document(ProfileDocument, document, "it")


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the real trainer."""
    path = tmp_path_factory.mktemp("runs") / "three-steps"
    arguments = ["--json", "--net", "lenet-5", "--batch", "16", "--steps", "3", "--threads", "1"]
    with pytest.raises(SystemExit) as caught:
        main(
            [
                "train",
                *arguments,
                "--workers",
                "1",
                "--data",
                str(folder),
                "-o",
                str(path),
                "--json",
            ]
        )
    assert not caught.value.code
    return path


@pytest.fixture
def run_dir(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    target = tmp_path / "run"
    target.mkdir()
    for file in trained.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.fixture(scope="module")
def pages(
    trained: Path, document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Page]:
    """A page of every kind."""
    where = tmp_path_factory.mktemp("pages")
    (where / "two.json").write_text(json.dumps(document))
    asked: dict[str, tuple[object, ...]] = {
        "run": (trained,),
        "profile": (where / "two.json",),
        "plan": ("alexnet-2012", "--batch", "32", "--policy", "reuse"),
        "comparison": (trained, where / "two.json"),
        "three": (trained, where / "two.json", "lenet-5"),
    }
    for name, arguments in asked.items():
        assert run(*arguments, "-o", where / f"{name}.html") == 0, name
    return {name: read(where / f"{name}.html") for name in asked}


KINDS = ("run", "profile", "plan", "comparison", "three")


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_nothing_else(kind: str, pages: dict[str, Page]) -> None:
    page = pages[kind]
    assert page.size < 6e6
    assert not re.findall(r"https?:|//[a-z]+\.|@import|@font-face", page.source)
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", page.source))
    for _, given in page.elements:
        for key in ("src", "href", "srcset", "data", "action", "poster"):
            value = given.get(key)
            assert value is None or value.startswith(("#", "data:")), (key, value)
    # The library has a button that uploads a figure, and a logo that leads to its maker.
    config = page.drawn["config"]
    assert (config["showSendToCloud"], config["plotlyServerURL"]) == (False, "")
    assert config["displaylogo"] is False


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_can_be_read_without_seeing_it(kind: str, pages: dict[str, Page]) -> None:
    page = pages[kind]
    ids = [given["id"] for _, given in page.elements if "id" in given]
    assert len(ids) == len(set(ids))
    for name in ("main", "header", "nav", "footer", "h1"):
        assert len(page.named(name)) == 1, name
    levels = [int(tag[1]) for tag, _ in page.named("h1", "h2", "h3", "h4")]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    drawings = [given for _, given in page.named("div") if given.get("role") == "img"]
    assert {given["id"] for given in drawings} == {f"plot-{id_}" for id_ in page.drawn["figures"]}
    assert drawings
    for given in drawings:
        assert given["aria-label"]
        assert given["aria-describedby"] in ids
    assert all(given.get("alt") for _, given in page.named("img"))
    assert len(page.named("caption")) == len(page.named("table"))
    assert all(given.get("scope") in ("row", "col") for _, given in page.named("th"))
    sortable = [given for _, given in page.named("th") if "aria-sort" in given]
    assert len(sortable) == len(page.named("button")) > 0
    assert len(page.named("noscript")) == 1
    anchors = [given["href"] for _, given in page.named("a")]
    assert {f"#{id_}" for id_ in ids} >= set(anchors)


@pytest.mark.parametrize("kind", ["run", "profile", "plan"])
def test_every_layer_and_pass_is_named(kind: str, pages: dict[str, Page]) -> None:
    page = pages[kind]
    net = "lenet-5" if kind == "run" else "alexnet-2012"
    document = Wanted(network=net, batch_size=16 if kind == "run" else 32).document()
    clocks = ("predicted",) if kind == "plan" else ("measured", "predicted")
    for layer in document.layers:
        for table in ("layer-table", "count-table", *(f"layers-{clock}-table" for clock in clocks)):
            assert page.row(table, layer.name), (table, layer.name)
    named = {row[0] for row in page.tables["roofline-table"]}
    assert {one.title for one in passes_of(document) if one.flop} <= named
    hover = {
        text.partition("<br>")[0]
        for trace in page.drawn["figures"]["timeline-simulated"]["data"]
        for text in trace["hovertext"]
    }
    assert {s.id for s in document.spans.simulated if s.activity != "barrier"} <= hover


def test_the_answer_comes_first_and_settings_are_folded_at_the_end(pages: dict[str, Page]) -> None:
    run = [given["id"] for _, given in pages["run"].named("section")]
    assert run == [
        "summary", "curves", "layers", "roof", "step", "traffic", "memory", "filters", "what-ran",
    ]  # fmt: skip
    for kind, last in (("run", "what-ran"), ("three", "what-differs")):
        page = pages[kind]
        place = page.elements.index(
            next(each for each in page.named("section") if each[1]["id"] == last)
        )
        assert page.elements[place + 1] == ("details", {}), kind


def test_totals_are_those_of_the_document(document: dict[str, Any], pages: dict[str, Page]) -> None:
    page = pages["profile"]
    layers = document["layers"]
    total = page.tables["layer-table"][-1]
    assert total[0] == f"all {len(layers)}"
    for index, name in enumerate(PASSES):
        spent = sum(layer["measured"].get(f"{name}_s", 0.0) for layer in layers)
        assert total[2 + index] == milliseconds(spent), name
    spent = sum(sum(v for k, v in la["measured"].items() if k.endswith("_s") and "gflop" not in k)
                for la in layers)  # fmt: skip
    assert total[6] == milliseconds(spent)
    assert total[7] == percent(spent / document["timed_step_s"])
    assert total[-1] == "3.00"
    counted = page.tables["count-table"][-1]
    assert counted[3] == f"{sum(layer['parameters'] for layer in layers):,}" == "60,965,224"
    assert counted[6] == in_mib(sum(layer["bytes"] for layer in layers))
    for index, device in enumerate(document["memory"]["devices"], start=1):
        rows = page.tables["memory-by-category-table"]
        assert next(row for row in rows if row[0] == "total")[index] == in_mib(
            device["planned_bytes"]
        )
        assert sum(device["by_category"].values()) == device["planned_bytes"]
        free = document["device_memory_bytes"] - device["planned_bytes"]
        assert next(row for row in rows if row[0] == "free")[index] == in_mib(free)
    traffic = page.tables["traffic-table"]
    assert len(traffic) == len(document["exchanges"]) + 2
    moved = sum(one["bytes"] for one in document["exchanges"])
    assert traffic[-1][2] == digits(moved / 2**20)
    assert traffic[-1][3] == milliseconds(sum(one["measured_s"] for one in document["exchanges"]))
    assert seconds(document["step_s"]) in page.text
    assert scaled(document["ceilings"]["flop_per_s"], "FLOP/s") in page.text


def facts(page: Page) -> dict[str, tuple[str, str]]:
    """What stands large at the top of a page, and the word on it, by name."""
    found = re.findall(
        r"<dt>(.*?)</dt>\s*<dd><strong>(.*?)</strong>\s*<span>(.*?)</span>", page.source, re.DOTALL
    )
    return {name: (value, html.unescape(note)) for name, value, note in found}


ASKED = {
    "data parallel": "resnet50 --machine dgx-a100 --gpus 8 --batch 256",
    "columns": "alexnet-2012 --machine gtx580x2",
    "replicas of columns": "alexnet-2012 --machine k20x8 --replicas 2",
    "hidden sums": "alexnet-owt --machine k20x8 --gpus 4 --schedule overlap",
    "hybrid": "lenet-5 --machine k20x8 --gpus 2 --partition hybrid",
}


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints with ``--json``."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--json"])
    assert not caught.value.code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("case", ASKED)
def test_a_pages_figures_are_those_of_the_commands(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, *options = ASKED[case].split()
    simulated = said(capsys, "simulate", "--net", net, *options)
    # ``memory`` refuses a schedule that changes no byte.
    placed = [each for each in options if each not in ("--schedule", "overlap")]
    held = said(capsys, "memory", "--net", net, *placed)
    counted = said(capsys, "flops", "--net", net)
    assert run(net, *options, "-o", tmp_path / "page.html") == 0
    page, devices = read(tmp_path / "page.html"), simulated["devices"]
    top = facts(page)

    # How the GPUs share a step, in the sentence and in a whole number.
    assert f"{net}, {simulated['sharing']}; memory policy" in page.text
    assert "on one GPU" not in page.text
    assert top["GPUs"][0] == str(simulated["gpus"])

    step_s = simulated["step_s"]
    assert top["Step, predicted"][0] == seconds(step_s)
    low, high = map(seconds, simulated["step_s_interval"])
    rate = f"{digits(simulated['images_per_s'])} images/s"
    assert top["Step, predicted"][1].startswith(f"{low} to {high}, 9 in 10; {rate}")
    flop = counted["training_flop"] * simulated["batch_size"]
    assert top["Arithmetic per step"][0] == scaled(flop, "FLOP")

    # Memory: one figure, with the context, wherever it stands.
    fullest = max(devices, key=lambda device: device["memory_bytes"])
    size = format_bytes(fullest["memory_bytes"])
    assert top["Memory of a GPU"][0] == size
    assert top["Memory of a GPU"][1].endswith("context included")
    rows = page.tables["memory-by-category-table"]
    totals = dict(zip(rows[0], next(row for row in rows if row[0] == "total"), strict=True))
    contexts = dict(zip(rows[0], next(r for r in rows if r[0] == "device context"), strict=True))
    for device in devices:
        name, whole = device["name"], device["memory_bytes"]
        share = f"{format_bytes(whole)}, context included"
        assert f"{name} holds {share}: " in page.text
        assert totals[name] == in_mib(whole)
    for device in held["devices"]:
        assert totals[device["name"]] == in_mib(device["total_bytes"])
        assert contexts[device["name"]] == in_mib(device["by_category"]["context"])
    assert "MiB by category and GPU, context included" in page.text
    assert "without a card's context" not in page.text
    if held["exchanged_bytes_per_step"]:
        moved = format_bytes(held["exchanged_bytes_per_step"])
        assert top["Exchanged per step"][0] == moved


@pytest.mark.parametrize("case", ASKED)
def test_a_pages_timeline_and_traffic_are_those_of_simulate(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, *options = ASKED[case].split()
    simulated = said(capsys, "simulate", "--net", net, *options)
    counted = said(capsys, "flops", "--net", net)
    assert run(net, *options, "-o", tmp_path / "page.html") == 0
    page, devices, step_s = read(tmp_path / "page.html"), simulated["devices"], simulated["step_s"]
    for device in devices:
        row = page.row("timeline-simulated-table", device["name"])
        parts = ("busy_s", "exchange_s", "all_reduce_s", "upload_s")
        assert row[2:6] == [milliseconds(round(device[part], 9)) for part in parts]
    drawn = {trace["name"] for trace in page.drawn["figures"]["timeline-simulated"]["data"]}
    summed = simulated["all_reduce_s"] > 0
    assert ("all-reduce of gradients" in drawn) == summed == ("sums-table" in page.tables)
    if summed and case != "hybrid":  # whose collectives of activations are in it too
        totals_of = {row[1]: row for row in page.tables["sums-table"][-len(devices) :]}
        for device in devices:
            times = device["all_reduce_s"], device["exposed_all_reduce_s"]
            assert totals_of[device["name"]][3:] == [milliseconds(time) for time in times]
    waits = f"Images lie ready here; the data path makes a step of {seconds(step_s)}." in page.text
    assert waits == (simulated["bound"] == "data path")
    if case == "data parallel":
        size = in_mib(4 * counted["parameters"])
        assert page.tables["sums-table"][-1][2] == size


def test_a_comparison_says_of_each_whether_the_context_is_in_it(pages: dict[str, Page]) -> None:
    page = pages["three"]
    heads = page.tables["memory-table"][0]
    assert heads[1].endswith("gpu0, without a card's context")
    assert [head.partition(", ")[2] for head in heads[2:]] == [
        "gpu0, context included",
        "gpu1, context included",
        "gpu0, context included",
    ]
    assert "on its fullest GPU, without a card's context: " in page.text
    assert "on its fullest GPU, context included: " in page.text


def test_a_run_without_a_profile_counts_no_context(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "profile.json").unlink()
    assert run(run_dir, "-o", tmp_path / "page.html") == 0
    page = read(tmp_path / "page.html")
    assert facts(page)["Memory of a GPU"][1].endswith("; without a card's context")
    assert "device context" not in page.text


def test_idle_and_busy_fill_the_step(profiled: ProfileDocument, pages: dict[str, Page]) -> None:
    found = spent_of(profiled)
    assert {(one.clock, one.device) for one in found} == {
        (clock, gpu) for clock in ("measured", "simulated") for gpu in ("gpu0", "gpu1")
    }
    for one in found:
        parts = one.computing_s + one.exchange_s + one.all_reduce_s + one.upload_s + one.idle_s
        assert parts == pytest.approx(one.step_s, rel=1e-6)
        row = pages["profile"].row(f"timeline-{one.clock}-table", one.device)
        assert row[6] == milliseconds(one.idle_s)


def test_a_run_shows_its_curves_and_its_filters(trained: Path, pages: dict[str, Page]) -> None:
    page = pages["run"]
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [row[1] for row in page.tables["metrics-table"][1:]] == [
        f"{line['loss']:.4f}" for line in steps
    ]
    held_out = next(line["held_out"] for line in lines if "held_out" in line)
    assert f"On held-out images {digits(held_out['loss'], 4)}" in page.text
    (image,) = page.named("img")
    source = image[1]["src"] or ""
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    # Six filters of 5 x 5, three in a row, a pixel around each.
    assert picture.size == (3 * 6 + 1, 2 * 6 + 1)
    assert facts(page)["Memory of a GPU"][1].endswith("; without a card's context")
    assert "MiB by category and GPU, without a card's context" in page.text
    assert "context included" not in page.text
    budget = json.loads((trained / "config.json").read_text())["settings"]["budget_bytes"]
    assert page.row("memory-by-category-table", "budget of the run")[1] == in_mib(budget)


def test_two_columns_have_a_picture_each(run_dir: Path, tmp_path: Path) -> None:
    config = json.loads((run_dir / "config.json").read_text())
    config["settings"] |= {"network": "alexnet-2012", "gpus": 2, "batch_size": 32}
    (run_dir / "config.json").write_text(json.dumps(config))
    (run_dir / "profile.json").unlink()
    for old in run_dir.glob("checkpoint-*"):
        old.unlink()
    weights = np.zeros((48, 3, 11, 11), np.float32)
    weights[0, 0] = 1
    save_file(
        {"conv1.a.weight": weights, "conv1.b.weight": -weights},
        run_dir / "checkpoint-00000003.safetensors",
    )
    assert run(run_dir, "-o", tmp_path / "page.html") == 0
    page = read(tmp_path / "page.html")
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode((given["src"] or "").split(",")[1]))))
        for _, given in page.named("img")
    ]
    assert len(pictures) == 2
    assert pictures[0][1, 1].tolist() == [255, 128, 128]
    assert pictures[1][1, 1].tolist() == [0, 128, 128]
    assert "conv1, GPU 0 (column a)" in page.text
    assert "conv1, GPU 1 (column b)" in page.text


def test_without_a_profile_times_are_predicted(run_dir: Path, tmp_path: Path) -> None:
    (run_dir / "profile.json").unlink()
    assert run(run_dir, "-o", tmp_path / "page.html") == 0
    page = read(tmp_path / "page.html")
    assert "This run left no profile.json" in page.text
    assert "Step, measured" not in page.text
    assert "Step, predicted" in page.text
    assert page.tables["metrics-table"]


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_median_step_is_said(steps: int) -> None:
    times = [1.0, 5.0, 2.0, 9.0][:steps]
    metrics = tuple(
        StepMetrics(step=step, loss=1.0, top1=0.5, top5=0.1, step_s=time, data_wait_s=0.0)
        for step, time in enumerate(times)
    )
    subject = replace(plan_subject(Wanted(network="lenet-5")), metrics=metrics, kind="run")
    section = curve_section(subject)
    assert section is not None
    said = f"Median {milliseconds(float(np.median(times)))} ms"
    assert sum(said in figure.text for figure in section.figures) == 1


def test_telemetry_goes_on_over_a_resumption(run_dir: Path, tmp_path: Path) -> None:
    blank = dict.fromkeys(
        ("utilisation", "memory_bytes", "sm_mhz", "memory_mhz", "pcie_sent_bytes_per_s",
         "pcie_received_bytes_per_s")
    )  # fmt: skip
    times = (0.0, 10.0, 0.0, 5.0)
    samples = [blank | {"time_s": t, "card": 0, "power_w": 100.0 + t} for t in times]
    text = "".join(json.dumps(sample) + "\n" for sample in samples) + '{"half'
    (run_dir / "telemetry.jsonl").write_text(text)
    assert run(run_dir, "-o", tmp_path / "page.html") == 0
    page = read(tmp_path / "page.html")
    assert page.row("telemetry-table", "Power, W") == [
        "Power, W", "card 0", "100", "104", "110",
    ]  # fmt: skip
    # The last sample is at 15 s, not at 5.
    (trace,) = page.drawn["figures"]["card-power-w"]["data"]
    assert trace["x"] == [0, 10, 10, 15]
    assert trace["y"] == [100, 110, 100, 105]
    assert "Utilisation" not in page.text


def test_a_comparison_says_what_differs(
    trained: Path, document: dict[str, Any], pages: dict[str, Page]
) -> None:
    page = pages["comparison"]
    assert page.row("settings-table", "network")[1:] == ["lenet-5", "alexnet-2012"]
    assert "schedule" not in {row[0] for row in page.tables["settings-table"]}
    first = json.loads((trained / "profile.json").read_text())
    both = [
        sum(
            value
            for layer in one["layers"]
            for key, value in layer["measured"].items()
            if key.endswith("_s") and key != "gflop_per_s"
        )
        for one in (first, document)
    ]
    total = page.tables["layer-table"][-1]
    assert total[1:4] == [milliseconds(both[0]), milliseconds(both[1]), digits(both[1] / both[0])]
    assert page.row("layer-table", "fc8")[1] == "\N{EN DASH}"
    assert total[4] == f"+{milliseconds(both[1] - both[0])}"
    assert digits(document["step_s"] / first["step_s"]) in page.text
    assert [row[0] for row in page.tables["memory-table"]][-1] == "total"


def test_any_number_is_compared(pages: dict[str, Page], profiled: ProfileDocument) -> None:
    """Measured beside predicted for each; what is alike is not called different."""
    page = pages["three"]
    assert "three-steps beside two beside lenet-5" in page.text
    rows = page.tables["step-table"][1:]
    assert [row[0] for row in rows] == [
        "three-steps, measured", "three-steps, predicted", "two, measured", "two, predicted",
        "lenet-5, predicted",
    ]  # fmt: skip
    assert rows[2][1:4] == [
        milliseconds(value) for value in (profiled.step_s, *profiled.step_s_interval)
    ]
    assert page.tables["settings-table"][0] == ["setting", "three-steps", "two", "lenet-5"]
    layers = page.tables["layer-table"][0]
    assert layers[1:] == [
        "three-steps, measured, ms", "two, measured, ms", "lenet-5, predicted, ms",
        "two, measured, ratio", "lenet-5, predicted, ratio",
    ]  # fmt: skip
    assert [name.partition(",")[0] for name in page.tables["memory-table"][0][1:]] == [
        "three-steps", "two", "two", "lenet-5",
    ]  # fmt: skip


def test_no_difference_is_said_where_the_interval_holds_it() -> None:
    first = Estimate(10.0, 8.0, 12.5)
    same = first.over(first)
    assert same.value == 1
    assert same.undecided
    # Both sides deviate by a factor of 1.25: by the root of two of its logarithm together.
    assert same.high == pytest.approx(1.25**2**0.5)
    assert same.low == pytest.approx(0.8**2**0.5)
    assert not Estimate(20.0, 16.0, 25.0).over(first).undecided
    assert Estimate(12.0, 12.0, 12.0).over(first).undecided
    exact = Estimate(3.0, 3.0, 3.0).over(Estimate(2.0, 2.0, 2.0))
    assert (exact.value, exact.low, exact.high) == (1.5, 1.5, 1.5)


def test_one_subject_twice_has_two_names(trained: Path, tmp_path: Path) -> None:
    assert run(trained, trained, "-o", tmp_path / "page.html") == 0
    page = read(tmp_path / "page.html")
    assert "three-steps (1st) beside three-steps (2nd)" in page.text
    assert page.tables["layer-table"][-1][3] == "1.00"
    assert {row[3] for row in page.tables["layer-table"][1:-1]} == {"≈ 1.00"}
    assert page.row("step-table", "three-steps (2nd), measured")[-1] == "no difference"
    assert "settings-table" not in page.tables


@pytest.mark.parametrize("first", [0, 1])
def test_a_plan_beside_a_run_leaves_it_its_measured_time(
    first: int, trained: Path, tmp_path: Path
) -> None:
    """And is planned as the run was, unless it is asked for otherwise."""
    page = tmp_path / "page.html"
    both = [trained, "lenet-5"]
    document = json.loads((trained / "profile.json").read_text())
    assert run(*(both if first == 0 else both[::-1]), "-o", page) == 0
    times = (document["step_s"], document["predicted_step_s"])
    quotient = times[1 - first] / times[first]
    text = read(page).text
    assert digits(quotient) in text
    assert f"{trained.name} was measured" in text
    assert f"Both in batches of {document['batch_size']}" in text
    layers = read(page).tables["layer-table"]
    headings = [f"{trained.name}, measured, ms", "lenet-5, predicted, ms"]
    assert layers[0][1:3] == (headings if first == 0 else headings[::-1])
    total = sum(layer["predicted"][f"{name}_s"] for layer in document["layers"]
                for name in ("forward", "grad_input", "grad_weight", "update")
                if f"{name}_s" in layer["predicted"])  # fmt: skip
    assert layers[-1][2 - first] == milliseconds(total)
    assert run(trained, "lenet-5", "--batch", 2, "-o", page) == 0
    assert f"Batches of {document['batch_size']} and of 2" in read(page).text


def test_a_network_in_a_file_is_a_subject(tmp_path: Path) -> None:
    write_weights(tmp_path)
    assert run(f"{tmp_path / 'tiny.py'}:net", "lenet-5", "-o", tmp_path / "page.html") == 0
    assert "None was measured" in read(tmp_path / "page.html").text


HOSTILE = "<script>alert('x')</script>&\"--%{x}"


def test_hostile_names_are_text(document: dict[str, Any], tmp_path: Path) -> None:
    bad = copy.deepcopy(document)
    bad["where"] = bad["layers"][0]["name"] = bad["machine"] = HOSTILE
    bad["exchanges"][0]["name"] = bad["memory"]["devices"][0]["name"] = HOSTILE
    bad["memory"]["devices"][0]["alive_at_peak"][0]["name"] = HOSTILE
    for span in bad["spans"]["measured"][:3]:
        span["id"] = span["queue"] = HOSTILE
    (tmp_path / "x.json").write_text(json.dumps(bad))
    assert run(tmp_path / "x.json", "-o", tmp_path / "page.html") == 0
    page = read(tmp_path / "page.html")
    assert "<script>alert" not in page.source
    assert len(page.named("script")) == 3
    assert HOSTILE in page.text
    # Plotly reads some HTML in its texts: names are escaped for it too, once.
    figures = json.dumps(list(page.drawn["figures"].values()))
    assert "<script" not in figures
    assert json.dumps(html.escape(HOSTILE, quote=False))[1:-1] in figures
    assert "&amp;lt;" not in figures


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        (path / name).write_bytes(change((path / name).read_bytes()))

    return damage


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert re.search(old, data)
        return re.sub(old, new, data, count=1)

    return change


def without(key: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        document = json.loads(data)
        del document[key]
        return json.dumps(document).encode()

    return change


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def shortened_checkpoint(path: Path) -> None:
    (checkpoint,) = path.glob("checkpoint-*")
    checkpoint.write_bytes(half(checkpoint.read_bytes()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged("profile.json", half), "profile.json is damaged"),
        (damaged("profile.json", without("layers")), "profile.json is no document of this version"),
        (damaged("profile.json", lambda _: b"[]"), "it must be a table, got []"),
        (damaged("profile.json", lambda _: b"\xff\xfe"), "damaged: not text"),
        (
            damaged("profile.json", replaced(b'"parameters": 156', b'"parameters": "x"')),
            "layers[0].parameters must be a whole number, got 'x'",
        ),
        (
            damaged("profile.json", replaced(rb'"layers": \[', b'"layers": [[1, 2], ')),
            "layers[0] must be a table, got [1, 2]",
        ),
        (
            damaged("profile.json", replaced(rb'"step_s_interval": .', b'"step_s_interval": [0, ')),
            "step_s_interval must be",
        ),
        (damaged("config.json", half), "config.json is damaged"),
        (
            damaged("config.json", replaced(rb'"budget_bytes": \d+', b'"budget_bytes": 0')),
            "settings.budget_bytes must be at least 1, got 0",
        ),
        (damaged("config.json", without("settings")), "missing keys ['settings']"),
        (damaged("metrics.jsonl", replaced(b"^", b"{]\n")), "metrics.jsonl, line 1, is damaged"),
        (
            damaged("metrics.jsonl", replaced(b'"loss"', b'"lost"')),
            "line 1, is no document of this version: missing keys ['loss']",
        ),
        (
            damaged("metrics.jsonl", replaced(rb'"loss": [\d.]+', b'"loss": NaN')),
            "loss must be a finite number, got nan",
        ),
        (
            damaged("metrics.jsonl", replaced(rb'"loss": [\d.]+', b'"loss": true')),
            "loss must be a number, got True",
        ),
        (
            damaged("metrics.jsonl", replaced(rb'"held_out": ', b'"held_out": 1, "x": ')),
            "held_out must be a table, got 1",
        ),
        (shortened_checkpoint, "safetensors is damaged"),
        (lambda path: (path / "config.json").unlink(), "holds no run: no config.json"),
    ],
)  # fmt: skip
def test_damage_is_told_in_one_line(
    change: Callable[[Path], None], message: str, run_dir: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    change(run_dir)
    assert run(run_dir, "-o", tmp_path / "page.html") == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("alexsim: ")
    assert err.count("\n") == 1
    assert message in err
    assert not list(tmp_path.glob("*page*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet-5", "lenet-5", "none.json"), "there is no none.json"),
        (("alexnet",), "no network 'alexnet'; did you mean alexnet-"),
        (("runs/none",), "there is no runs/none"),
        (("none.json",), "there is no none.json"),
        (("lenet-5", "--policy", "x"), "as-released, in-place, reuse, pytorch; got 'x'"),
        (("lenet-5", "--batch", "0"), "--batch must be at least 1"),
        (("lenet-5", "-o", "/gone/x.html"), "cannot write /gone/x.html"),
    ],
)
def test_mistakes_take_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert message in err


def test_options_of_a_plan_are_not_for_a_run(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trained, "--batch", "64") == 2
    assert "--batch is for a network's name" in capsys.readouterr().err


def test_half_a_last_line_is_left_out(run_dir: Path, tmp_path: Path) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert run(run_dir, "-o", tmp_path / "page.html") == 0
    assert len(read(tmp_path / "page.html").tables["metrics-table"]) == 1 + 3


def test_a_page_without_torch(trained: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    code = (
        "import sys\nfrom alexsim.cli.app import main\n"
        f"try: main(['report', {str(trained)!r}, '-o', {str(page)!r}])\n"
        "except SystemExit as e: assert not e.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "triton", "pandas", "pyarrow", "kaleido"} & set(done.stderr.split())
    assert done.stdout.startswith(f"{page}: ")
    assert done.stdout.count("\n") == 1
    assert page.exists()


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


HUES = ("blue", "teal", "orange", "purple", "pink", "grey", "olive", "red")


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast_is_enough(colours: dict[str, str]) -> None:
    for text in ("ink", "muted", "accent", "warn"):
        for ground in ("ground", "panel"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for hue in HUES:
        # Names stand in boxes of these in the ground's colour.
        assert contrast(colours[hue], colours["ground"]) >= 4.5, hue
    assert contrast(colours["edge"], colours["ground"]) >= 3
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("kind", KINDS)
def test_every_colour_of_a_page_is_the_palettes(kind: str, pages: dict[str, Page]) -> None:
    """The page's script finds its dark one there."""
    page = pages[kind]
    assert len(set(LIGHT.values())) == len(LIGHT) == len(DARK)
    assert page.drawn["colours"] == dict(zip(LIGHT.values(), DARK.values(), strict=True))
    used = set(re.findall(r'"(#[0-9a-f]{6})"', json.dumps(page.drawn["figures"])))
    assert {LIGHT["ink"], LIGHT["blue"]} <= used <= set(LIGHT.values())
    assert set(re.findall(r"var\(--([\w-]+)\)", page.source)) <= set(LIGHT)
    for name in LIGHT:
        assert page.source.count(f"--{name}: {LIGHT[name]};") == 2
        assert page.source.count(f"--{name}: {DARK[name]};") == 1


def test_thinned_lines_keep_their_extremes() -> None:
    points = [(float(i), float((i * 7919) % 1000)) for i in range(10_000)]
    kept = thinned(points)
    assert len(kept) <= 2000
    assert set(kept) <= set(points)
    assert max(y for _, y in kept) == max(y for _, y in points)
    assert min(y for _, y in kept) == min(y for _, y in points)
    assert kept == sorted(kept)
    assert smoothed([(0, 0.0), (1, 3.0), (2, 6.0)], 3) == [(0, 1.5), (1, 3.0), (2, 4.5)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (seconds(0.8023), "802 ms"),
        (seconds(8.2e-6), "8.20 µs"),
        (seconds(0.9996), "1.00 s"),
        (scaled(195.47e9, "FLOP/s"), "195 GFLOP/s"),
        (scaled(999.9e6, "B/s"), "1.00 GB/s"),
        (percent(0.00001), "<0.1 %"),
        (percent(0.0994), "9.9 %"),
        (percent(1), "100 %"),
        (in_mib(1536 * 1024), "1.5"),
        (digits(1234.5), "1,234"),
    ],
)
def test_numbers_read_well(found: str, expected: str) -> None:
    assert found == expected

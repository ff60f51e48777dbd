"""Errors by group, quick looks, and the page of predicted against measured times."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import Page

from alexsim.cli.app import main
from alexsim.command.output import write_lines
from alexsim.costs.correction import load_correction
from alexsim.errors import AlexsimError
from alexsim.fidelity.groups import AXES, by_axis
from alexsim.fidelity.judged import Judged, of_predictions, seen_by
from alexsim.fidelity.judging import roofline_of
from alexsim.fidelity.row_files import read_rows
from alexsim.fidelity.sample import quick, sample
from alexsim.fidelity.validation import all_rows, measured_s, predict_all
from alexsim.page.figures import validation as figures
from alexsim.page.validation import validation_page
from alexsim.report.groups import cut_line

GENERATIONS = ("fermi", "kepler", "maxwell", "volta", "turing", "ampere", "ada", "hopper", "next")


def made(count: int, *, seed: int = 0, spread: float = 0.3) -> list[Judged]:
    """Rows whose logarithms miss by a normal distribution, as wide as their intervals say."""
    random = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        which = int(random.integers(len(GENERATIONS)))
        predicted = 10 ** random.uniform(-5, 0)
        side = math.exp(1.6448536269514722 * spread)
        rows.append(
            Judged(
                id=f"r{index}",
                source=("a/b", "c/d", "")[int(random.integers(3))],
                device=f"{GENERATIONS[which]}-{random.integers(2)}",
                generation=GENERATIONS[which],
                year=None if which == 8 else 2010 + 2 * which,
                device_seen=which % 3 > 0,
                library=("cudnn", "cublas")[int(random.integers(2))],
                library_seen=True,
                op=("network", "convolution", "product")[int(random.integers(3))],
                passes=("forward", "grad_weight")[int(random.integers(2))],
                what="3 x <b>224</b> x 224",
                batch_size=None if index % 7 == 0 else 16,
                precision="fp32",
                cards=int(random.integers(1, 3)),
                flop=0.0 if index % 5 == 0 else float(10 ** random.uniform(0, 13)),
                predicted_s=predicted,
                low_s=predicted / side,
                high_s=predicted * side,
                measured_s=predicted * math.exp(random.normal(0, spread)),
                roofline_s=None if index % 3 == 0 else predicted * random.uniform(0.2, 1),
            )
        )
    return rows


def test_a_groups_errors_are_numpys_of_its_rows_each_once_on_every_axis() -> None:
    rows = made(401)
    blind = [replace(row, measured_s=None, roofline_s=None) for row in made(20, seed=1)]
    groups = by_axis([*rows, *blind])
    assert groups[0].plain.rows == 401
    assert by_axis(blind) == ()
    for axis in AXES:
        of_axis = {group.name: group for group in groups if group.axis == axis.name}
        assert sum(group.plain.rows for group in of_axis.values()) == 401
        for name, group in of_axis.items():
            chosen = [row for row in rows if axis.of(row)[1] == name]
            ratios = np.array([row.predicted_s / (row.measured_s or math.nan) for row in chosen])
            bounds = [abs(r.roofline_s / r.measured_s - 1) for r in chosen if r.roofline_s]
            plain = group.plain
            assert plain.rows == len(chosen)
            assert plain.median_absolute_error == pytest.approx(np.median(np.abs(ratios - 1)))
            assert plain.mean_absolute_error == pytest.approx(np.mean(np.abs(ratios - 1)))
            assert plain.bias == pytest.approx(np.mean(np.log(ratios)))
            inside = [row.low_s <= (row.measured_s or 0) <= row.high_s for row in chosen]
            assert plain.coverage == pytest.approx(np.mean(inside))
            assert plain.roofline_median_absolute_error == pytest.approx(np.median(bounds))
            pairs = defaultdict(list)
            for row, miss in zip(chosen, np.abs(ratios - 1), strict=True):
                pairs[row.device, row.source].append(miss)
            alike = group.alike
            assert group.pairs == len(pairs)
            assert alike.median_absolute_error == pytest.approx(
                np.mean([np.median(misses) for misses in pairs.values()])
            )
            assert alike.mean_absolute_error == pytest.approx(
                np.mean([np.mean(misses) for misses in pairs.values()])
            )


@pytest.mark.parametrize("errors", [[-0.4], [-0.5, 0.1], [0.3, -0.1, 0.2], [0.4, -0.1, 0.2, -0.3]])
def test_a_median_is_of_the_errors_sizes_of_even_and_odd_numbers(errors: list[float]) -> None:
    rows = [replace(made(1)[0], predicted_s=1 + error, measured_s=1.0) for error in errors]
    every = by_axis(rows)[0]
    assert every.plain.median_absolute_error == pytest.approx(np.median(np.abs(errors)))
    assert every.alike == every.plain


def test_one_absurd_row_counts_as_a_thousand_per_cent_in_means_and_is_said() -> None:
    row = replace(made(1)[0], measured_s=1.0)
    groups = by_axis([replace(row, predicted_s=seconds) for seconds in (1.5, 51.0)])
    assert groups[0].plain.mean_absolute_error == pytest.approx((0.5 + 10) / 2)
    assert groups[0].plain.median_absolute_error == pytest.approx((0.5 + 50) / 2)
    assert cut_line(groups) == "1 error over 1,000 % counts as 1,000 % in these means."
    assert cut_line(by_axis(made(3))) == ""


def test_groups_stand_in_order_and_sizes_hold_their_rows() -> None:
    groups = by_axis(made(900))
    names = {axis.name: [g.name for g in groups if g.axis == axis.name] for axis in AXES}
    assert names["generation"] == list(GENERATIONS)
    assert names["age"] == ["before 2016", "2016 and later", "year not stated"]
    assert names["kind"] == ["network", "layer"]
    assert names["op"][:2] == ["network, forward", "network, grad_weight"]
    sizes = next(axis.of for axis in AXES if axis.name == "size")
    units = {"FLOP": 1.0, "kFLOP": 1e3, "MFLOP": 1e6, "GFLOP": 1e9, "TFLOP": 1e12}
    row, highest = made(1)[0], 0.0
    assert names["size"][0] == sizes(replace(row, flop=0.0))[1] == "no multiply-adds"
    for name in names["size"][1:]:
        low, _, high, unit = name.split()
        bounds = float(low) * units[unit], float(high) * units[unit]
        assert bounds[0] == max(highest, 1.0)
        assert {sizes(replace(row, flop=f))[1] for f in (bounds[0], bounds[1] * 0.999)} == {name}
        highest = bounds[1]


def test_published_rows_keep_their_figures_in_seconds() -> None:
    chosen = all_rows("published")[0][::9]
    predictions = predict_all(chosen, load_correction())
    rows = of_predictions(predictions, roofline_of(predictions), seen_by(load_correction()))
    for prediction, row in zip(predictions, rows, strict=True):
        assert row.id == prediction.case.row.id
        if prediction.case.row.value is None:
            assert row.measured_s is row.roofline_s is None
            continue
        assert row.measured_s == measured_s(prediction.case)
        assert row.error == pytest.approx(prediction.error)
        assert row.covered == prediction.covered
        assert row.low_s < row.predicted_s < row.high_s
        assert row.roofline_s
    assert {row.device_seen for row in rows if row.device == "gtx580"} <= {False}
    words = {(row.op, row.passes) for row in rows}
    assert {("network", "step"), ("convolution", "forward")} <= words
    steps = {row.what: row.flop / row.batch_size for row in rows if row.passes == "step"}
    # A step is three passes but for the first layer's gradient of the images.
    for row in rows:
        if row.op == "network" and row.passes == "forward" and row.what in steps:
            assert 2.6 * row.flop < (row.batch_size or 0) * steps[row.what] <= 3 * row.flop


def test_a_quick_look_is_the_same_in_any_order_and_has_some_of_everything() -> None:
    rows = read_rows("published")
    kept, told = quick(rows)
    kinds = {(row.gpu, row.library) for row in rows}
    assert {(row.gpu, row.library) for row in kept} == kinds
    assert (told.rows, told.of, told.every) == (len(kept), len(rows), 20)
    assert len(rows) / 20 / 2 < len(kept) < len(rows) / 20 + len(kinds)
    assert {row.id for row in quick(rows[::-1])[0]} == {row.id for row in kept}
    assert [row for row in rows if row in kept] == list(kept)
    # Other figures, the same rows.
    other = [replace(row, value=1.0) for row in rows]
    assert [row.id for row in quick(other)[0]] == [row.id for row in kept]
    # A table that goes round through batch sizes has all of them in the sample.
    batches = [replace(rows[0], id=f"x{n}", batch_size=str(n % 20)) for n in range(4000)]
    seen = {row.batch_size for row in sample(batches, lambda row: row.gpu, every=20)}
    assert len(seen) == 20
    many = [replace(rows[0], id=str(n)) for n in range(100_000)]
    assert quick(many)[1].rows == 2000


def run(*line: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["check", "validate", *line])
    return int(end.value.code or 0)


def test_a_quick_look_says_so_beside_every_sum_and_gates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--quick", "--summary", "--html", str(tmp_path / "a.html")) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert err.endswith("a.html: opens in any browser\n")
    text = " ".join(lines)
    kept = quick(read_rows("published"))[1]
    assert text.count(f"A sample, {kept.rows} of {kept.of} rows: one in 20") == 2
    assert kept.rows < kept.of / 10
    page = Page((tmp_path / "a.html").read_text("utf-8"))
    assert f"A sample, {kept.rows} of {kept.of} rows" in "".join(page.words)
    assert run("--quick", "--json", "-o", str(tmp_path / "a.csv")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sample"] == {"rows": kept.rows, "of": kept.of, "every": 20}
    assert document["rows"] == kept.rows
    every = document["by_axis"][0]
    assert (every["axis"], every["name"]) == ("all", "every row")
    lines = (tmp_path / "a.csv").read_text("utf-8").splitlines()
    assert len(list(csv.DictReader(lines))) == kept.rows


def test_the_terminal_has_every_axis_within_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--summary") == 0
    lines = capsys.readouterr().out.split("Errors of times, %, by group")[1].splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if "by kind of row" in line)]
    assert max(map(len, table)) <= 80
    for axis in AXES:
        starts = (axis.title, f"All rows: {axis.title}: ")
        assert any(line.strip().startswith(starts) for line in table), axis
    row = next(line for line in table if line.strip().startswith("convolution, grad_weight"))
    # No name is folded into a second line.
    assert len(row.split()) >= 7


# The page


def drawn(page: Page) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, plot in page.drawn["figures"].items():
        for trace in plot["data"]:
            yield name, trace


def test_the_page_has_every_row_its_words_and_nothing_from_elsewhere() -> None:
    rows = made(300)
    page = Page(validation_page(rows, by_axis(rows), "my.csv", "some rows"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page.source)
    dots = [trace for name, trace in drawn(page) if name == "by-op" and trace["mode"] == "markers"]
    said = {
        text.split("</b>")[0].removeprefix("<b>"): (x, y, text, symbol)
        for trace in dots
        for x, y, text, symbol in zip(
            trace["x"],
            trace["y"],
            trace["hovertext"],
            trace["marker"]["symbol"],
            strict=True,
        )
    }
    assert len(said) == 300
    for row in rows:
        measured, predicted, text, symbol = said[row.id]
        assert measured == pytest.approx(row.measured_s, rel=1e-3)
        assert predicted == pytest.approx(row.predicted_s, rel=1e-3)
        assert symbol.endswith("-open") != row.device_seen
        for word in (row.device, row.library, row.op, row.passes, "3 x &lt;b&gt;224&lt;/b&gt;"):
            assert word in text
    lines = [t for n, t in drawn(page) if n == "by-op" and t["mode"] == "lines"]
    ratios = sorted(line["y"][0] / line["x"][0] for line in lines)
    assert ratios == pytest.approx([0.5, 0.8, 1, 1.25, 2])
    sizes = page.tables["errors-by-kind"]
    assert [line[0] for line in sizes[1:]] == ["network", "layer", "every row"]
    assert sum(int(line[1]) for line in sizes[1:-1]) == int(sizes[-1][1]) == 300


def test_of_too_many_rows_some_are_drawn_and_the_page_says_which() -> None:
    rows = made(1) * 20_000 + [replace(row, device="rare", cards=4) for row in made(1)]
    rows = [replace(row, id=str(index)) for index, row in enumerate(rows)]
    dots, every = figures.dots_of(rows)
    assert every == 2
    assert len(dots) == 10_001
    assert [row.device for row in dots].count("rare") == 1
    assert figures.dots_of(rows[:20_000]) == (tuple(rows[:20_000]), 1)
    page = Page(validation_page(rows, by_axis(rows), "my.csv", "x"))
    assert "10,001 of 20,001 rows are drawn: one in 2" in "".join(page.words)
    assert page.tables["errors-by-cards"][-1][1] == "20,001"
    assert page.size < 20e6


def test_bars_hold_every_row_and_intervals_of_all_levels_hold_what_they_promise() -> None:
    rows = made(4000, spread=0.3)
    bars = figures.residuals({"all": rows, "few": rows[:3]}).to_dict()["data"]
    for trace in bars:
        assert sum(trace["y"]) == pytest.approx(100)
    far = replace(rows[0], measured_s=1e-9)
    assert len(figures.residuals({"far": [far]}).to_dict()["data"][0]["x"]) == 1
    promised, held = figures.coverage({"all": rows}).to_dict()["data"]
    assert list(promised["x"]) == list(promised["y"]) == [0, 100]
    # What the rows were made with is what their intervals say.
    assert np.abs(np.subtract(held["x"], held["y"])).max() < 3
    at_90 = list(held["x"]).index(90)
    assert held["y"][at_90] == pytest.approx(100 * np.mean([row.covered for row in rows]), abs=0.1)
    surer = [replace(r, low_s=r.predicted_s / 1.01, high_s=r.predicted_s * 1.01) for r in rows]
    assert figures.coverage({"all": surer}).to_dict()["data"][1]["y"][at_90] < 10


def test_a_blind_table_has_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (files("alexsim_profiles") / "measurements" / "published.csv").read_text("utf-8")
    rows = list(csv.DictReader(source.splitlines()))[:3]
    blind = tmp_path / "blind.csv"
    with blind.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, [n for n in rows[0] if n != "value"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    page = tmp_path / "page.html"
    assert run("--measurements", str(blind), "--html", str(page)) == 2
    assert "has no row with a value that can be predicted" in capsys.readouterr().err
    assert not page.exists()


def test_lines_are_written_as_they_are_made_and_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    write_lines(path, (f"{n}\n" for n in range(3)))
    assert path.read_text() == "0\n1\n2\n"

    def broken() -> Iterator[str]:
        yield "begun\n"
        # The file's own name still has what was there.
        assert path.read_text() == "0\n1\n2\n"
        raise AlexsimError("no more")

    with pytest.raises(AlexsimError, match="no more"):
        write_lines(path, broken())
    assert path.read_text() == "0\n1\n2\n"
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]

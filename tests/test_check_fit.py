"""``check fit`` on kernels whose times are known: it learns what they were made with."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from kernel_table import CONVOLUTION, PRODUCT, entry_of, row_of, timed, write_table

from alexsim.cli.app import main
from alexsim.costs.correction import Correction
from alexsim.fidelity import fitting
from alexsim.fidelity.boosting import Growth
from alexsim.fidelity.fit_files import correction_bytes
from alexsim.fidelity.kernel_calls import call_of
from alexsim.fidelity.kernel_fit import predicted_s
from alexsim.fidelity.kernel_rows import read_kernels
from alexsim.fidelity.row_files import read_rows
from alexsim.fidelity.validation import cases

FACTORS = {"IMPLICIT_GEMM": 1.3, "FFT": 2.0, "WINOGRAD": 3.0}
DEVICES = ("Tesla P100", "Tesla T4", "Tesla K80")
GROWTH = Growth(trees=80, depth=3, rate=0.2, features=0.6)


def kernels(count: int = 400) -> list[dict[str, str]]:
    """Convolutions, each its mechanism's time by its algorithm's factor, and some products."""
    random = np.random.default_rng(5)
    entries = []
    for index in range(count):
        algorithm = list(FACTORS)[index % 3]
        source = ("a/b", "c/d")[index % 2]
        device = DEVICES[int(random.integers(3))]
        sides = {name: str(2 ** int(random.integers(3, 8))) for name in ("batch", "in_channels")}
        if index % 10 == 9:
            row = row_of(PRODUCT, id=f"p{index}", source=source, device=device, m=sides["batch"])
            entries.append(timed(row, 1.5))
            continue
        edge = str(int(random.integers(8, 60)))
        row = row_of(
            CONVOLUTION, id=f"c{index}", source=source, device=device, algorithm=algorithm,
            height=edge, width=edge, **sides,
        )  # fmt: skip
        entries.append(timed(row, FACTORS[algorithm]))
    return entries


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("tables")
    table = write_table(root / "kernels.csv.gz", kernels())
    published = files("alexsim_profiles") / "measurements" / "published.csv"
    header, *rows = csv.reader(published.read_text("utf-8").splitlines())
    layers = [row for row in rows if row[3] and row[11] == "fwd"][::60]
    with (root / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *layers])
    return table, root / "rows.csv"


def fitted(tables: tuple[Path, Path], scopes: tuple[str, ...] = ()) -> Correction:
    taught, _ = cases(read_rows(str(tables[1])))
    rows = read_kernels(str(tables[0]))
    return fitting.fit_everything(rows, taught, {"k": "0"}, growth=GROWTH, scopes=scopes)


@pytest.fixture(scope="module")
def whole(tables: tuple[Path, Path]) -> Correction:
    return fitted(tables, ("rows", "device", "source", "library"))


def test_it_learns_the_factor_of_each_algorithm(whole: Correction) -> None:
    entries = kernels()
    rows = [row_of(entry_of(e)) for e in entries]
    calls = [call_of(row) for row in rows]
    ratios = predicted_s(calls, whole) / [float(e["time_s"]) for e in entries]
    assert np.median(np.abs(np.log(ratios))) < 0.1
    for algorithm, factor in FACTORS.items():
        chosen = [c for c, row in zip(calls, rows, strict=True) if row.algorithm == algorithm]
        plain = np.array([c.base_s for c in chosen])
        assert np.median(predicted_s(chosen, whole) / plain) == pytest.approx(factor, rel=0.15)


def test_the_card_says_what_taught_and_how_far_off_it_is_where_not(whole: Correction) -> None:
    card = whole.card
    assert card.kernel_sources["a/b"] + card.kernel_sources["c/d"] == 400
    assert card.devices["Tesla T4"] > 50
    assert "GTX 580" not in card.devices
    seen = {(c.unit, c.device_seen, c.library_seen) for c in card.classes}
    assert {("convolution", d, s) for d in (True, False) for s in (True, False)} <= seen
    assert {line.left_out for line in card.left_out} >= {"rows", "device", "source"}
    for line in card.left_out:
        assert line.rows > 0
        assert 0 <= line.coverage <= 1
        if line.what == "convolutions":
            # Timers and cards differ in nothing here: a fit without one knows the factor.
            assert line.median < 0.25 < line.mechanism_median
    by_seen = {(c.device_seen, c.library_seen): c for c in card.classes if c.unit == "convolution"}
    assert by_seen[False, False].noise >= by_seen[True, True].noise


def test_equal_files_give_equal_bits_and_fewer_kernels_others(
    tables: tuple[Path, Path], whole: Correction, tmp_path: Path
) -> None:
    again = fitted(tables)
    assert correction_bytes(again)[0] == correction_bytes(whole)[0]
    fewer = write_table(tmp_path / "fewer.csv", kernels()[:300])
    assert correction_bytes(fitted((fewer, tables[1])))[0] != correction_bytes(whole)[0]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    small = partial(fitting.fit_everything, growth=GROWTH)
    monkeypatch.setattr("alexsim.fidelity.fitting.fit_everything", small)

    def line(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return line


def test_the_command_writes_both_files_and_names_what_cannot_teach(
    tables: tuple[Path, Path], run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    table, rows = tables
    given = ("check", "fit", "--kernels", table, "--networks", rows, "-o", tmp_path / "fit")
    code, _, err = run(*given, "--no-leave-out")
    assert code == 0, err
    card = json.loads((tmp_path / "fit" / "fit.json").read_text("utf-8"))
    assert set(card["data"]) == {"kernels.csv.gz", "rows.csv"}
    assert all(len(digest) == 64 for digest in card["data"].values())
    assert card["classes"] == card["left_out"] == []
    with np.load(tmp_path / "fit" / "fit.npz", allow_pickle=False) as stored:
        assert len(stored["traits"]) == len(stored["coefficients"])
    (tmp_path / "file").touch()
    code, _, err = run(*given[:-1], tmp_path / "file" / "fit")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot write" in err
    code, _, err = run("check", "fit", "--kernels", rows, "--networks", rows, "-o", tmp_path / "x")
    assert (code, err.count("\n")) == (2, 1)
    assert "lacks the column" in err


def test_a_table_of_kernels_is_judged_by_group_in_every_form(
    tables: tuple[Path, Path], run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    given = ("check", "validate", "--measurements", tables[0])
    code, said, err = run(*given, "--quick", "--json", "-o", tmp_path / "k.csv",
                         "--html", tmp_path / "k.html")  # fmt: skip
    assert code == 0, err
    document = json.loads(said)
    assert document["sample"]["of"] == 400
    written = list(csv.DictReader((tmp_path / "k.csv").read_text("utf-8").splitlines()))
    assert len(written) == document["sample"]["rows"]
    assert "<html" in (tmp_path / "k.html").read_text("utf-8")
    every = document["by_axis"][0]
    assert every["plain"]["rows"] == len(written)
    blind = [{**entry, "time_s": ""} for entry in kernels(20)]
    path, out = write_table(tmp_path / "b.csv", blind), tmp_path / "b-out.csv"
    code, _, err = run("check", "validate", "--measurements", path, "-o", out)
    assert code == 0, err
    lines = list(csv.DictReader(out.read_text("utf-8").splitlines()))
    assert len(lines) == 20

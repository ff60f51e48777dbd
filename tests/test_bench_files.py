"""What ``check bench compare`` writes for others: order by change, Markdown, JUnit, the action."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from commands import here
from rich.console import Console

from alexsim.bench import store
from alexsim.bench.verdicts import Baseline, BenchRun, Host, Timed, Verdict, by_change
from alexsim.profile.step_profile import Ratio
from alexsim.report.bench import bench_tables, difference_lines, percent, verdict_tables
from alexsim.report.bench_files import junit, markdown

ROOT = Path(__file__).parents[1]
GATES = (ROOT / "docs" / "gates.md").read_text("utf-8")
HOST = Host(cpu="a", cores=2, python="3", torch="2", commit="c", date="2026-01-01")
RUN = BenchRun(network="n", host=HOST, counted={}, timed=(), left_out={"kernels": "--no-kernels"})


def verdict(name: str, status: str, before: object = None, after: object = None) -> Verdict:
    return Verdict(name=name, status=status, before=before, after=after)


def timed(name: str, status: str, median: float) -> Verdict:
    change = Ratio(median=median, low=0.9 * median, high=1.1 * median, pairs=15)
    return replace(verdict(name, status, 1.0, median), change=change)


ALL = (
    verdict("flop", "same", 10, 10),
    verdict("bytes", "changed", 100, 90),
    verdict("spills", "changed", "registers 9, spills 0", "registers 9, spills 4"),
    verdict("plan/digest", "changed", "0123456789012345", "9876543210987654"),
    verdict("more", "new", None, 1),
    verdict("gone", "missing", 2, None),
    timed("step", "slower", 1.5),
    timed("plan", "faster", 0.8),
    timed("data", "ok", 1.01),
    verdict("pool", "no baseline", None, 2.0),
    verdict("norm", "no number", 1.0, math.nan),
)
SORTED = ["spills", "step", "plan", "bytes", "data", "flop"]


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        (1108, 1177, 69 / 1108),
        ("0.5", "0.25", -0.5),  # simulated seconds are texts
        ("1e-3", "2e-3", 1.0),
        ("2048 + 0 + 2048, elementwise 32", "2048 + 0 + 2048, elementwise 24", -0.25),
        ("registers 64, shared 0, spills 0", "registers 64, shared 8, spills 0", math.inf),
        ("registers 64, shared 0, spills 0", "registers 64, shared 0", None),
        ("conv1 a", "conv2 a", None),  # a digit of a name is no figure
        (None, 3, None),
        (3, None, None),
        (1.0, math.nan, None),
    ],
)
def test_a_relative_change_is_of_the_number_that_changed_most(
    before: object, after: object, change: float | None
) -> None:
    assert verdict("x", "changed", before, after).relative_change == pytest.approx(change)


def test_the_largest_relative_change_comes_first() -> None:
    named = [v.name for v in by_change(ALL)]
    assert named[: len(SORTED)] == SORTED
    assert set(named[len(SORTED) :]) == {"plan/digest", "more", "gone", "pool", "norm"}
    lines = difference_lines(ALL)
    assert lines[0].strip() == (
        "anew  changed: spills: registers 9, spills 0 -> registers 9, spills 4"
    )
    assert [line.split(": ")[1] for line in lines[:4]] == ["spills", "step", "plan", "bytes"]


def test_percents_are_short_and_say_how_much() -> None:
    shown = [percent(change) for change in (0.062, -0.5, 0.0, 0.0004, -2e-9, math.inf, None)]
    assert shown == ["+6.2 %", "-50.0 %", "+0.0 %", "+0.040 %", "-0.00000020 %", "anew", ""]


def test_markdown_has_the_verdict_first_and_then_rows_by_change() -> None:
    lines = markdown(RUN, ALL, tolerance=0.05).splitlines()
    assert lines[0] == "**alexsim gate failed** for `n`: 7 of 10 figures"
    rows = [re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in lines if line.startswith("|")]
    assert rows[0] == ["change", "figure", "baseline", "now", "verdict"]
    assert [row[1].strip("`") for row in rows[2:7]] == SORTED[:-1]
    assert rows[3] == ["+50.0 % (+35.0 to +65.0)", "`step`", "`1.000`", "`1.500`", "**slower**"]
    assert {len(row) for row in rows} == {5}
    assert "`flop`" not in "\n".join(lines)
    assert "1 of 6 counted figures are the same" in lines[-1]
    assert "left out: kernels (--no-kernels)" in lines[-1]
    passed = markdown(RUN, ALL[:1], tolerance=0.05)
    assert passed.startswith("**alexsim gate passed** for `n`: 1 figures\n")
    assert "|" not in passed


def test_names_in_markdown_are_no_markup() -> None:
    names = ["a|b", "`c`", "<img src=x>", "@someone", "two\nlines", "# x", "x" * 5000]
    rows = [verdict(name, "new", None, "v|`w`") for name in names * 40]
    text = markdown(RUN, rows, tolerance=0.05)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 60 + 1
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}
    assert "and 220 more" in table[-1]
    assert len(text) < 65_536  # what a comment may have
    for line in table[2:-1]:
        # Whatever is outside a code span is ours.
        outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)
        assert re.fullmatch(r"\|  \|  \|  \|  \| \*\*new\*\* \|", outside), line


def test_junit_has_a_case_for_each_figure() -> None:
    odd = replace(RUN, network="n\x00\udc80<&>")
    names = (verdict("bell\x07 \udcff <a&b>", "changed", "\x01", "\x02"),)
    root = Xml.fromstring(junit(odd, (*ALL, *names)).encode())  # refuses what is no XML
    (suite,) = root
    for element in (root, suite):
        counts = [element.get(key) for key in ("tests", "failures", "errors", "skipped")]
        assert counts == ["12", "8", "0", "1"]
    assert suite.get("name") == "n\\x00\\udc80<&>"
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    assert len(cases) == 12
    assert "bell\\x07 \\udcff <a&b>" in cases
    failed = {name for name, case in cases.items() if case.find("failure") is not None}
    assert failed == {v.name for v in ALL if v.fails} | {"bell\\x07 \\udcff <a&b>"}
    failure = cases["bytes"].find("failure")
    assert failure is not None
    assert failure.get("message") == "changed -10.0 %: expected 100, got 90"
    assert failure.text == "expected: 100\ngiven: 90\nchange: -10.0 %\n"
    assert cases["pool"].find("skipped") is not None
    assert {case.get("classname", "").rpartition(".")[2] for case in cases.values()} == {
        "counted",
        "timed",
    }


@pytest.fixture
def own(tmp_path: Path) -> list[str]:
    """A network whose baseline says one bias more; words of a comparison with it."""
    (source,) = re.findall(r"```python\n(# mine\.py\n.*?)```", GATES, flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(source)
    words = ["--net", f"{tmp_path / 'mine.py'}:net", "--baseline", str(tmp_path / "mine.json")]
    words += ["--only", "counted", "--no-kernels"]
    assert here("check", "bench", "update", *words).returncode == 0
    kept = json.loads((tmp_path / "mine.json").read_text())
    kept["counted"]["parameters"] += 1
    (tmp_path / "mine.json").write_text(json.dumps(kept))
    return words


def test_compare_writes_both_whole_and_fails_for_what_it_is_asked_to(
    own: list[str], tmp_path: Path
) -> None:
    table, report = tmp_path / "gate.md", tmp_path / "gate.xml"
    ran = here("check", "bench", "compare", *own, "--markdown", table, "--junit", report)
    assert ran.returncode == 4
    assert "changed: parameters" in ran.stdout
    assert table.read_text().startswith("**alexsim gate failed** for ")
    assert Xml.fromstring(report.read_text()).get("failures") == "1"
    asked = here("check", "bench", "compare", *own, "--markdown", "-", "--fail-on", "nothing")
    assert asked.returncode == 0
    assert asked.stdout == table.read_text()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "gate.md",
        "gate.xml",
        "mine.json",
        "mine.py",
    ]


def test_where_nothing_can_be_written_nothing_is_measured(own: list[str], tmp_path: Path) -> None:
    baseline = (tmp_path / "mine.json").read_bytes()
    for more, says in (
        (["--junit", tmp_path / "no" / "x.xml"], "there is no folder"),
        (["--markdown", tmp_path], "it is a folder"),
        (["--junit", tmp_path / "mine.json"], "--baseline are one file"),
    ):
        ran = here("check", "bench", "compare", *own, *more)
        assert ran.returncode == 2
        assert says in ran.stderr
        assert not ran.stdout
    assert (tmp_path / "mine.json").read_bytes() == baseline


def test_an_update_that_finds_the_same_changes_no_byte(tmp_path: Path) -> None:
    figures = {"b": 1, "a": 2, "batch size": 128}
    before = Baseline(network="n", host=HOST, counted=figures, machines={})
    later = replace(HOST, date="2027-01-01", commit="d", cpu="b")
    run = BenchRun(network="n", host=later, counted=dict(reversed(figures.items())), timed=())
    assert json.dumps(store.document(store.updated(before, [run]))) == json.dumps(
        store.document(before)
    )
    more = replace(run, counted=figures | {"a": 3})
    changed = store.updated(before, [more])
    assert (changed.host, changed.counted["a"]) == (later, 3)
    assert list(store.document(changed)["counted"]) == ["a", "b", "batch size"]


def test_a_baseline_says_of_how_many_images_it_is(tmp_path: Path) -> None:
    words = ["--net", "lenet-5", "--baseline", tmp_path / "b.json", "--only", "counted"]
    words.append("--no-kernels")
    assert here("check", "bench", "update", *words).returncode == 0
    document = json.loads((tmp_path / "b.json").read_text())
    assert document["counted"]["batch size"] == 128
    document["counted"]["batch size"] = 32
    (tmp_path / "b.json").write_text(json.dumps(document))
    compared = json.loads(here("check", "bench", "compare", *words, "--json").stdout)
    # It is counted at 32 images, and so all that depends on them is other.
    differ = {v["name"] for v in compared["verdicts"] if v["fails"]}
    assert "batch size" not in differ
    assert "parameters" not in differ
    assert "memory/reuse/gpu0" in differ
    assert here("check", "bench", "update", *words).returncode == 0
    assert here("check", "bench", "compare", *words).returncode == 0
    assert json.loads((tmp_path / "b.json").read_text())["counted"]["batch size"] == 32


def scripts() -> list[str]:
    """What the action runs in a shell."""
    text = (ROOT / ".github" / "actions" / "gate" / "action.yml").read_text("utf-8")
    found = re.findall(r"      run: \|\n((?:        .*\n|\n)+)", text)
    return [textwrap.dedent(script) for script in found]


@pytest.mark.parametrize(("fail_on", "code"), [("any", 4), ("timed", 2), ("nothing", 0)])
def test_the_action_compares_and_says_where_the_files_are(
    own: list[str], tmp_path: Path, fail_on: str, code: int
) -> None:
    _, compare = scripts()
    assert "${{" not in compare  # what is given is never a part of a script
    command = tmp_path / "bin" / "alexsim"
    command.parent.mkdir()
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom alexsim.cli.app import main\nmain(sys.argv[1:])\n"
    )
    command.chmod(0o755)
    summary, outputs = tmp_path / "summary", tmp_path / "outputs"
    given = {
        "NETWORK": own[1], "BASELINE": own[3], "FAIL_ON": fail_on,
        "OPTIONS": "--no-kernels --only counted", "RUNNER_TEMP": str(tmp_path),
        "GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(summary),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    ran = subprocess.run(
        [shutil.which("bash") or "", "--noprofile", "--norc", "-eo", "pipefail", "-c", compare],
        env=os.environ | given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    if code == 2:
        assert "--fail-on timed judges nothing with --only counted" in ran.stderr
        assert not summary.exists()
        assert not outputs.exists()
        return
    assert summary.read_text().startswith("**alexsim gate failed** for ")
    files = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    assert set(files) == {"markdown", "junit"}
    assert Path(files["markdown"]).read_text() == summary.read_text()
    assert Xml.parse(files["junit"]).getroot().get("failures") == "1"


def test_the_action_takes_all_lines_of_options_and_names_no_file_that_is_not_there(
    tmp_path: Path,
) -> None:
    _, compare = scripts()
    command, words = tmp_path / "bin" / "alexsim", tmp_path / "words"
    command.parent.mkdir()
    bash = [shutil.which("bash") or "", "--noprofile", "--norc", "-eo", "pipefail", "-c", compare]
    given = {
        "NETWORK": "mine.py:net", "BASELINE": "mine.json", "FAIL_ON": "any",
        "OPTIONS": "--no-kernels\n--only counted\n\n--tolerance 10\n", "WORDS": str(words),
        "RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    # A stub of `compare`: it notes its words and writes the files that it is told to write.
    stub = """#!/bin/bash
printf '%s\\n' "$@" >"$WORDS"
while [ $# -gt 0 ]; do
  case $1 in --markdown | --junit) [[ "$WRITES" != *"$1"* ]] || echo table >"$2" ;; esac
  shift
done
exit "$CODE"
"""
    command.write_text(stub)
    command.chmod(0o755)
    for writes, code, named in (
        ("", 2, []),
        ("--junit", 4, ["junit"]),
        ("--markdown --junit", 4, ["markdown", "junit"]),
        ("--markdown --junit", 0, ["markdown", "junit"]),
    ):
        outputs = tmp_path / "outputs"
        outputs.write_text("")
        environment = os.environ | given | {
            "WRITES": writes, "CODE": str(code), "GITHUB_OUTPUT": str(outputs)
        }  # fmt: skip
        ran = subprocess.run(bash, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == code, ran.stderr
        lines = [line.split("=", 1) for line in outputs.read_text().splitlines()]
        assert [name for name, _ in lines] == named
        assert all(Path(path).is_file() for _, path in lines)
    options = words.read_text().splitlines()[-5:]
    assert options == ["--no-kernels", "--only", "counted", "--tolerance", "10"]


LONG = (
    Timed(
        name="native fully connected", ours="a_layer.with.a.long/name, all passes",
        reference="torch.nn, autograd", ours_s=12.3456, reference_s=1.2345,
        ratio=Ratio(median=126.325, low=125.828, high=127.196, pairs=61),
    ),
)  # fmt: skip


def test_tables_at_80_columns_cut_nothing() -> None:
    grown = Ratio(median=12.0, low=11.5, high=13.5, pairs=61)
    (case,) = LONG
    judged = Verdict(
        name=case.name, status="no baseline", before=100.5, after=126.325, change=grown
    )
    run = replace(RUN, timed=LONG)
    for table, width, figures, words in (
        (
            bench_tables(run),
            25,
            ("12345.6", "1234.5", "126.325", "125.828 to 127.196", "61"),
            (case.name, case.ours, case.reference),
        ),
        (
            verdict_tables(run, [judged], tolerance=0.05),
            14,
            ("+1100.0 %", "+1050.0 to +1250.0", "100.500", "126.325", "no baseline"),
            (case.name,),
        ),
    ):
        text = StringIO()
        Console(file=text, width=80).print(table)
        rows = text.getvalue().splitlines()
        assert max(map(len, rows)) <= 80
        assert "…" not in text.getvalue()
        (row,) = (row for row in rows if figures[0] in row)
        assert [figure for figure in figures if figure not in row] == []
        # Names may go on in the next line of their column, and lose nothing there.
        column = "".join(row[2 : 2 + width] for row in rows).replace(" ", "")
        assert [word for word in words if word.replace(" ", "") not in column] == []


def test_a_list_that_is_not_all_says_where_all_are() -> None:
    changed = [verdict(f"flop/{index}", "changed", 1, 2) for index in range(61)]
    text = StringIO()
    Console(file=text, width=80).print(verdict_tables(RUN, changed, tolerance=0.05))
    assert "and 41 more: --json or --junit has all" in text.getvalue()
    assert "and 1 more: `--json` or `--junit` has all" in markdown(RUN, changed, tolerance=0.05)


def test_the_page_names_the_inputs_that_the_action_has() -> None:
    action = (ROOT / ".github" / "actions" / "gate" / "action.yml").read_text("utf-8")
    inputs, _, rest = action.partition("outputs:\n")
    names = re.findall(r"^  ([\w-]+):\n", inputs.partition("inputs:\n")[2], flags=re.MULTILINE)
    table = re.findall(r"^\| `([\w-]+)` \|", GATES, flags=re.MULTILINE)
    assert table == names
    workflow, timed_step = re.findall(r"```yaml\n(.*?)```", GATES, flags=re.DOTALL)
    for text in (workflow, timed_step):
        given = text.partition("id: gate\n        with:\n")[2].partition("      - ")[0]
        assert set() < set(re.findall(r"^ +([\w-]+):", given, flags=re.MULTILINE)) < set(names)
    assert "options: --only counted --no-kernels\n" in workflow
    for output in re.findall(r"steps\.gate\.outputs\.(\w+)", workflow):
        assert f"  {output}:\n    description" in rest

"""The command for a card: parts in their boxes, whatever becomes of them, and what is kept."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from alexsim_kernels import tables
from alexsim_kernels.bench.card import children, packages
from alexsim_kernels.bench.card.command import main
from alexsim_kernels.bench.card.part import document_of
from alexsim_kernels.bench.card.parts import PARTS, Part, chosen
from alexsim_kernels.bench.card.results import CARD, LOG, ROWS, TABLE, TUNED, Entry
from alexsim_kernels.bench.card.runner import Outcome, box_s
from alexsim_kernels.bench.card.table import all_rows, summary
from alexsim_kernels.bench.row import Row, row_of

COMMAND = "alexsim_kernels.bench.card"
BEGIN = """
import os, signal, subprocess, sys, time
from alexsim_kernels.bench.row import Row
"""
GOOD = """
def rows(job):
    yield Row(op="copy", value=4.0, unit="TB/s", expected=4.8)
    yield Row(op="conv1", precision="fp32", batch=128, ours_ms=2.0, other="cudnn", other_ms=1.0,
              predicted_ms=1.0)
    yield Row(op="conv2", precision="fp32", batch=128, ours_ms=2.0, predicted_ms=4.0)
"""
EXITS = """
def rows(job):
    yield Row(op="x")
    print("why", file=sys.stderr)
    os._exit(3)
"""
READS = """
def rows(job):
    for at in range(10**9):
        detail = {"power_w": 300.0 + at % 2, "card": 0, "throttle": ["power cap"][: at % 2]}
        yield Row(op="telemetry", detail=detail)
        time.sleep(0.02)
"""
HANGS = """
def rows(job):
    left = subprocess.Popen(["/bin/sleep", "100"], env={})
    gone = subprocess.Popen(["sleep", "100"], start_new_session=True)
    yield Row(op="pids", detail={"pids": [os.getpid(), left.pid, gone.pid]})
    time.sleep(100)
"""


@dataclass(frozen=True)
class Ran:
    """What a run of the command left."""

    code: int
    out: str
    folder: Path

    @property
    def document(self) -> dict[str, Any]:
        return json.loads((self.folder / "card.json").read_text())

    @property
    def table(self) -> list[str]:
        """Lines of the last thing that is printed."""
        return self.out.rpartition("\n\n")[2].splitlines()

    def rows(self, part: str) -> list[Row]:
        lines = map(json.loads, (self.folder / "rows.jsonl").read_text().splitlines())
        return [row_of(line) for line in lines if line["part"] == part]

    def part(self, name: str) -> dict[str, Any]:
        (told,) = (each for each in self.document["parts"] if each["part"] == name)
        return told


Run = Callable[..., Ran]


@pytest.fixture
def card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs parts of these sources, of equal shares, in this order."""
    paths = (str(tmp_path / "parts"), str(Path(__file__).parents[1] / "kernels"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(children, "GRACE_S", 0.5)
    monkeypatch.setattr(packages, "checkout", lambda: None)
    (tmp_path / "parts").mkdir()

    def run(
        *options: str,
        minutes: float = 1.0,
        rehearse: bool = True,
        out: Path | None = None,
        beside: tuple[str, ...] = (),
        needs: dict[str, tuple[str, ...]] | None = None,
        **sources: str,
    ) -> Ran:
        for name, source in sources.items():
            (tmp_path / "parts" / f"{name}.py").write_text(BEGIN + source)
        parts = [
            Part(
                letter=chr(97 + at), name=name, module=name, share=10, beside=name in beside,
                needs=(needs or {}).get(name, ()),
            )
            for at, name in enumerate(sources)
            if name != "probe"
        ]  # fmt: skip
        folder = out or tmp_path / "out"
        more = ["--rehearse"] if rehearse else []
        probe = Part(letter="", name="card", module="probe", needs=(), beside=True)
        code = main(
            ["--out", str(folder), "--minutes", str(minutes), *more, *options],
            parts=parts, probe=probe,
        )  # fmt: skip
        return Ran(code=code, out=capsys.readouterr().out, folder=folder)

    return run


def gone(pid: int) -> bool:
    """Whether a process has ended, or is about to."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_rows_are_kept_and_the_table_is_last(card: Run) -> None:
    ran = card(first=GOOD, second=GOOD)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "rehearsal, at most 1 minutes: a first 30 s, b second 30 s"
    assert ran.table[0] == "nothing failed"
    assert max(len(line) for line in lines if str(ran.folder) not in line) <= 100
    assert [row.op for row in ran.rows("second")] == ["copy", "conv1", "conv2"]
    document = ran.document
    assert [row_of(row) for row in document["rows"]] == ran.rows("first") + ran.rows("second")
    assert (document["failed"], document["rehearse"]) == ([], True)
    assert [part["rows"] for part in document["parts"]] == [3, 3]
    assert sorted(path.name for path in ran.folder.iterdir()) == [
        "card.json", "log.txt", "rows.jsonl", "table.txt"
    ]  # fmt: skip
    assert (ran.folder / "table.txt").read_text().startswith("nothing failed\n")
    # Twice as long as predicted, and half: 1 on the geometric mean.
    assert (
        "  measured over predicted: 1.00 (2 rows), 0.50 conv2 fp32 128, 2.00 conv1 fp32 128"
        in ran.table
    )
    assert "s left  second: conv1 fp32 128  2.000 ms cudnn 1.000 0.50 x predicted 1.000" in ran.out


def test_a_broken_part_stops_no_other(card: Run) -> None:
    ran = card(
        imports="import no_such_module\n",
        breaks=GOOD + '    raise ValueError("broken\\non purpose")\n',
        exits=EXITS,
        says_nothing="def rows(job):\n    return iter(())\n",
        good=GOOD,
    )
    assert ran.code == 1
    assert ran.table[:5] == [
        "what failed (4):",
        "  a imports: ModuleNotFoundError: No module named 'no_such_module'",
        "  b breaks: ValueError: broken",
        "  c exits: ended with exit code 3; last: why",
        "  d says_nothing: no rows",
    ]
    assert ran.part("breaks")["rows"] == 3
    assert ran.rows("breaks")[-1] == Row(op="breaks", failed="ValueError: broken")
    assert not ran.part("good")["failed"]
    log = (ran.folder / "log.txt").read_text()
    assert "breaks: Traceback (most recent call last)" in log
    assert "breaks: on purpose" in log


def test_a_part_that_dies_of_a_signal_says_which(card: Run) -> None:
    dies = "def rows(job):\n    yield Row(op='x')\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    ran = card(dies=dies, good=GOOD)
    assert ran.code == 1
    assert ran.table[1] == "  a dies: died of SIGSEGV"
    assert "dies: Fatal Python error: Segmentation fault" in (ran.folder / "log.txt").read_text()
    assert (ran.part("dies")["rows"], ran.part("good")["rows"]) == (1, 3)


@pytest.mark.parametrize("stubborn", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"])
def test_a_box_ends_with_all_that_was_begun_in_it(card: Run, stubborn: str) -> None:
    began = time.monotonic()
    ran = card(hangs=stubborn + HANGS, good=GOOD, minutes=0.05)
    assert time.monotonic() - began < 5
    (row,) = ran.rows("hangs")
    assert row.detail
    deadline = time.monotonic() + 2
    while not all(map(gone, row.detail["pids"])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(map(gone, row.detail["pids"]))
    # What it yielded is kept, and it has not failed; those after it have their time.
    assert ran.code == 0
    assert ran.part("hangs")["cut"]
    assert "a hangs: 1 row in 1 of 1 s; its box ended" in ran.table
    assert ran.part("good")["rows"] == 3


def test_imports_that_hang_end_too(card: Run) -> None:
    ran = card(hangs="time.sleep(100)\n", good=GOOD, minutes=0.02)
    assert ran.table[1] == "  a hangs: its imports did not end"
    assert ran.part("good")["rows"] == 3
    ran = card(out=ran.folder / "more", slow="def rows(job):\n    time.sleep(100)\n", minutes=0.01)
    assert ran.table[1] == "  a slow: no row in its box"


def test_time_that_is_not_used_is_handed_on(card: Run) -> None:
    box = "def rows(job):\n    yield Row(op='box', value=job.box_s)\n"
    ran = card(first=box, second=box, third=box)
    first, second, third = (ran.rows(name)[0].value or 0 for name in ("first", "second", "third"))
    assert 17 < first < 18.5
    assert 26 < second < 27.5
    assert 52 < third < 55
    parts = [Part(letter="", name=f"{share}", module="", share=share) for share in (10, 20, 30)]
    assert box_s(120, parts[0], parts[1:]) == 20
    assert box_s(100, parts[1], parts[2:]) == 40
    assert box_s(-1, parts[2], []) == 0


def test_the_next_part_imports_while_one_is_at_work(card: Run) -> None:
    first = "def rows(job):\n    time.sleep(0.7)\n    yield Row(op='x', value=time.time())\n"
    second = "began = time.time()\ndef rows(job):\n    yield Row(op='x', value=began)\n"
    ran = card(first=first, second=second)
    assert (ran.rows("second")[0].value or 0) < (ran.rows("first")[0].value or 0)


def test_parts_know_what_was_measured_before_them(card: Run) -> None:
    reads = "def rows(job):\n    yield from job.rows_of('first')\n    assert job.rehearse\n"
    ran = card(first=GOOD, second=reads)
    assert ran.rows("second") == ran.rows("first")


def test_what_is_read_beside_parts_is_told_of_each(card: Run) -> None:
    work = "def rows(job):\n    time.sleep(0.5)\n    yield Row(op='x')\n"
    says = "def rows(job):\n    yield Row(op='built', value=3, unit='kernels')\n"
    ran = card(first=work, second=work, reads=READS, says=says, beside=("reads", "says"))
    assert ran.code == 0
    told = r"  (first|second): 30[01] W \(300 to 301\), power cap \d+ of \d+"
    assert [match[1] for line in ran.table if (match := re.fullmatch(told, line))] == [
        "first", "second"
    ]  # fmt: skip
    assert "  built  3 kernels" in ran.table
    assert "telemetry" not in ran.out.partition("\n\n")[0]


def test_a_package_that_is_missing_leaves_its_part_out(card: Run) -> None:
    ran = card(needs={"first": ("no_such_package", "json")}, first=GOOD, second=GOOD)
    assert ran.code == 1
    (told,) = (line for line in ran.out.splitlines() if line.startswith("missing"))
    assert told.startswith("missing: no_such_package, so without first: pip download -d packages ")
    assert told.endswith(" no-such-package")
    assert ran.table[1] == "  a first: left out: no_such_package missing"
    assert ran.part("second")["box_s"] > 50
    with pytest.raises(SystemExit):
        card("--only", "first", out=ran.folder / "more", needs={"first": ("none_such",)}, first="")


def wheel(folder: Path, name: str, tags: str = "py3-none-any", text: str = "VALUE = 1\n") -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-{tags}.whl", "w") as archive:
        archive.writestr(f"{name}/__init__.py", text)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n")


def test_packages_lie_in_a_folder_beside(card: Run, tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    (folder / "unpacked_one").mkdir(parents=True)
    (folder / "unpacked_one" / "__init__.py").write_text("VALUE = 2\n")
    (folder / "empty_one").mkdir()
    wheel(folder, "wheel_one")
    wheel(folder, "json", text="raise ValueError('in place of what is installed')\n")
    wheel(folder, "other_one", "cp27-cp27m-win32")
    (folder / "broken_one-1.0-py3-none-any.whl").write_text("no archive")
    reads = (
        "import unpacked_one, wheel_one, json\n"
        "def rows(job):\n    yield Row(op='x', value=unpacked_one.VALUE + wheel_one.VALUE)\n"
    )
    needs = {"reads": ("unpacked_one", "wheel_one"), "other": ("other_one", "empty_one")}
    ran = card("--packages", str(folder), needs=needs, reads=reads, other=GOOD)
    assert ran.rows("reads")[0].value == 3
    assert ran.document["versions"]["wheel-one"] == "1.0"
    assert "other_one-1.0-cp27-cp27m-win32.whl is not for Python 3." in ran.out
    assert "broken_one-1.0-py3-none-any.whl cannot be unpacked: " in ran.out
    assert "missing: other_one, empty_one, so without other" in ran.out


def test_needs_are_read_without_importing(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "__init__.py").write_text("raise ImportError\n")
    (tmp_path / "top" / "part.py").write_text("import none_such\nNEEDS = ('none_such', 'json')\n")
    part = Part(letter="", name="x", module="top.part", needs=("top", "no_other"))
    assert packages.needs(part, [str(tmp_path)]) == ("top", "no_other", "none_such", "json")
    assert [*packages.missing(part, [str(tmp_path)])] == ["no_other", "none_such"]


def test_a_full_disk_stops_nothing(card: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("rows.jsonl", "log.txt"):
        (out / name).symlink_to("/dev/full")
    ran = card(first="print('noise')\n" + GOOD, out=out)
    assert ran.code == 0
    assert "  not written: log.txt: No space left on device" in [f"  {x}" for x in ran.table]
    # There was room after all for a file of its own.
    assert not (out / "rows.jsonl").is_symlink()
    assert ran.rows("first") == [row_of(row) for row in ran.document["rows"]]


SCRIPT = f"""
import resource, sys
from {COMMAND}.command import main
from {COMMAND}.parts import Part
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
sys.exit(main(parts=[Part(letter="a", name="first", module="first", share=1, needs=())]))
"""


def script(folder: Path, source: str, bytes_: int = -1) -> list[str]:
    """A command that runs a part of this source; files may have so many bytes."""
    (folder / "first.py").write_text(BEGIN + source)
    return [
        sys.executable, "-c", SCRIPT, str(bytes_), "--rehearse", "--out", str(folder / "out"),
    ]  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    paths = (str(tmp_path), str(Path(__file__).parents[1] / "kernels"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_files_that_may_not_grow_stop_nothing(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    many = "def rows(job):\n    for at in range(50):\n        yield Row(op=f'op{at}', value=at)\n"
    ran = subprocess.run(
        script(tmp_path, many, 600), env=elsewhere, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    for name in ("rows.jsonl", "card.json"):
        assert f"\nnot written: {name}: File too large\n" in ran.stdout
    # The output has all rows, as nothing else does; what is there of them is whole.
    assert all(f"\nfirst      op{at} " in ran.stdout for at in range(50))
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()[:-1]
    assert [json.loads(line)["op"] for line in lines] == [f"op{at}" for at in range(len(lines))]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"rows.jsonl", "log.txt"}


def test_a_folder_that_cannot_be_written_stops_nothing(card: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = card(first=GOOD, out=tmp_path / "file" / "out")
    assert ran.code == 0
    head, _, tail = ran.out.partition(" s left  first: ")
    for part in (head, tail):
        assert "not written: rows.jsonl: Not a directory\n" in part
    assert "\nfirst      conv2 " in tail


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_measured(card: Run, number: int, code: int) -> None:
    asks = HANGS.replace(
        "time.sleep(100)", f"os.kill(os.getppid(), {int(number)}); time.sleep(100)"
    )
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ran = card(first=GOOD, asks=asks, third=GOOD)
    assert ran.code == code
    assert ran.table[:3] == ["what failed (2):", "  b asks: interrupted", "  c third: not begun"]
    assert len(ran.rows("first")) == 3
    pids = ran.rows("asks")[0].detail["pids"]  # type: ignore[index]
    assert all(map(gone, pids))
    assert before == [
        signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    ]


def test_parts_end_with_a_command_that_is_killed(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    process = subprocess.Popen(
        script(tmp_path, HANGS), env=elsewhere, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    while "pids" not in (line := process.stdout.readline()):
        assert line
    process.kill()
    process.communicate()
    (row,) = map(json.loads, (tmp_path / "out" / "rows.jsonl").read_text().splitlines())
    deadline = time.monotonic() + 5
    while not all(map(gone, row["detail"]["pids"][:2])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(map(gone, row["detail"]["pids"][:2]))
    os.kill(row["detail"]["pids"][2], signal.SIGKILL)  # in a session of its own


def test_output_that_is_closed_stops_nothing(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    process = subprocess.Popen(
        script(tmp_path, GOOD), env=elsewhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr
    assert process.stderr.read() == b""
    process.stderr.close()
    assert len(json.loads((tmp_path / "out" / "card.json").read_text())["rows"]) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "the following arguments are required: --out"),
        (["--out", "OUT", "--minutes", "-1"], "--minutes must be a positive number, got -1"),
        (["--out", "OUT", "--minutes", "nan"], "--minutes must be a positive number, got nan"),
        (["--out", "OUT", "--minutes", "x"], "argument --minutes: invalid float value: 'x'"),
        (["--out", "OUT", "--only", "x", "steps"], "--only: no part 'x'; parts: ceilings (a), "),
        (["--out", "OUT", "--packages", "none"], "--packages none: there is no such folder"),
        (["--out", "FILE"], "is a file; it must be a folder, or new"),
        (["--out", "FULL"], "holds results (card.json); name another folder"),
        (["--out", "OUT", "--nosuch"], "unrecognized arguments: --nosuch"),
    ],
)
def test_mistakes_are_a_line(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE").write_text("")
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "card.json").write_text("{}")
    paths = [str(tmp_path / word) if word.isupper() else word for word in options]
    with pytest.raises(SystemExit) as end:
        main(paths)
    printed = capsys.readouterr()
    assert (end.value.code, printed.out) == (2, "")
    assert says in printed.err
    assert printed.err.startswith("alexsim_kernels: ")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "OUT").exists()


def test_a_row_that_is_not_a_number_has_failed(card: Run) -> None:
    ran = card(
        odd="def rows(job):\n"
        "    yield Row(op='a', value=float('nan'), detail={'deep': [1.0, float('inf')]})\n"
        "    yield Row(op='b', error=2e-3, limit=1e-3)\n"
        "    yield Row(op='c', error=float('nan'), limit=1e-3)\n"
        "    yield 3\n"
        "    yield Row(op='d', ours_ms='1', text='kept')\n"
        "    yield Row(op='e', detail={'set': {1}})\n"
        "    yield Row(op='f', error=1e-4, limit=1e-3)\n",
    )
    assert ran.code == 1
    assert ran.table[:7] == [
        "what failed (6):",
        "  odd: a: value is nan, detail.deep[1] is inf".replace(",", ";"),
        "  odd: b: error 2.0e-03, at most 1.0e-03",
        "  odd: c: error is nan",
        "  odd: row: a part yields rows, not a int",
        "  odd: d: ours_ms is a str",
        "  odd: e: Object of type set is not JSON serializable",
    ]
    assert [row.op for row in ran.rows("odd")] == ["a", "b", "c", "row", "d", "e", "f"]
    assert "WRONG: b  error 2e-03" in ran.out
    for name in ("rows.jsonl", "card.json"):
        assert not re.search("NaN|Infinity", (ran.folder / name).read_text())


def test_every_field_of_a_row_may_be_unset_or_set() -> None:
    for name, kind in Row.__annotations__.items():
        value: Any = {"float": 1.5, "int": 2, "str": "x"}.get(kind.partition(" ")[0], {"a": 1})
        row = Row(**{"op": "op", name: value})
        assert row_of(document_of(row)) == row


def test_what_one_says_without_end_is_cut(card: Run) -> None:
    says = "def rows(job):\n    yield Row(op='x')\n    print(('z' * 99 + '\\n') * 20000)\n"
    ran = card(says=says, breaks="raise ValueError\n")
    assert (ran.folder / "log.txt").stat().st_size < 2 << 20
    log = (ran.folder / "log.txt").read_text()
    assert log.count("(cut here)") == 1
    assert "breaks: ValueError\n" in log


def test_what_libraries_print_is_no_row(card: Run) -> None:
    prints = (
        "print('at import')\n"
        "def rows(job):\n"
        "    print('by Python')\n"
        "    os.write(1, b'by descriptor\\n')\n"
        "    subprocess.run(['echo', 'by a process'])\n"
        "    assert sys.stdin.read() == ''\n"
        "    yield Row(op='x')\n"
    )
    ran = card(prints=prints)
    assert ran.code == 0
    log = (ran.folder / "log.txt").read_text()
    for text in ("at import", "by Python", "by descriptor", "by a process"):
        assert f"prints: {text}\n" in log


TILES = """
def rows(job):
    yield Row(op="t", detail={"key": "right", "tile": {"BLOCK": 64}})
    yield Row(op="t", detail={"key": "wrong", "tile": {"BLOCK": 1}}, error=1.0, limit=0.1)
    yield Row(op="t", detail={"key": "other", "tile": {"BLOCK": 2}}, failed="1 of 9 was wrong")
    yield Row(op="t", text="another")
"""
LAYERS = """
def rows(job):
    yield Row(op="l", detail={"op_name": "conv1", "triton_ms": 1.0, "aten_ms": 2.0})
    yield Row(op="l", detail={"op_name": "conv2", "triton_ms": 1.0, "aten_ms": None})
"""
PROBE = """
def rows(job):
    yield Row(op="card", detail={"name": "NVIDIA X", "triton": "3.6.0"})
"""


def test_what_was_tuned_is_kept_for_the_card(card: Run, tmp_path: Path) -> None:
    parts = {"tiles": TILES, "layers": LAYERS}
    rehearsed = card(probe=PROBE, ceilings=PROBE, **parts)
    assert not tables.cache_file().exists()
    assert "a rehearsal's, kept nowhere else" in rehearsed.out
    ran = card(rehearse=False, probe=PROBE, out=tmp_path / "real", **parts)
    name = "NVIDIA X, triton 3.6.0"
    expected = {
        "tiles": {"right": {"BLOCK": 64}, "other": {"BLOCK": 2}},
        "ops": {"conv1": {"triton_ms": 1.0, "aten_ms": 2.0}},
    }
    for folder in (rehearsed.folder, ran.folder):
        assert json.loads((folder / "tuned.json").read_text()) == {name: expected}
    assert ran.document["card"] == name
    assert (tables.tiles(name), tables.ops(name)) == (expected["tiles"], expected["ops"])
    assert f"tuned.json: 2 tiles and 1 ops for {name!r}" in ran.out
    assert f"kept in {tables.cache_file()}" in "".join(ran.table)


def test_a_rehearsal_interprets_kernels_on_the_cpu(card: Run, tmp_path: Path) -> None:
    says = (
        "names = ('TRITON_INTERPRET', 'CUDA_VISIBLE_DEVICES')\n"
        "def rows(job):\n    yield Row(op='x', detail={n: os.environ.get(n) for n in names})\n"
    )
    (row,) = card(first=says).rows("first")
    assert row.detail == {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    (row,) = card(rehearse=False, probe=PROBE, first=says, out=tmp_path / "real").rows("first")
    assert row.detail == {"TRITON_INTERPRET": None, "CUDA_VISIBLE_DEVICES": None}


def test_without_a_card_it_is_one_line(
    card: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for probe, why in (
        ("def rows(job):\n    return iter(())\n", ""),
        ("raise OSError('no libcuda')\n", " (OSError: no libcuda)"),
    ):
        with pytest.raises(SystemExit) as end:
            card(rehearse=False, probe=probe, first=GOOD)
        assert end.value.code == 2
        expected = f"there is no CUDA card here{why}; --rehearse does all of it on a CPU\n"
        assert capsys.readouterr().err == f"alexsim_kernels: {expected}"
        assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_the_command_finds_that_there_is_none(tmp_path: Path, elsewhere: dict[str, str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", COMMAND, "--out", str(tmp_path / "out")],
        env=elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr.startswith("alexsim_kernels: there is no CUDA card here; --rehearse ")
    assert ran.stderr.count("\n") == 1


def test_the_command_is_of_the_standard_library() -> None:
    """Without the folder of installed packages."""
    kernels = Path(__file__).parents[1] / "kernels"
    script = f"import sys; sys.path.insert(0, {str(kernels)!r}); import {COMMAND}.command, sys"
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)


def test_parts_are_chosen_by_names_and_letters(card: Run) -> None:
    ran = card("--only", "b", "third", first=GOOD, second=GOOD, third=GOOD)
    assert [part["part"] for part in ran.document["parts"]] == ["second", "third"]
    assert chosen(["d"]) == [
        part for part in PARTS if part.name in ("ceilings", "steps") or part.beside
    ]
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
    assert math.fsum(part.share for part in PARTS) == 480


def test_three_hundred_rows_are_a_short_table() -> None:
    part = Part(letter="c", name="layers", module="", share=1)
    rows = [
        Row(
            op=f"conv{at} grad_weight", precision=precision, batch=128, error=1e-6 * at, limit=1e-3,
            ours_ms=1.0 + at, other="cudnn", other_ms=1.0, floor_ms=0.5, predicted_ms=1.0,
        )
        for at in range(75)
        for precision in ("fp32", "fp32x3", "tf32", "bf16")
    ]  # fmt: skip
    rows += [Row(op=f"broken{at}" + "x" * 200, failed="y" * 200) for at in range(100)]
    entries = [Entry(part="layers", row=row, at_s=1.0) for row in rows]
    outcomes = [Outcome(part=part, rows=400, box_s=10.0, took_s=10.0)] * 9
    text = summary(outcomes, entries, ["head"], ["tail"])
    assert len(text) < 12_000
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("what failed (100):\n")
    assert "  300 right, at most 0.07 of the error allowed: conv74 grad_weight fp32 128\n" in text
    assert "1.00 conv0 grad_weight" in text
    assert text.endswith("tail\n")
    assert len(all_rows(entries, outcomes).splitlines()) == 400


def test_the_page_has_every_part_option_and_file() -> None:
    page = (Path(__file__).parents[1] / "docs" / "gpu.md").read_text("utf-8")
    told = re.findall(r"^\| (\w?) ?\| `([\w-]+)` \| (\w+) \|", page, flags=re.MULTILINE)
    share = {part.name: f"{part.share:g}" if part.share else "beside" for part in PARTS}
    assert told == [(part.letter, part.name, share[part.name]) for part in PARTS]
    options = re.findall(r"^\| `(--\w+)", page, flags=re.MULTILINE)
    assert sorted(options) == ["--minutes", "--only", "--out", "--packages", "--rehearse"]
    files = re.findall(r"^\| `(\w+\.\w+)` \|", page, flags=re.MULTILINE)
    assert sorted(files) == sorted((ROWS, CARD, TUNED, TABLE, LOG))

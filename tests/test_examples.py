"""The examples run, and so does what the documentation says of modules."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alexsim.cli.app import main

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "pytorch.md"
COMMANDS = [
    line.removeprefix("alexsim ")
    for block in re.findall(r"```\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_page_answer(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(line)
    if arguments[0] == "profile":
        arguments += ["--rounds", "1", "--no-beside"]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out = capsys.readouterr().out
    assert not caught.value.code
    assert max(len(line) for line in out.splitlines()) <= 80


WALK = {
    command: lines.splitlines()
    for command, lines in re.findall(
        r"```\n\$ alexsim (.*?)\n(.*?)```",
        (ROOT / "docs" / "teaching.md").read_text("utf-8"),
        flags=re.DOTALL,
    )
}


def words(line: str) -> str:
    """A line of a table, however wide its columns are."""
    return " ".join(line.split())


@pytest.mark.parametrize("command", WALK)
def test_the_walk_through_the_paper_is_what_the_commands_answer(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(shlex.split(command))
    answered = [words(line) for line in capsys.readouterr().out.splitlines()]
    assert WALK[command]
    rest = iter(answered)
    missing = [line for line in WALK[command] if words(line) not in rest]
    assert missing == [], "in the page's order"


def test_the_figures_to_reuse_are_written(tmp_path: Path) -> None:
    script = ROOT / "examples" / "figures.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    shipped = {path.stem for path in (ROOT / "docs" / "figures").glob("*.svg")}
    assert {path.stem for path in tmp_path.glob("*.html")} == shipped
    assert len(shipped) == 4


def test_the_examples_answer_in_python() -> None:
    script = ROOT / "examples" / "questions.py"
    answer = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "24.30 GFLOP per image" in answer.stdout
    assert answer.stdout.count("\n") == 3

"""The progress of ``alexsim train`` on terminals of any width: lines stay whole."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexsim.cli.train_watch import TerminalWatch, fitting
from alexsim.train.settings import StepReport


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(step: int, steps: int) -> StepReport:
    return StepReport(
        step=step, steps=steps, loss=1234.567, top1=0.875, top5=0.5, step_s=0.0123,
        data_wait_s=0.001,
    )  # fmt: skip


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize("steps", [60, 450_000])
def test_no_line_is_longer_than_the_terminal(
    columns: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with TerminalWatch(quiet=False) as watch:
        for step in (1, 8, steps):
            watch.watcher().step(report(step, steps))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    assert all(len(line) <= columns for line in lines)
    last = [line for line in lines if line.startswith("Training")][-1]
    assert f"{steps}/{steps} 0:00:00 loss 1234.567" in last
    assert ("top-5 0.500" in last) == (columns > 80)
    assert any(re.match(rf"step +{steps}/{steps}  loss 1234\.567 .* images/s", x) for x in lines)


@given(st.lists(st.text("ab", min_size=1), min_size=1), st.integers(0, 60))
def test_what_fits_is_whole_and_as_much_as_fits(parts: list[str], width: int) -> None:
    line = fitting(width, *parts)
    shown = line.split("  ") if line else []
    assert shown == parts[: len(shown)]
    assert len(line) <= width
    if len(shown) < len(parts):
        assert len("  ".join(parts[: len(shown) + 1])) > width


def test_elsewhere_lines_say_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalWatch(quiet=False) as watch:
        watch.watcher().step(report(1, 60))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("% data  |  0.0 s")
    assert "ETA 0:00" in line

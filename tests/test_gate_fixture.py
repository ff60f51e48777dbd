"""The fixture ``alexsim_gate`` in other people's tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alexsim.bench import runner
from alexsim.bench.verdicts import Timed
from alexsim.editions.load import load_network
from alexsim.profile.step_profile import Ratio

pytest_plugins = ["pytester"]
GATES = (Path(__file__).parents[1] / "docs" / "gates.md").read_text("utf-8")


def block(title: str) -> str:
    """A file that the page shows."""
    (source,) = re.findall(rf"```python\n(# {re.escape(title)}\n.*?)```", GATES, flags=re.DOTALL)
    return source


@pytest.fixture
def theirs(pytester: pytest.Pytester) -> pytest.Pytester:
    """A repository as the page shows it."""
    pytester.makeini("[pytest]\nfilterwarnings = error")
    (pytester.path / "mine.py").write_text(block("mine.py"))
    (pytester.path / "tests").mkdir()
    (pytester.path / "tests" / "test_cost.py").write_text(block("tests/test_cost.py"))
    return pytester


def asked(theirs: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    load_network.cache_clear()
    return theirs.runpytest_inprocess("-p", "no:benchmark", "-p", "no:cacheprovider", *arguments)


def test_a_network_is_held_to_its_baseline(theirs: pytest.Pytester) -> None:
    none = asked(theirs)
    none.assert_outcomes(failed=1)
    none.stdout.fnmatch_lines(
        ["mine.py:net: there is no baseline tests/gates/mine-net-32.json; *--alexsim-update*"]
    )
    written = asked(theirs, "--alexsim-update")
    written.assert_outcomes(passed=1)
    written.stdout.fnmatch_lines(["alexsim: wrote tests/gates/mine-net-32.json"])
    path = theirs.path / "tests" / "gates" / "mine-net-32.json"
    before = path.read_bytes()
    baseline = json.loads(before)
    assert baseline["network"] == "mine.py:net"  # and not where it lies here
    assert baseline["counted"]["batch size"] == 32
    assert baseline["machines"] == {}
    assert str(theirs.path) not in before.decode()
    asked(theirs).assert_outcomes(passed=1)
    again = asked(theirs, "--alexsim-update")
    assert "wrote" not in again.stdout.str()
    assert path.read_bytes() == before

    source = theirs.path / "mine.py"
    source.write_text(source.read_text().replace("units=10", "units=11"))
    changed = asked(theirs)
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(
        [
            "mine.py:net differs from tests/gates/mine-net-32.json in * figures;*--alexsim-update",
            "*+*%  changed: parameters: * -> *",
        ]
    )
    # In CI pytest says it again, whole, in its summary.
    told, _, _ = changed.stdout.str().partition("short test summary")
    shares = re.findall(r"^ *([+-][\d.]+) %  changed", told, flags=re.MULTILINE)
    assert len(shares) > 5
    assert shares == sorted(shares, key=lambda share: -abs(float(share)))
    asked(theirs, "--alexsim-update").assert_outcomes(passed=1)
    lines = zip(before.decode().splitlines(), path.read_text().splitlines(), strict=True)
    differ = [old for old, new in lines if old != new]
    assert all(re.match(r' +"[^"]+": ', line) for line in differ)  # one figure a line
    asked(theirs).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ('alexsim_gate("gone.py:net")', "there is no file "),
        ('alexsim_gate("mine.py:nothing")', "has no Network and no torch.nn.Module"),
        ('alexsim_gate("mine.py:net", batch=0)', "batches must be at least 1, got 0"),
        (
            'alexsim_gate("mine.py:net", baseline="b.json")',
            "tests/b.json is a baseline of lenet-5: name another by baseline=",
        ),
        ('alexsim_gate("mine.py:net", baseline="broken.json")', "broken.json"),
    ],
)
def test_mistakes_fail_the_test_and_say_why(theirs: pytest.Pytester, call: str, says: str) -> None:
    tests = theirs.path / "tests"
    (tests / "test_cost.py").write_text(
        f"def test_it(alexsim_gate):\n    {call}\n\n\n"
        'def test_other(alexsim_gate):\n    alexsim_gate("lenet-5", baseline="b.json")\n'
    )
    (tests / "broken.json").write_text("{")
    (tests / "gates").mkdir()
    asked(theirs, "--alexsim-update", "-k", "other").assert_outcomes(passed=1, deselected=1)
    for more in ((), ("--alexsim-update",)):
        ran = asked(theirs, *more, "-k", "test_it")
        ran.assert_outcomes(failed=1, deselected=1)
        assert says in ran.stdout.str()
    asked(theirs, "-k", "other").assert_outcomes(passed=1, deselected=1)


def test_ratios_are_taken_where_they_are_asked_for(
    theirs: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[int] = []
    slower = [1.0]

    def timed(selection: runner.Selection, names: object, progress: object) -> tuple[Timed, ...]:
        asked_for.append(selection.batch_size)
        ratio = Ratio(median=slower[0], low=slower[0], high=slower[0], pairs=15)
        return (Timed(name="step", ours="", reference="", ratio=ratio, ours_s=1, reference_s=1),)

    monkeypatch.setattr(runner, "_timed", timed)
    asked(theirs, "--alexsim-update").assert_outcomes(passed=1)
    assert asked_for == []
    test = theirs.path / "tests" / "test_cost.py"
    test.write_text(test.read_text().replace("batch=32", "batch=32, timed_batch=4, tolerance=8"))
    unknown = asked(theirs)
    unknown.assert_outcomes(passed=1)
    unknown.stdout.fnmatch_lines(["alexsim: *32.json has no ratios of this machine: none was*"])
    asked(theirs, "--alexsim-update").assert_outcomes(passed=1)
    assert asked_for == [4] * 6  # once, and five times for a baseline
    for share, outcome in ((1.07, {"passed": 1}), (1.09, {"failed": 1})):
        slower[0] = share
        ran = asked(theirs)
        ran.assert_outcomes(**outcome)
    ran.stdout.fnmatch_lines(["*+9.0 %  slower: step: 1.000 -> 1.090"])


def test_pytest_starts_without_anything_of_ours(tmp_path: Path) -> None:
    """Whoever has alexsim installed pays for it when a test asks, and not before."""
    (tmp_path / "test_a.py").write_text("def test_a() -> None:\n    pass\n")
    (tmp_path / "loaded.py").write_text(
        "import sys\n\n\ndef pytest_sessionfinish() -> None:\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('alexsim'))\n"
        "    heavy = {'torch', 'numpy', 'rich', 'pydantic', 'typer'} & set(sys.modules)\n"
        "    print(f'\\n{ours} {sorted(heavy)}')\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "loaded", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "['alexsim', 'alexsim.pytest_plugin'] []" in ran.stdout.splitlines()

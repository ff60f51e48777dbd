"""The fixture ``alexsim_gate``, for other people's tests: a network's figures beside a baseline.

    def test_my_network_costs_what_it_did(alexsim_gate):
        alexsim_gate("model.py:net", batch=32)

``pytest --alexsim-update`` writes the baseline. pytest imports this module wherever alexsim is
installed: nothing else is imported before a test asks for figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from alexsim.bench.runner import Selection
    from alexsim.bench.verdicts import Baseline, BenchRun, Verdict

_SAID = pytest.StashKey[list[str]]()
"""Of a test, what its gate did beside passing."""
_REPORTED = "alexsim"
"""Under which name a test's report has that: reports come from other processes too."""
_LINES = 30
"""Differences that a failing test lists."""
_RUNS = 5
"""How often each case is timed for a baseline."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--alexsim-update``."""
    parser.getgroup("alexsim").addoption(
        "--alexsim-update",
        action="store_true",
        help="write the figures of networks in the tests of alexsim_gate as their baselines",
    )


class Gate:
    """What the fixture ``alexsim_gate`` is: call it with a network."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._root, self._folder = request.config.rootpath, request.path.parent
        self._update: bool = request.config.getoption("--alexsim-update")
        self._said = request.node.stash.setdefault(_SAID, [])

    def __call__(
        self,
        network: str,
        *,
        batch: int = 128,
        baseline: str | Path | None = None,
        timed_batch: int | None = None,
        tolerance: float = 5.0,
    ) -> tuple[Verdict, ...]:
        """Fail the test if a figure of a network is not its baseline's.

        Counted figures are compared exactly: FLOPs, parameters, the plan, bytes per memory policy,
        simulated steps. Ratios of times are taken only if ``timed_batch`` is given, and judged
        where the baseline has this machine.

        Args:
            network: ``FILE.py:NAME``, from pytest's root folder: a ``torch.nn.Module`` or a
                ``Network``; or an edition's name.
            batch: images of the step that is counted.
            baseline: JSON file, from the test's folder; if not given, named by the network, in the
                folder ``gates`` there.
            timed_batch: images of the step that is timed, in some seconds to a minute.
            tolerance: percent that a ratio's whole interval may be slower.

        Returns:
            What each figure was found to be; nothing if the baseline was written.
        """
        # pytest leaves this function's frame out of what it shows of a failure.
        __tracebackhide__ = True
        from alexsim.bench.runner import Selection
        from alexsim.editions.load import load_network
        from alexsim.errors import AlexsimError

        if min(batch, timed_batch or 1) < 1:
            raise ValueError(f"batches must be at least 1, got {batch} and {timed_batch}")
        selection = Selection(
            network=_from_root(network, self._root),
            batch_size=timed_batch or 1,
            timed=timed_batch is not None,
            kernels=False,
            counted_batch_size=batch,
        )
        path = self._folder / (baseline or _file_name(network, batch))
        problem = ""
        try:
            # A network that is not there is named before a baseline that cannot be, either.
            load_network(selection.network)
            if self._update:
                self._write(selection, path, network)
                return ()
            verdicts = self._compared(selection, path, network, tolerance / 100)
        except AlexsimError as error:
            problem = str(error)
        if problem:
            pytest.fail(problem, pytrace=False)
        return verdicts

    def _compared(
        self, selection: Selection, path: Path, network: str, tolerance: float
    ) -> tuple[Verdict, ...]:
        __tracebackhide__ = True
        from alexsim.bench.runner import compare
        from alexsim.report.bench import difference_lines

        shown = self._shown(path)
        if not path.exists():
            pytest.fail(
                f"{network}: there is no baseline {shown}; pytest --alexsim-update writes it",
                pytrace=False,
            )
        _, verdicts = compare(selection, self._loaded(path, network), tolerance=tolerance)
        failing = [verdict for verdict in verdicts if verdict.fails]
        if failing:
            lines = difference_lines(failing)
            if len(lines) > _LINES:
                lines[_LINES:] = [f"and {len(lines) - _LINES} more"]
            pytest.fail(
                f"{network} differs from {shown} in {len(failing)} of {len(verdicts)} figures;"
                " if it is meant to: pytest --alexsim-update\n" + "\n".join(lines),
                pytrace=False,
            )
        if any(verdict.status == "no baseline" for verdict in verdicts):
            self._said.append(f"{shown} has no ratios of this machine: none was judged")
        return verdicts

    def _loaded(self, path: Path, network: str) -> Baseline:
        """A baseline of this network.

        Raises:
            AlexsimError: it is another network's, or none.
        """
        from alexsim.bench.store import load
        from alexsim.errors import ProfileError

        stored = load(path)
        if stored.network != network:
            raise ProfileError(
                f"{self._shown(path)} is a baseline of {stored.network}: name another by baseline="
            )
        return stored

    def _write(self, selection: Selection, path: Path, network: str) -> None:
        from dataclasses import replace

        from alexsim.bench.runner import run
        from alexsim.bench.store import document, updated
        from alexsim.command.output import json_text, write_text

        before = self._loaded(path, network) if path.exists() else None
        runs: list[BenchRun] = [
            replace(run(selection), network=network) for _ in range(_RUNS if selection.timed else 1)
        ]
        text = json_text(document(updated(before, runs)))
        if before is not None and path.read_text(encoding="utf-8") == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        self._said.append(f"wrote {self._shown(path)}")

    def _shown(self, path: Path) -> str:
        """As it is found from pytest's root folder."""
        return str(path.relative_to(self._root) if path.is_relative_to(self._root) else path)


def _from_root(network: str, root: Path) -> str:
    """With the whole path of its file, if it is one of a file."""
    file, colon, name = network.rpartition(".py:")
    if colon:
        return f"{root / file}{colon}{name}"
    return str(root / network) if network.endswith(".py") else network


def _file_name(network: str, batch: int) -> str:
    """Of a network's baseline: ``gates/model-net-32.json`` of ``model.py:net`` at 32 images."""
    words = re.sub(r"[^\w.+-]+", "-", network.replace(".py:", "-").removesuffix(".py"))
    return f"gates/{words.strip('-.')}-{batch}.json"


@pytest.fixture
def alexsim_gate(request: pytest.FixtureRequest) -> Callable[..., tuple[Verdict, ...]]:
    """Compare a network's figures with a baseline file: ``alexsim_gate("model.py:net", batch=32)``.

    Counted figures exactly, ratios of times only if ``timed_batch`` is given; ``--alexsim-update``
    writes the file.
    """
    return Gate(request)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a gate said goes into its test's report, which reaches the process that prints."""
    report = yield
    if report.when == "call":
        report.user_properties += [(_REPORTED, line) for line in item.stash.get(_SAID, ())]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Baselines that were written, and ratios that nothing was known of."""
    said = {
        line: None
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, line in getattr(report, "user_properties", ())
        if name == _REPORTED
    }
    for line in said:
        terminalreporter.write_line(f"alexsim: {line}")

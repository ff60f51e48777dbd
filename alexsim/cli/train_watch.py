"""Progress of ``alexsim train`` on stderr: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from alexsim.command.run_options import kernels_text
from alexsim.execute.here import name_of
from alexsim.plan.planner import plan
from alexsim.report.tables import data_path_text, milliseconds
from alexsim.simulate.simulation import Simulation
from alexsim.train.settings import StepReport, TrainSettings, ValidationLine, Watcher
from alexsim.units import format_bytes

_BAR = 16
_FIXED = _BAR + len("Training") + len("-:--:--") + 4
"""Columns of the bar's line that are no count and no status."""
_LINE_IMAGES = 1024
"""The original printed a line per data file of 1024 images."""


class TerminalWatch:
    """Shows what a run reports."""

    def __init__(self, *, quiet: bool) -> None:
        self._console = Console(stderr=True, highlight=False, force_jupyter=False)
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._window: list[StepReport] = []
        self._batch_size = 1
        self._machine, self._simulated_step_s = "", 0.0
        self._next_line = 0.0

    def __enter__(self) -> TerminalWatch:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def watcher(self) -> Watcher:
        """The callbacks for the loop."""
        return Watcher(
            step=self._step, validation=self._validation, note=self._note, preparing=self._preparing
        )

    def begin(
        self, settings: TrainSettings, run_dir: Path, machine: str, simulated: Simulation
    ) -> None:
        """Say what is about to run, and on which machine its steps are simulated beside."""
        self._machine, self._simulated_step_s = machine, simulated.step_s
        self._batch_size = settings.batch_size
        devices = f"{settings.gpus} virtual GPU(s) of {format_bytes(settings.budget_bytes)}"
        if settings.partition == "hybrid":
            devices += ", hybrid" + settings.variable_batch * " with a variable batch"
        if settings.replicas > 1:
            images = settings.batch_size // settings.replicas
            devices = (
                f"data parallel: {settings.replicas} replicas, {images} images each, of {devices}"
            )
        self._say(
            f"{settings.network}, batch {settings.batch_size}, {devices}, {settings.policy},"
            f" {_by(settings)}"
        )
        # Not wrapped: it is there to be copied.
        self._say(f"run directory {run_dir}", soft_wrap=True)
        made = plan(settings.spec(settings.recipe.stages[0]))
        if fused := dict.fromkeys(f"{op.layer}+{op.epilogue}" for op in made.ops() if op.epilogue):
            self._say(f"  two layers in one kernel: {', '.join(fused)}")
        if text := kernels_text(made):
            self._say(f"  {text}")
        between = simulated.step_interval
        self._say(
            f"simulated beside: {simulated.machine}, {milliseconds(simulated.step_s)} ms per step"
            f" (90 %: {milliseconds(between.low)} to {milliseconds(between.high)})"
        )
        self._say(f"  {data_path_text(simulated)}")

    def _say(self, text: str, *, soft_wrap: bool = False) -> None:
        """A line; on a terminal words stay whole where it is longer, elsewhere the line does."""
        if not self._quiet:
            alone = soft_wrap or not self._console.is_terminal
            self._console.print(text, markup=False, soft_wrap=alone)

    def _note(self, text: str) -> None:
        alone = not self._console.is_terminal
        self._console.print(f"alexsim: {text}", markup=False, soft_wrap=alone)

    def _preparing(self, what: str, done: int, total: int) -> None:
        self._bar(what, done, total, "")
        now = time.monotonic()
        if not sys.stderr.isatty() and (done == total or now >= self._next_line):
            self._next_line = now + 5
            self._say(f"{what}: {done}/{total}")

    def _step(self, report: StepReport) -> None:
        self._window.append(report)
        rate = self._batch_size / report.step_s
        status = fitting(
            self._console.width - _FIXED - len(f"{report.steps}/{report.steps}"),
            f"loss {report.loss:.3f}",
            f"{rate:.1f} img/s",
            f"top-1 {report.top1:.3f}",
            f"top-5 {report.top5:.3f}",
            f"{self._machine} {report.step * self._simulated_step_s:.1f} s",
        )
        self._bar("Training", report.step, report.steps, status)
        per_line = max(1, _LINE_IMAGES // self._batch_size)
        first = report.step == 1
        if first or report.step % per_line == 0 or report.step == report.steps:
            self._line(report)
            self._window = []

    def _line(self, report: StepReport) -> None:
        window = self._window
        seconds = sum(r.step_s for r in window)
        waited = sum(r.data_wait_s for r in window)

        def mean(name: str) -> float:
            return float(sum(getattr(r, name) for r in window) / len(window))

        left = (report.steps - report.step) * seconds / len(window)
        self._say(
            fitting(
                self._console.width if self._console.is_terminal else sys.maxsize,
                f"step {report.step:>5}/{report.steps}",
                f"loss {mean('loss'):.3f}",
                f"top-1 {mean('top1'):.3f}",
                f"top-5 {mean('top5'):.3f}",
                f"{self._batch_size * len(window) / seconds:6.1f} images/s",
                f"ETA {int(left) // 60}:{int(left) % 60:02}",
                f"{seconds:5.1f} s, {100 * waited / seconds:.1f} % data",
                f"| {self._machine} {report.step * self._simulated_step_s:.1f} s",
            )
        )

    def _validation(self, line: ValidationLine) -> None:
        tested = line.validation
        self._say(
            f"validation after step {line.step} (epoch {tested.epoch}), {tested.images} images:"
            f" loss {tested.loss:.3f}  top-1 {tested.top1:.3f}  top-5 {tested.top5:.3f}"
            + (f"  NaN for {tested.nan_images} images" if tested.nan_images else "")
        )
        sizes = "  ".join(
            f"{layer} {size.weight:.1e}/{size.increment:.1e}" for layer, size in line.layers.items()
        )
        self._say(f"  mean |W|/|increment|: {sizes}")

    def _bar(self, what: str, done: int, total: int, status: str) -> None:
        if what not in self._tasks:
            for task in self._tasks.values():
                self._progress.remove_task(task)
            self._tasks = {what: self._progress.add_task(what, total=total, status="")}
        self._progress.update(self._tasks[what], completed=done, total=total, status=status)


def fitting(width: int, *parts: str) -> str:
    """As many parts, from the left, as a line of that width holds."""
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part
        if len(longer) > width:
            break
        line = longer
    return line


def _by(settings: TrainSettings) -> str:
    """What computes."""
    strict = ", a process each" if settings.strict else ""
    if settings.device == "cpu" and settings.backend != "triton":
        bf16 = ", fully connected layers in bf16" if settings.precision == "bf16" else ""
        return f"on cpu, backend {settings.backend}{bf16}, {settings.threads} threads{strict}"
    parts = [f"on {name_of(settings.device)}, backend {settings.backend}"]
    if settings.backend == "triton":
        parts[0] += f" {settings.precision}"
    if settings.device == "cuda":
        parts.append(f"exchanges by {settings.transport}")
    return ", ".join(parts) + strict

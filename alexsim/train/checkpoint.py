"""A run directory: config, metrics, checkpoints; each file appears whole or not at all."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alexsim.data.statistics import Statistics
from alexsim.errors import RunError, reason_of
from alexsim.files import drop_unfinished, unfinished, write_whole
from alexsim.profile.nvml import Sample
from alexsim.recipe.file import completed
from alexsim.strict_json import json_text, json_value
from alexsim.train.files import CHECKPOINTS, CONFIG, METRICS, STATISTICS, TELEMETRY
from alexsim.train.settings import (
    SCHEMA,
    HeldOutLine,
    MetricsLine,
    RunConfig,
    StepLine,
    ValidationLine,
)
from alexsim.typed import load, read


class RunDirectory:
    """Files of one training run.

    Raises:
        RunError: the directory cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def created(self, config: RunConfig) -> Iterator[None]:
        """Make the directory and write the config; a run that fails before its first step is no
        run, and leaves nothing.

        Raises:
            RunError: there is a run in it already, or it cannot be written.
        """
        if (self.path / CONFIG).exists():
            raise RunError(
                f"{self.path} holds a run already; continue it with --resume {self.path}"
            )
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        before = set(self.path.iterdir()) if self.path.is_dir() else set()
        try:
            self._create(config)
            yield
        except BaseException:
            if not self.metrics():
                with contextlib.suppress(OSError):
                    for file in set(self.path.iterdir()) - before:
                        file.unlink()
                    for folder in made:
                        folder.rmdir()
            raise

    def _create(self, config: RunConfig) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}") from error
        self._write_config(config)

    def ask_for(self, steps: int) -> None:
        """Keep how many steps are wanted in all, where a run goes on for more than it began for.

        Raises:
            RunError: the config cannot be written.
        """
        config = self.config()
        if config.settings.steps != steps:
            self._write_config(replace(config, settings=replace(config.settings, steps=steps)))

    def _write_config(self, config: RunConfig) -> None:
        self._write(CONFIG, (json_text(config.table, indent=2) + "\n").encode())

    def config(self) -> RunConfig:
        """The config written by ``create``.

        Raises:
            RunError: there is none, or it is damaged, or of another version.
        """
        path = self.path / CONFIG
        if not path.exists():
            raise RunError(f"{self.path} holds no run: no {CONFIG}")
        return load(
            RunConfig, path, "config", RunError, schema=SCHEMA, completed=_with_whole_recipe
        )

    def save_statistics(self, statistics: Statistics) -> None:
        """Keep the mean image, so that a resumed run subtracts the same one."""
        content = io.BytesIO()
        np.savez(
            content,
            mean=statistics.mean,
            axes=statistics.axes,
            deviations=statistics.deviations,
        )
        self._write(STATISTICS, content.getvalue())

    def statistics(self) -> Statistics | None:
        """The mean image of this run; None if it was stopped before there was one."""
        if not (self.path / STATISTICS).exists():
            return None
        try:
            with (
                (self.path / STATISTICS).open("rb") as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                return Statistics(
                    mean=stored["mean"], axes=stored["axes"], deviations=stored["deviations"]
                )
        except (OSError, ValueError, KeyError, EOFError, AttributeError, BadZipFile) as error:
            raise RunError(f"{self.path / STATISTICS} is damaged: {reason_of(error)}") from error

    def save_checkpoint(self, step: int, state: Mapping[str, torch.Tensor]) -> Path:
        """Write the state after ``step`` steps, then drop older checkpoints.

        Raises:
            RunError: it cannot be written; the last one stays.
        """
        target = self.path / f"checkpoint-{step:08}.safetensors"
        try:
            with unfinished(target) as beside:
                save_file(
                    {name: tensor.cpu().contiguous() for name, tensor in state.items()},
                    beside,
                    metadata={"step": str(step)},
                )
        except (OSError, SafetensorError) as error:
            last = self.newest_checkpoint()
            kept = f"; the last good one is {last.name}" if last else ""
            raise RunError(f"cannot write {target}: {reason_of(error)}{kept}") from error
        for older in self._checkpoints():
            if older != target:
                older.unlink()
        return target

    def steps_done(self) -> int:
        """Steps behind the newest checkpoint; 0 without one."""
        newest = self.newest_checkpoint()
        return int(newest.stem.partition("-")[2]) if newest else 0

    def newest_checkpoint(self) -> Path | None:
        """The checkpoint with most steps."""
        return max(self._checkpoints(), default=None)

    def load_checkpoint(self, path: Path) -> tuple[int, dict[str, torch.Tensor]]:
        """Steps done, and the state.

        Raises:
            RunError: the file is not a whole checkpoint.
        """
        try:
            with safe_open(path, framework="pt") as stored:
                step = int(stored.metadata()["step"])
                return step, {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise RunError(f"{path} is not a checkpoint: {reason_of(error)}") from error

    def append_metrics(self, line: MetricsLine) -> None:
        """Add one JSON line."""
        self._append(METRICS, line)

    def append_telemetry(self, sample: Sample) -> None:
        """Add one JSON line on the cards."""
        self._append(TELEMETRY, sample)

    def _append(self, name: str, line: MetricsLine | Sample) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(json_text(asdict(line)) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self.path / name}: {error.strerror}") from error

    def metrics(self) -> list[MetricsLine]:
        """Every whole line; a run that was killed may have left half of the last one.

        Raises:
            RunError: the file cannot be read, or another line is none of a run's.
        """
        path = self.path / METRICS
        if not path.exists():
            return []
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [_line(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]

    def rewind_metrics(self, steps: int) -> None:
        """Drop what was logged after ``steps`` steps: those steps will be done again.

        And what a kill left half-written.
        """
        drop_unfinished(self.path)
        kept = [asdict(line) for line in self.metrics() if line.step <= steps]
        self._write(METRICS, "".join(json_text(line) + "\n" for line in kept).encode())

    def _checkpoints(self) -> list[Path]:
        return sorted(self.path.glob(CHECKPOINTS))

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_whole(self.path / name, content)
        except OSError as error:
            raise RunError(f"cannot write {self.path / name}: {error.strerror}") from error


class NoDirectory(RunDirectory):
    """The run directory of a process that is not the first: it keeps nothing, and finds nothing."""

    @contextlib.contextmanager
    def created(self, config: RunConfig) -> Iterator[None]:
        """The first process does."""
        del config
        yield

    def ask_for(self, steps: int) -> None:
        """The first process does."""

    def save_statistics(self, statistics: Statistics) -> None:
        """The first process does."""

    def statistics(self) -> Statistics | None:
        """The first process tells."""
        return None

    def save_checkpoint(self, step: int, state: Mapping[str, torch.Tensor]) -> Path:
        """The first process does."""
        del step, state
        return self.path

    def newest_checkpoint(self) -> Path | None:
        """The first process knows."""
        return None

    def _append(self, name: str, line: MetricsLine | Sample) -> None:
        """The first process does."""

    def metrics(self) -> list[MetricsLine]:
        """The first process has them."""
        return []

    def rewind_metrics(self, steps: int) -> None:
        """The first process does."""


def _with_whole_recipe(table: Any) -> Any:
    """A config whose recipe says what its optimizer's files need not."""
    settings = table.get("settings") if isinstance(table, dict) else None
    if isinstance(settings, dict) and isinstance(settings.get("recipe"), dict):
        recipe = completed(settings["recipe"], "settings.recipe")
        return table | {"settings": settings | {"recipe": recipe}}
    return table


def _line(text: str, where: str) -> MetricsLine:
    try:
        table = json_value(text)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where}, is damaged: {error}") from error
    keys = table if isinstance(table, dict) else ()
    kind: Any = ValidationLine if "validation" in keys else StepLine
    kind = HeldOutLine if "held_out" in keys else kind
    return cast(MetricsLine, read(kind, table, f"{where}, is damaged", RunError))

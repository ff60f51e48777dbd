"""What of a run a tracker takes: its settings, and by step the values of every tag."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from alexsim.documents.run import HeldOutMetrics, StepMetrics
from alexsim.errors import RunError
from alexsim.names import name_text
from alexsim.page.inputs import Subject
from alexsim.report.pictures import enlarged, grid
from alexsim.strict_json import json_text
from alexsim.train.files import METRICS

_PICTURE_PIXELS = 480


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is told of one step."""

    step: int
    """Steps done."""
    wall_s: float
    """When, in seconds since 1970."""
    values: dict[str, float] = field(default_factory=dict)
    """By tag; NaN and infinities as they are."""
    pictures: dict[str, Image.Image] = field(default_factory=dict)
    """By tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A run as trackers take it."""

    name: str
    settings: dict[str, Any]
    """The run's, then ``data_fingerprint`` and ``versions``: numbers, texts, lists and tables."""
    rows: tuple[Row, ...]
    """By step, each once."""

    @property
    def tags(self) -> list[str]:
        """Of the values, in the order in which they first appear."""
        return list(dict.fromkeys(tag for row in self.rows for tag in row.values))


def series(run: Subject, folder: Path) -> Series:
    """A run's metrics, as far as it has come.

    Raises:
        RunError: it left no step yet.
    """
    if not run.metrics:
        raise RunError(f"{folder} has no whole line in {METRICS} yet: there is nothing to export")
    assert run.config is not None
    config = json.loads(json_text(run.config.document()))
    rows = _steps(run, (folder / METRICS).stat().st_mtime)
    last = max(rows)
    for test in run.held_out:
        # A run's last test may be at the step of one on the way: that over all images counts.
        _row(rows, test.step).values.update(_tested(test))
    rows[last].values.update(_of_the_plan(run))
    for filters in run.filters:
        picture = enlarged(grid(filters.weights), _PICTURE_PIXELS)
        tag = f"filters/{filters.layer}.{filters.column}"
        _row(rows, _checkpoint_step(run.checkpoint)).pictures[tag] = picture
    return Series(
        name=name_text(run.name),
        settings=config.pop("settings") | config,
        rows=tuple(rows[step] for step in sorted(rows)),
    )


def _steps(run: Subject, written_s: float) -> dict[int, Row]:
    """A row for each training step.

    No line says when it was written. The last one was when the file was, and those before it by
    the seconds that steps took: tests and checkpoints between them are left out.
    """
    left = accumulate((line.step_s for line in reversed(run.metrics[1:])), initial=0.0)
    return {
        line.step: Row(
            step=line.step,
            wall_s=written_s - before_s,
            values=dict(_trained(line, run.document.batch_size)),
        )
        for line, before_s in zip(run.metrics, reversed([*left]), strict=True)
    }


def _row(rows: dict[int, Row], step: int) -> Row:
    """That of a step; the time of one that left no line is that of the step before it."""
    if step not in rows:
        before = max((known for known in rows if known < step), default=min(rows))
        rows[step] = Row(step=step, wall_s=rows[before].wall_s)
    return rows[step]


def _trained(line: StepMetrics, batch_size: int) -> Iterator[tuple[str, float]]:
    yield "train/loss", line.loss
    yield "train/top_1_error", line.top1
    yield "train/top_5_error", line.top5
    if line.step_s:
        yield "throughput/images_per_s", batch_size / line.step_s
    yield "time/step_s", line.step_s
    yield "time/data_wait_s", line.data_wait_s


def _tested(test: HeldOutMetrics) -> dict[str, float]:
    scores = test.scores
    return {
        "held_out/loss": scores.loss,
        "held_out/top_1_error": scores.top1,
        "held_out/top_5_error": scores.top5,
    } | {
        f"{tag}/{layer}": size
        for layer, sizes in test.layers.items()
        for tag, size in zip(("weight_mean_abs", "update_mean_abs"), sizes, strict=True)
    }


def _of_the_plan(run: Subject) -> Mapping[str, float]:
    """What is one figure for the whole run."""
    document = run.document
    planned_s = document.predicted_step_s
    figures: dict[str, float] = {
        f"memory/{device.name}_planned_bytes": device.planned_bytes
        for device in document.memory.devices
    }
    if document.exchanges:
        figures["exchange/bytes_per_step"] = sum(each.bytes for each in document.exchanges)
    return figures | {
        "predicted/step_s": planned_s,
        "predicted/images_per_s": document.batch_size / planned_s,
    }


def _checkpoint_step(name: str) -> int:
    return int(name.partition("-")[2].partition(".")[0])

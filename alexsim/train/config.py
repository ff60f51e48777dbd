"""A run's config file: settings, data and versions, and whether they are still the same."""

from __future__ import annotations

import math
import platform
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexsim.data.dataset import Dataset
from alexsim.errors import RunError
from alexsim.plan.spec import PlanChoices
from alexsim.processes.world import launch
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.files import CONFIG
from alexsim.train.settings import RunConfig, TrainSettings, Watcher

_MAY_CHANGE = {
    "steps", "threads", "workers", "checkpoint_every", "data", "init_from", "budget_bytes",
    "strict", "graph",
} | {choice.name for choice in fields(PlanChoices)} - {"batch_size", "backend"}  # fmt: skip
"""What a run that goes on may be asked for anew; what it reads is compared by its fingerprint."""


def config_of(settings: TrainSettings, dataset: Dataset) -> RunConfig:
    return RunConfig(
        settings=settings,
        data_fingerprint=dataset.fingerprint(),
        classes=tuple(dataset.classes),
        versions=versions(),
        launch=launch(),
    )


def launched_as(run_dir: Path) -> str | None:
    """What torchrun called the attempts of a run; None where there is no run."""
    if not (run_dir / CONFIG).exists():
        return None
    return RunDirectory(run_dir).config().launch


def refuse_other_run(run_dir: Path, settings: TrainSettings) -> None:
    """What is begun anew goes on only as the run that it was.

    Raises:
        RunError: it was asked for something else; names the first difference.
    """
    stored, asked = asdict(RunDirectory(run_dir).config().settings), asdict(settings)
    for name in sorted(asked.keys() - _MAY_CHANGE):
        if stored[name] != asked[name]:
            raise RunError(
                f"{run_dir} began with another {name}: {stored[name]!r}, not {asked[name]!r};"
                " another -o begins anew"
            )


def common(config: RunConfig) -> dict[str, Any]:
    """What must be the same in every process of a run; paths and workers may differ by host."""
    by_host = {"data", "workers", "init_from"}
    settings = {k: v for k, v in config.settings.table.items() if k not in by_host}
    rest = {"data_fingerprint": config.data_fingerprint, "classes": list(config.classes)}
    return settings | rest | {f"version of {k}": v for k, v in config.versions.items()}


def versions() -> dict[str, str]:
    """What a reader needs to repeat a run bit for bit."""
    return {
        "alexsim": version("alexsim"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def same_data(directory: RunDirectory, dataset: Dataset, watch: Watcher) -> None:
    config = directory.config()
    if config.data_fingerprint != dataset.fingerprint():
        raise RunError(
            f"{directory.path}: the files in {dataset.root} are not those that the run began with"
        )
    changed = {
        name: (config.versions.get(name), now)
        for name, now in versions().items()
        if config.versions.get(name) != now
    }
    for name, (before, now) in changed.items():
        watch.note(f"{name} was {before}, is {now}: weights may differ in the last bits")


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Steps in which ``epochs`` passes over the images are made."""
    return max(1, math.ceil(epochs * images / batch_size))

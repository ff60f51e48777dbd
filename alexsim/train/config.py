"""A run's config file: settings, data and versions, and whether they are still the same."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch

from alexsim.data.dataset import Dataset
from alexsim.errors import ProfileError, RunError
from alexsim.execute.world import launch
from alexsim.names import name_of, name_text
from alexsim.plan.spec import PlanChoices
from alexsim.recipe.file import recipe_from, recipe_table
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.files import CONFIG
from alexsim.train.records import TrainSettings, Watcher

_MAY_CHANGE = {
    "steps", "threads", "workers", "checkpoint_every", "data", "init_from", "budget_bytes",
    "strict", "graph",
} | {choice.name for choice in fields(PlanChoices)} - {"batch_size", "backend"}  # fmt: skip
"""What a run that goes on may be asked for anew; what it reads is compared by its fingerprint."""
_PATHS = ("network", "data", "init_from")
"""Settings that may be paths: bytes, which a document holds as text."""


def config_of(settings: TrainSettings, dataset: Dataset) -> dict[str, Any]:
    return {
        "schema": 1,
        "settings": asdict(settings)
        | {name: name_text(str(getattr(settings, name))) for name in _PATHS}
        | {"recipe": recipe_table(settings.recipe)},
        "data_fingerprint": dataset.fingerprint(),
        "classes": list(dataset.classes),
        "versions": versions(),
        "launch": launch(),
    }


def launched_as(run_dir: Path) -> str | None:
    """What torchrun called the attempts of a run; None where there is no run."""
    if not (run_dir / CONFIG).exists():
        return None
    return str(RunDirectory(run_dir).config().get("launch", ""))


def refuse_other_run(run_dir: Path, settings: TrainSettings) -> None:
    """What is begun anew goes on only as the run that it was.

    Raises:
        RunError: it was asked for something else; names the first difference.
    """
    stored, asked = asdict(stored_settings(run_dir)), asdict(settings)
    for name in sorted(asked.keys() - _MAY_CHANGE):
        if stored[name] != asked[name]:
            raise RunError(
                f"{run_dir} began with another {name}: {stored[name]!r}, not {asked[name]!r};"
                " another -o begins anew"
            )


def common(config: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same in every process of a run; paths and workers may differ by host."""
    own = {"data", "workers", "init_from"}
    settings = {key: value for key, value in config["settings"].items() if key not in own}
    rest = {key: config[key] for key in ("data_fingerprint", "classes")}
    return settings | rest | {f"version of {k}": v for k, v in config["versions"].items()}


def versions() -> dict[str, str]:
    """What a reader needs to repeat a run bit for bit."""
    return {
        "alexsim": version("alexsim"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def stored_settings(run_dir: Path) -> TrainSettings:
    """The settings of a run.

    Raises:
        RunError: the directory holds no run, or one of another version.
    """
    config = RunDirectory(run_dir).config()
    try:
        for key, kind in (("data_fingerprint", str), ("classes", list), ("versions", dict)):
            _checked(key, config[key], kind)
        stored = dict(config["settings"])
        stored |= {name: name_of(stored[name]) for name in _PATHS if name in stored}
        recipe = recipe_from(dict(stored.pop("recipe")), str(run_dir / CONFIG))
        settings = TrainSettings(**stored, recipe=recipe)
        for name, kind in get_type_hints(TrainSettings).items():
            _checked(name, getattr(settings, name), kind)
    except (KeyError, TypeError, ValueError, ProfileError) as error:
        raise RunError(
            f"{run_dir}: its config is of another version of alexsim, or damaged ({error})"
        ) from error
    return settings


def _checked(name: str, value: Any, kind: Any) -> None:
    """Refuse a value of another type, a word that is none of a few, and counts below 1."""
    if get_origin(kind) is Literal:
        fits = value in get_args(kind)
    else:
        fits = type(value) is kind and (kind is not int or name == "seed" or value >= 1)
    if not fits:
        raise ValueError(f"{name} is {value!r}")


def same_data(directory: RunDirectory, dataset: Dataset, watch: Watcher) -> None:
    config = directory.config()
    if config["data_fingerprint"] != dataset.fingerprint():
        raise RunError(
            f"{directory.path}: the files in {dataset.root} are not those that the run began with"
        )
    changed = {
        name: (config["versions"].get(name), now)
        for name, now in versions().items()
        if config["versions"].get(name) != now
    }
    for name, (before, now) in changed.items():
        watch.note(f"{name} was {before}, is {now}: weights may differ in the last bits")


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Steps in which ``epochs`` passes over the images are made."""
    return max(1, math.ceil(epochs * images / batch_size))

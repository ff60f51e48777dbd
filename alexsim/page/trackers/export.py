"""Runs exported to experiment trackers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from alexsim.errors import AlexsimError
from alexsim.page.inputs import Subject
from alexsim.page.trackers import tensorboard, wandb
from alexsim.page.trackers.series import Series, series


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A run in a tracker."""

    run: str
    tracker: str
    """``tensorboard`` or ``wandb``."""
    place: str
    """A folder, or an address."""
    rows: int
    """Steps that something is told of."""
    tags: int
    hint: str = ""
    """The command that shows it, or sends it."""

    @property
    def text(self) -> str:
        """In a line."""
        more = f" ({self.hint})" if self.hint else ""
        return f"{self.place}: {self.rows:,} steps, {self.tags} tags{more}"


def export(
    runs: Sequence[tuple[str, Subject | None]], board: Path | None, wandb_project: str | None
) -> list[Exported]:
    """Write or send every run's metrics, as far as it has come.

    Args:
        runs: each with the argument that named it; what is no run is refused.
        board: a folder of TensorBoard's that gets a folder for each run.
        wandb_project: a project of Weights & Biases. Without either, nothing is exported.

    Raises:
        AlexsimError: one is no run, or left no step yet, or two have one name; a package is
            missing; or a tracker does not take it.
    """
    if board is None and wandb_project is None:
        return []
    if board is not None:
        check_package("tensorboard")
    if wandb_project is not None:
        check_package("wandb")
        wandb.check(len(runs))
    every = [_series(argument, subject) for argument, subject in runs]
    names = [each.name for each in every]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise AlexsimError(f"two of these runs are called {twice}: rename one")
    exported = []
    if board is not None:
        hint = f"tensorboard --logdir {board}"
        for each in every:
            place = tensorboard.write(each, board / each.name)
            exported.append(_exported(each, "tensorboard", place, hint))
    if wandb_project is not None:
        exported += [_exported(each, "wandb", *wandb.send(each, wandb_project)) for each in every]
    return exported


def check_package(name: str) -> None:
    """Refuse the option of this name where the package of this name is missing.

    Raises:
        AlexsimError: it is.
    """
    if util.find_spec(name) is None:
        raise AlexsimError(f'--{name} needs a package: pip install "alexsim[{name}]"')


def _series(argument: str, subject: Subject | None) -> Series:
    if subject is None or subject.kind != "run":
        raise AlexsimError(f"{argument} has no metrics to export: give run directories")
    return series(subject, Path(argument))


def _exported(series: Series, tracker: str, place: str, hint: str = "") -> Exported:
    return Exported(
        run=series.name,
        tracker=tracker,
        place=place,
        rows=len(series.rows),
        tags=len(series.tags),
        hint=hint,
    )

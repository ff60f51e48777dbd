"""A small data set of real JPEG files, drawn once into the user's cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSet:
    """Classes of pictures, each of which follows from its class and index alone."""

    name: str
    version: int
    """Another one where a picture changes: it is part of the folder's name."""
    classes: tuple[str, ...]
    train_per_class: int
    held_out_per_class: int
    """Held-out files come from other draws than those of training."""
    draw: Callable[[int, int], Image.Image]
    """A picture, by class and index; the same for the same two."""

    @property
    def folder(self) -> str:
        """What the set's folder is called."""
        return f"{self.name}-{self.version}"

    def ensure(self, cache: Path, progress: Progress = lambda _done, _total: None) -> Path:
        """The set's folder, drawn if it is not there yet: ``train/`` and ``val/`` of classes.

        It appears whole or not at all, also when two processes draw it at once.

        Raises:
            OSError: it cannot be written.
        """
        target = cache / self.folder
        if target.is_dir():
            return target
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=cache))
        jobs = self._jobs(unfinished)
        for done, (path, label, index) in enumerate(jobs):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.draw(label, index).save(path, "JPEG", quality=85)
            progress(done + 1, len(jobs))
        try:
            unfinished.rename(target)
        except OSError:
            # Another process was first; its files are the same.
            shutil.rmtree(unfinished)
            if not target.is_dir():
                raise
        return target

    def _jobs(self, folder: Path) -> Sequence[tuple[Path, int, int]]:
        train, held_out = self.train_per_class, self.held_out_per_class
        return [
            (folder / split / name / f"{index:04}.JPEG", label, first + index)
            for split, first, count in (("train", 0, train), ("val", train, held_out))
            for label, name in enumerate(self.classes)
            for index in range(count)
        ]


def generator(version: int, label: int, index: int) -> np.random.Generator:
    """What is drawn for a picture."""
    return np.random.Generator(np.random.Philox(key=(version << 40) | (label << 32) | index))

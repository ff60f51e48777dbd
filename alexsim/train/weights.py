"""Trained weights without their run: one self-contained file, or what a run directory holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alexsim.errors import RunError
from alexsim.train.checkpoint import RunDirectory
from alexsim.train.config import stored_settings
from alexsim.train.recipe import Normalisation

_FORMAT = "alexsim-weights-1"
_MEAN = "mean_image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A network's weights, and what a reader needs to use them."""

    network: str
    state: Mapping[str, torch.Tensor]
    """``conv1.a.weight``, by layer, column and kind; without momentum."""
    classes: tuple[str, ...]
    normalisation: Normalisation
    mean: NDArray[np.float32] | None
    """``[side, side, channels]``, pixels 0...255; None where nothing of the kind is subtracted."""


def load_weights(path: Path) -> Weights:
    """The weights of a run's newest checkpoint, or of a file that ``save_weights`` wrote.

    Raises:
        RunError: it is neither.
    """
    return _of_run(path) if path.is_dir() else _of_file(path)


def save_weights(path: Path, weights: Weights) -> None:
    """Write a self-contained safetensors file, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.state.items()}
    if weights.mean is not None:
        tensors[_MEAN] = torch.from_numpy(weights.mean)
    metadata = {
        "format": _FORMAT,
        "network": weights.network,
        "classes": json.dumps(weights.classes),
        "normalisation": weights.normalisation,
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file(tensors, temporary, metadata=metadata)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"cannot write {path}: {error}") from error


def _of_file(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} holds no weights: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise RunError(f"{path} holds no weights of alexsim: its format is not {_FORMAT}")
    mean = state.pop(_MEAN, None)
    return Weights(
        network=metadata["network"],
        state=state,
        classes=tuple(json.loads(metadata["classes"])),
        normalisation=metadata["normalisation"],
        mean=None if mean is None else mean.numpy(),
    )


def _of_run(path: Path) -> Weights:
    directory = RunDirectory(path)
    settings = stored_settings(path)
    newest = directory.newest_checkpoint()
    if newest is None:
        raise RunError(f"{path} holds no checkpoint yet")
    _, state = directory.load_checkpoint(newest)
    statistics = directory.statistics()
    return Weights(
        network=settings.network,
        state={name: one for name, one in state.items() if not name.endswith(".momentum")},
        classes=tuple(directory.config()["classes"]),
        normalisation=settings.recipe.normalisation,
        mean=statistics.mean if statistics else None,
    )

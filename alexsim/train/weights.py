"""A network's weights by themselves: out of a run, or a file that needs no run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from alexsim.data.augmentation import Normalisation
from alexsim.data.statistics import Floats
from alexsim.editions.load import load_network
from alexsim.errors import RunError, reason_of
from alexsim.files import unfinished
from alexsim.network.network import Network
from alexsim.network.part import letter
from alexsim.network.update_rules import is_state
from alexsim.train.checkpoint import RunDirectory
from alexsim.typed import Named, parse, read

_FORMAT = "alexsim-weights-1"
_MEAN = "mean_image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A trained network, and what its images must be.

    ``state``: ``conv1.a.weight``, ``conv1.a.bias`` ... per layer and column, without momentum.
    """

    network: str
    """What ``load_network`` takes."""
    state: Mapping[str, torch.Tensor]
    classes: tuple[str, ...]
    """Names of the outputs; empty if they are not known."""
    normalisation: Normalisation
    mean: Floats | None
    """Mean image, ``[side, side, channels]`` of pixels 0...255; None where none is subtracted."""

    @property
    def outputs(self) -> int:
        """How many classes it tells apart."""
        return load_network(self.network).classes

    @property
    def named(self) -> int:
        """Outputs that have a class: all where their names are not known."""
        return len(self.classes) or self.outputs


def load_weights(path: Path) -> Weights:
    """Weights of a run's newest checkpoint, or of a file that ``save_weights`` wrote.

    Raises:
        RunError: there are none, or they do not fit their network.
    """
    if not path.exists():
        raise RunError(f"{path}: no such run or file")
    weights = _of_run(path) if path.is_dir() else _of_file(path)
    shapes = state_shapes(load_network(weights.network))
    for name in sorted(shapes.keys() | weights.state.keys()):
        shape = tuple(weights.state[name].shape) if name in weights.state else None
        if shape != shapes.get(name):
            raise RunError(
                f"{path}: {name} is {shape or 'missing'}; {weights.network} has"
                f" {shapes.get(name) or 'none'}"
            )
    return weights


def save_weights(path: Path, weights: Weights) -> None:
    """Write a file that ``load_weights`` reads.

    Raises:
        RunError: the name does not end in .safetensors, or it cannot be written.
    """
    if path.suffix != ".safetensors":
        raise RunError(f"weights go into a file that ends in .safetensors; got {path}")
    tensors = {name: tensor.cpu().contiguous() for name, tensor in weights.state.items()}
    if weights.mean is not None:
        tensors[_MEAN] = torch.from_numpy(np.ascontiguousarray(weights.mean))
    about = {
        "format": _FORMAT,
        "network": weights.network,
        "classes": json.dumps(weights.classes, allow_nan=False),
        "normalisation": weights.normalisation,
    }
    try:
        with unfinished(path) as beside:
            save_file(tensors, beside, metadata=about)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {path}: {reason_of(error)}") from error


def state_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by name, running statistics among them."""
    return {
        f"{part.layer.name}.{letter(part.column)}.{parameter.name}": parameter.shape
        for parts in network.parts
        for part in parts
        for parameter in part.parameters_by_name.values()
    }


def _of_run(path: Path) -> Weights:
    directory = RunDirectory(path)
    config = directory.config()
    newest = directory.newest_checkpoint()
    if newest is None:
        raise RunError(f"{path}: the run has no checkpoint yet")
    _, state = directory.load_checkpoint(newest)
    normalisation = config.settings.recipe.normalisation
    measured = directory.statistics() if normalisation == "mean-image" else None
    if normalisation == "mean-image" and measured is None:
        raise RunError(f"{path}: the run's mean image is gone")
    return Weights(
        network=config.settings.network,
        state={name: value for name, value in state.items() if not is_state(name)},
        classes=config.classes,
        normalisation=normalisation,
        mean=measured.mean if measured else None,
    )


def _of_file(path: Path) -> Weights:
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is no file of weights: {reason_of(error)}") from error
    if metadata.get("format") != _FORMAT:
        raise RunError(
            f"{path}: no weights of alexsim in it (`alexsim model import` takes those of others)"
        )
    # Other tools add keys of their own.
    known = {item.name: metadata[item.name] for item in fields(_Head) if item.name in metadata}
    head = read(_Head, known, f"{path}: its metadata", RunError)
    mean = tensors.pop(_MEAN, None)
    return Weights(
        network=head.network,
        state=tensors,
        classes=head.classes,
        normalisation=head.normalisation,
        mean=None if mean is None else mean.numpy(),
    )


def _classes(text: str) -> tuple[str, ...]:
    return parse(tuple[str, ...], text, "a list of names")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """Metadata of a file of weights: texts."""

    format: str
    network: str
    classes: Annotated[tuple[str, ...], Named(_classes)]
    normalisation: Normalisation

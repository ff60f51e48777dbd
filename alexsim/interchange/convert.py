"""Weights to files of other formats and back, with what was changed on the way, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from alexsim.errors import InterchangeError
from alexsim.interchange import caffe, caffemodel
from alexsim.interchange.caffe_messages import Floats
from alexsim.interchange.checkpoint import choose, format_of, listed, under
from alexsim.interchange.layout import dropout_factors, from_plain, plain_shapes, sized, to_plain
from alexsim.interchange.mean import mean_bytes
from alexsim.interchange.module_state import module_state
from alexsim.interchange.onnx import largest_difference, onnx_bytes
from alexsim.interchange.state_dict import (
    TORCHVISION_NAMES,
    from_torchvision,
    state_dict_bytes,
    to_torchvision,
)
from alexsim.network.network import Network

Normalisation = Literal["mean-image", "channels"]
State = Mapping[str, torch.Tensor]

WRITTEN = (".pt", ".pth", ".onnx", ".caffemodel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a network's images must be, and what its outputs are called."""

    normalisation: Normalisation
    mean: Floats | None
    """``[side, side, channels]``, pixels 0...255."""
    classes: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words, for whoever opens the file."""
        if self.normalisation == "channels":
            return (
                "RGB / 255, less (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225);"
                " grey images: their means"
            )
        means = "" if self.mean is None else ", ".join(f"{m:.2f}" for m in self.mean.mean((0, 1)))
        return "RGB 0...255, less the centre of the training set's mean image" + (
            f" (its channels' means: {means})" if means else ""
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Files to be written, by ending, and what was changed to make them."""

    network: Network
    files: Mapping[str, bytes] = field(repr=False)
    changes: tuple[str, ...]
    largest_difference: float | None = None
    """Between onnxruntime's probabilities and the plain module's; None where not asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Weights by column for the network, and what is to be known of them."""

    network: Network
    state: State = field(repr=False)
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    """What may make the network another function than the weights were trained in."""
    normalisation: Normalisation | None
    """Of images, as such files have it; None where it is not known."""


def exported(
    network: Network,
    state: State,
    ending: str,
    inputs: Inputs,
    *,
    torchvision_names: bool = False,
    check: bool = True,
) -> Exported:
    """Weights by column as a file that ends in one of ``WRITTEN``, and what belongs beside it.

    Raises:
        InterchangeError: the weights do not fit, or the format cannot hold the network.
        NetworkError: the network has no plain form.
    """
    if network.module is not None and ending in (".pt", ".pth") and not torchvision_names:
        learnt = module_state(network, state, network.module.state_dict())
        return Exported(network=network, files={ending: state_dict_bytes(learnt)}, changes=())
    plain = to_plain(network, state)
    changes = _changes(network, back=False)
    if ending == ".onnx":
        return _to_onnx(network, plain, inputs, changes, check=check)
    if ending == ".caffemodel":
        return _to_caffe(network, plain, inputs, changes)
    if torchvision_names:
        plain = to_torchvision(network, plain)
    return Exported(network=network, files={ending: state_dict_bytes(plain)}, changes=changes)


def imported(
    path: Path, network: Network, *, key: str | None = None, allow_nan: bool = False
) -> Imported:
    """Weights by column from a file, with its number of classes; its bytes say what it is.

    ``key`` is where the weights are in a file that holds several networks' of PyTorch.

    Raises:
        InterchangeError: the file cannot be read, does not fit, or has numbers that are not finite.
        NetworkError: the network has no plain form.
    """
    caffe_file = format_of(path) == "caffe"
    if caffe_file and key is not None:
        raise InterchangeError(f"--key is for files of torch.save and safetensors, not {path}")
    read = _from_caffe(path, network) if caffe_file else _from_state_dict(path, network, key)
    plain, changes, notes, normalisation = read
    for name, tensor in () if allow_nan else plain.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InterchangeError(
                f"{path}: {name} is not finite; --allow-nan takes it all the same"
            )
    network = sized(network, plain)
    return Imported(
        network=network,
        state=from_plain(network, plain),
        changes=(*changes, *_changes(network, back=True)),
        notes=notes,
        normalisation=normalisation,
    )


def _to_onnx(
    network: Network, plain: State, inputs: Inputs, changes: tuple[str, ...], *, check: bool
) -> Exported:
    notes = {
        "network": network.name,
        "classes": json.dumps(inputs.classes, allow_nan=False),
        "normalisation": inputs.normalisation,
        "images": inputs.text,
    }
    data = onnx_bytes(network, plain, notes)
    # About what pixels have, once the mean is gone.
    deviation = 60.0 if inputs.normalisation == "mean-image" else 1.0
    difference = largest_difference(data, network, plain, deviation) if check else None
    return Exported(
        network=network, files={".onnx": data}, changes=changes, largest_difference=difference
    )


def _to_caffe(network: Network, plain: State, inputs: Inputs, changes: tuple[str, ...]) -> Exported:
    channels, *crop = network.input_shape
    _, *fed = caffe.caffe_input_shape(network)
    if channels > 1:
        changes = (*changes, "colours are BGR, as Caffe's images are")
    if fed != crop:
        changes = (
            *changes,
            f"images are {_size(fed)}: zeros at the right and bottom of the {_size(crop)} crop",
        )
    notes = (f"{network.name}, written by alexsim", f"images: {inputs.text}", *changes)
    data, text = caffe.caffe_files(network, plain, notes)
    files = {".caffemodel": data, ".prototxt": text.encode()}
    if inputs.mean is not None and inputs.normalisation == "mean-image":
        files[".binaryproto"] = mean_bytes(inputs.mean)
    return Exported(network=network, files=files, changes=changes)


_Read = tuple[State, tuple[str, ...], tuple[str, ...], Normalisation | None]


def _from_caffe(path: Path, network: Network) -> _Read:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InterchangeError(f"cannot read {path}: {error.strerror}") from error
    plain, net = caffemodel.read_caffemodel(data, network, str(path))
    changes = ("colours were BGR, are RGB",) if network.input_shape[0] > 1 else ()
    differs = caffemodel.difference(net, network)
    notes = (f"another function than the file's: {differs}",) if differs else ()
    return plain, changes, notes, "mean-image"


def _from_state_dict(path: Path, network: Network, key: str | None) -> _Read:
    # Networks without a plain form are refused first.
    schemes = (tuple(plain_shapes(network)), TORCHVISION_NAMES)
    chosen = choose(path, network.name, schemes, key)
    changes: tuple[str, ...] = ()
    if chosen.prefix:
        changes = (f"names were {under(chosen.prefix)}",)
    notes: tuple[str, ...] = ()
    if chosen.others:
        others = " and ".join(map(under, chosen.others))
        notes = (f"weights that fit are {others}, too: --key takes them",)
    if chosen.left_out:
        notes = (*notes, f"left out: {listed(chosen.left_out)}")
    if chosen.scheme:
        changes = (*changes, "names were torchvision's")
        return from_torchvision(chosen.tensors), changes, notes, "channels"
    note = "only names and shapes were checked: a state_dict has no norms, pools or order"
    return chosen.tensors, changes, (*notes, note), None


def _changes(network: Network, *, back: bool) -> tuple[str, ...]:
    texts = []
    if network.columns > 1:
        texts.append(
            f"whole layers cut into {network.columns} columns"
            if back
            else f"{network.columns} columns joined; what reads its own became a group"
        )
    if factors := dropout_factors(network):
        share = ", ".join(f"{layer} {factor:g}" for layer, factor in factors.items())
        texts.append(f"weights behind dropout {'divided' if back else 'multiplied'}: {share}")
    return tuple(texts)


def _size(extents: list[int]) -> str:
    return " x ".join(map(str, extents))

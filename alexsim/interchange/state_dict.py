"""``state_dict`` files of PyTorch: names as ``AlexNet`` has them, or as torchvision's has them.

A pickle can run code, so files are loaded with ``weights_only=True``, which takes tensors only.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from alexsim.errors import InterchangeError
from alexsim.interchange.layout import KINDS
from alexsim.network.network import Network

Plain = dict[str, torch.Tensor]

# torchvision.models.alexnet: the layers of alexnet-owt, in other containers. Its dropouts stand
# before fc6 and fc7, ours behind; at test, where they do nothing, both compute the same.
_TORCHVISION = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3": "features.6",
    "conv4": "features.8",
    "conv5": "features.10",
    "fc6": "classifier.1",
    "fc7": "classifier.4",
    "fc8": "classifier.6",
}
_EDITION = "alexnet-owt"
_WRAPPERS = ("module", "_orig_mod")


def read_state_dict(path: Path) -> Plain:
    """Tensors of a ``.pt``, ``.pth`` or ``.safetensors`` file, as float32, under plain names.

    A file may hold the ``state_dict`` under that key; what ``DataParallel`` and ``torch.compile``
    put into names goes.

    Raises:
        InterchangeError: it cannot be read, holds something else than tensors, or would run code.
    """
    loaded = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else loaded
    if not isinstance(inner, Mapping) or not inner:
        raise InterchangeError(f"{path} holds no state_dict but a {type(inner).__name__}")
    plain = {}
    for name, value in inner.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            what = value.dtype if isinstance(value, torch.Tensor) else type(value).__name__
            raise InterchangeError(f"{path}: {name} is no tensor of real numbers but a {what}")
        own = (part for part in str(name).split(".") if part not in _WRAPPERS)
        plain[".".join(own)] = value.detach().float()
    return plain


def state_dict_bytes(plain: Mapping[str, torch.Tensor]) -> bytes:
    """A ``state_dict`` as ``torch.save`` writes it."""
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in plain.items()}, buffer)
    return buffer.getvalue()


def to_torchvision(network: Network, plain: Mapping[str, torch.Tensor]) -> Plain:
    """The same tensors under the names of ``torchvision.models.alexnet``.

    Raises:
        InterchangeError: the network is not its.
    """
    if network.name != _EDITION:
        raise InterchangeError(f"torchvision's AlexNet is {_EDITION}, not {network.name}")
    return {
        f"{theirs}.{kind}": plain[f"{ours}.{kind}"]
        for ours, theirs in _TORCHVISION.items()
        for kind in KINDS
    }


def has_torchvision_names(plain: Mapping[str, torch.Tensor]) -> bool:
    """Whether they are those of ``torchvision.models.alexnet``."""
    return f"{_TORCHVISION['conv1']}.weight" in plain


def from_torchvision(plain: Mapping[str, torch.Tensor]) -> Plain:
    """What ``to_torchvision`` undoes; other names stay."""
    ours = {theirs: name for name, theirs in _TORCHVISION.items()}
    parted = ((name.rpartition("."), tensor) for name, tensor in plain.items())
    return {f"{ours.get(layer, layer)}.{kind}": tensor for (layer, _, kind), tensor in parted}


def _pickled(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InterchangeError(f"cannot read {path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        # PyTorch's message is a page on how to load it all the same.
        raise InterchangeError(
            f"{path} holds more than tensors, or is damaged: only a state_dict is loaded"
        ) from error
    except Exception as error:
        # What is no such file fails in whatever way its bytes lead to.
        first = str(error).partition("\n")[0]
        raise InterchangeError(f"{path} is no file of torch.save: {first}") from error


def _safetensors(path: Path) -> object:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InterchangeError(f"cannot read {path}: {error}") from error

"""A plain ``state_dict`` as PyTorch writes it: names as ``AlexNet`` has them, or torchvision's."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch

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
TORCHVISION_NAMES = tuple(f"{theirs}.{kind}" for theirs in _TORCHVISION.values() for kind in KINDS)


def state_dict_bytes(plain: Mapping[str, torch.Tensor]) -> bytes:
    """A ``state_dict`` as ``torch.save`` writes it."""
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in plain.items()}, buffer)
    return buffer.getvalue()


def to_torchvision(network: Network, plain: Mapping[str, torch.Tensor]) -> Plain:
    """The same tensors under the names of ``torchvision.models.alexnet``.

    Raises:
        InterchangeError: the network is not torchvision's AlexNet.
    """
    if network.name != _EDITION:
        raise InterchangeError(f"torchvision's AlexNet is {_EDITION}, not {network.name}")
    return {
        f"{theirs}.{kind}": plain[f"{ours}.{kind}"]
        for ours, theirs in _TORCHVISION.items()
        for kind in KINDS
    }


def from_torchvision(plain: Mapping[str, torch.Tensor]) -> Plain:
    """The reverse of ``to_torchvision``; other names stay."""
    ours = {theirs: name for name, theirs in _TORCHVISION.items()}
    parted = ((name.rpartition("."), tensor) for name, tensor in plain.items())
    return {f"{ours.get(layer, layer)}.{kind}": tensor for (layer, _, kind), tensor in parted}

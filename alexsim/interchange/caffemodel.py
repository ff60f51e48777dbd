"""Weights out of a ``.caffemodel``, as Caffe has written it since 2014 or before (``layers``)."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from alexsim.errors import InterchangeError
from alexsim.interchange import caffe_messages as messages
from alexsim.interchange.caffe import Plain, blob_shape, described, turned
from alexsim.interchange.layout import KINDS, plain_shape, weighted, with_classes
from alexsim.network.layers import Shape
from alexsim.network.network import Network

# Types that decide what is computed, beside the weights; V1 files have numbers for them.
_V1_TYPES = {
    4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling", 18: "ReLU", 19: "Sigmoid",
    23: "TanH", 26: "Power", 33: "Slice",
}  # fmt: skip


def read_caffemodel(data: bytes, network: Network, where: str) -> tuple[Plain, Any]:
    """The plain ``state_dict`` of a ``.caffemodel`` by the network's names, and the file's net.

    The last layer may have another number of outputs.

    Raises:
        InterchangeError: it is no such file, lacks a layer, has another shape.
    """
    net = messages.parsed(data, "NetParameter", where)
    blobs = {layer.name: layer.blobs for layer in (*net.layers, *net.layer) if layer.blobs}
    if not blobs:
        raise InterchangeError(f"{where} holds no weights")
    last = network.weighted_layers[-1]
    if len(blobs.get(last, ())) == len(KINDS):
        biases = messages.blob_values(blobs[last][-1], f"{where}: {last}.bias")
        network = with_classes(network, biases.size)
    plain: dict[str, torch.Tensor] = {}
    for parts in weighted(network):
        name = parts[0].layer.name
        layer_blobs = blobs.pop(name, ())
        if len(layer_blobs) != len(KINDS):
            raise InterchangeError(
                f"{where}: {name} must have weights and biases, has {len(layer_blobs)} blobs"
            )
        for kind, blob in zip(KINDS, layer_blobs, strict=True):
            values = messages.blob_values(blob, f"{where}: {name}.{kind}")
            shape = blob_shape(network, parts, kind)
            # Before 2014 every blob had four extents.
            if _without_ones(values.shape) != _without_ones(shape):
                raise InterchangeError(
                    f"{where}: {name}.{kind} has shape {values.shape}, {network.name} needs {shape}"
                )
            whole = plain_shape(network, parts, kind)
            plain[f"{name}.{kind}"] = torch.from_numpy(values).reshape(whole)
    if blobs:
        raise InterchangeError(f"{where} has layers that {network.name} has not: {min(blobs)}")
    return turned(network, plain), net


def difference(net: Any, network: Network) -> str:
    """The first layer of a file's net that computes something else than ours; empty if none does.

    Raises:
        InterchangeError: Caffe cannot express the network.
    """
    theirs, ours = _functions(net), _functions(described(network))
    # Some files hold weights only.
    for their, our in zip_longest(theirs, ours, fillvalue="nothing") if theirs else ():
        if their != our:
            return f"it has {their} where {network.name} has {our}"
    return ""


def _without_ones(shape: Shape) -> Shape:
    start = next((i for i, extent in enumerate(shape) if extent != 1), len(shape))
    return tuple(shape[start:])


def _functions(net: Any) -> list[str]:
    kinds = [(layer, _V1_TYPES.get(layer.type, "")) for layer in net.layers]
    kinds += [(layer, layer.type) for layer in net.layer]
    return [
        f"{kind}{_norm_text(layer.lrn_param) if kind == 'LRN' else ''}"
        for layer, kind in kinds
        if kind in _V1_TYPES.values()
    ]


def _norm_text(norm: Any) -> str:
    numbers = (np.float32(value) for value in (norm.alpha, norm.beta, norm.k))
    region = " within a channel" if norm.norm_region else ""
    return f" of {norm.local_size}{region} ({', '.join(f'{value:.4g}' for value in numbers)})"

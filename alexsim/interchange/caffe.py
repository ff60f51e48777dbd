"""A network as Caffe's ``.prototxt`` and ``.caffemodel``, in the manner of ``bvlc_alexnet``.

What differs, and what is done about it:

- Colours: Caffe's images are BGR. The first layer's input channels are turned around.
- Edges: Caffe pads both sides alike. Zeros that hang over the right and bottom edges of the first
  convolution become part of the input: 227 pixels for a crop of 224.
- ``LRN``: Caffe divides alpha by the window (its area, within a channel). A constant other than 1
  is taken out of the sum, as a ``Power`` layer that scales. A network of several columns slices,
  norms each, and concatenates.
- Dropout: as in a plain ``state_dict`` (see ``layout``).
- Pools always round up, as ours do; a pool that leaves pixels out is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from alexsim.errors import InterchangeError
from alexsim.interchange import caffe_messages as messages
from alexsim.interchange.layout import (
    KINDS,
    check,
    dropout_factors,
    is_grouped_product,
    plain_groups,
    plain_shape,
    plain_shapes,
    unknown_kind,
    weighted,
)
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Shape,
    Sigmoid,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    Tanh,
    pair,
)
from alexsim.network.network import Network
from alexsim.network.part import INPUT, Part, letter

Plain = Mapping[str, torch.Tensor]

_DATA = "data"
_IN_PLACE = {ReLU: "ReLU", Sigmoid: "Sigmoid", Tanh: "TanH"}


def caffe_files(network: Network, plain: Plain, notes: tuple[str, ...] = ()) -> tuple[bytes, str]:
    """A ``.caffemodel`` and its ``.prototxt``, which begins with ``notes`` as comments.

    Raises:
        InterchangeError: Caffe cannot express the network, or the weights do not fit.
    """
    check(plain, plain_shapes(network), network)
    net = described(network)
    comments = "".join(f"# {note}\n" for note in notes)
    text = comments + messages.text_of(net)
    bgr = turned(network, plain)
    layers = {layer.name: layer for layer in net.layer}
    for parts in weighted(network):
        name = parts[0].layer.name
        for kind in KINDS:
            values = bgr[f"{name}.{kind}"].reshape(blob_shape(network, parts, kind))
            messages.fill_blob(layers[name].blobs.add(), values.float().numpy())
    return bytes(net.SerializeToString()), text


def described(network: Network) -> Any:
    """The network as a ``NetParameter``, without weights.

    Raises:
        InterchangeError: Caffe cannot express it.
        NetworkError: it has no plain form.
    """
    dropout_factors(network)
    net = messages.new_message("NetParameter")
    net.name = network.name
    data = net.layer.add(name=_DATA, type="Input", top=[_DATA])
    data.input_param.shape.add().dim.extend((1, *caffe_input_shape(network)))
    bottom = _DATA
    for parts in network.parts:
        bottom = _add(net, network, parts, bottom)
    return net


def _add(net: Any, network: Network, parts: tuple[Part, ...], bottom: str) -> str:
    """Add a layer that reads ``bottom``; gives the name of its output."""
    first, name = parts[0], parts[0].layer.name
    match first.layer:
        case Convolution() as layer:
            return _add_convolution(net, layer, parts, bottom)
        case FullyConnected() if is_grouped_product(network, parts):
            return _add_grouped_product(net, parts, bottom)
        case FullyConnected():
            message = _new(net, name, "InnerProduct", bottom)
            message.inner_product_param.num_output = sum(p.output_shape[0] for p in parts)
        case MaxPool() | AveragePool() as layer:
            _refuse_leftover(layer, first)
            message = _new(net, name, "Pooling", bottom)
            message.pooling_param.pool = int(isinstance(layer, AveragePool))
            size, stride = pair(layer.size)[0], pair(layer.stride)[0]
            message.pooling_param.kernel_size, message.pooling_param.stride = size, stride
        case LocalResponseNorm() as layer:
            _add_norms(net, layer, len(parts), bottom)
        case SpatialResponseNorm() as layer:
            message = _new(net, name, "LRN", bottom)
            _set_norm(message.lrn_param, layer, layer.size**2)
            message.lrn_param.norm_region = 1
            _add_scale(net, layer)
        case Dropout(rate=rate):
            message = _new(net, name.replace("dropout", "drop"), "Dropout", bottom, top=bottom)
            message.dropout_param.dropout_ratio = rate
            return bottom
        case SoftmaxCrossEntropy():
            _new(net, "prob", "Softmax", bottom)
        case other:
            if type(other) not in _IN_PLACE:
                raise unknown_kind(other, "a Caffe file")
            _new(net, name, _IN_PLACE[type(other)], bottom, top=bottom)
            return bottom
    return name


def _new(net: Any, name: str, kind: str, bottom: str, *, top: str | None = None) -> Any:
    return net.layer.add(name=name, type=kind, bottom=[bottom], top=[top or name])


def _add_convolution(net: Any, layer: Convolution, parts: tuple[Part, ...], bottom: str) -> str:
    first = parts[0]
    over = layer.end_paddings(first.input_shape) != pair(layer.padding)
    if over and first.reads[0].layer != INPUT:
        raise InterchangeError(
            f"layer {layer.name!r}: its windows hang over the right and bottom edges; Caffe pads"
            " both sides alike"
        )
    message = _new(net, layer.name, "Convolution", bottom).convolution_param
    message.num_output, message.kernel_size = layer.filters * len(parts), pair(layer.size)[0]
    message.pad, message.stride = pair(layer.padding)[0], pair(layer.stride)[0]
    message.group = plain_groups(parts)
    return layer.name


def _add_grouped_product(net: Any, parts: tuple[Part, ...], bottom: str) -> str:
    """Caffe's products have no groups; a convolution with one output pixel has."""
    first, name = parts[0], parts[0].layer.name
    if len(first.input_shape) == 1:
        pixel = _new(net, f"{name}_pixel", "Reshape", bottom)
        pixel.reshape_param.shape.dim.extend((0, len(parts) * first.input_shape[0], 1, 1))
        bottom = pixel.name
    message = _new(net, name, "Convolution", bottom).convolution_param
    message.num_output, message.group = sum(p.output_shape[0] for p in parts), len(parts)
    message.kernel_h, message.kernel_w = (*first.input_shape, 1, 1)[1:3]
    return name


def _add_norms(net: Any, layer: LocalResponseNorm, columns: int, bottom: str) -> None:
    if columns == 1:
        _set_norm(_new(net, layer.name, "LRN", bottom).lrn_param, layer, layer.size)
        _add_scale(net, layer)
        return
    letters = [letter(column) for column in range(columns)]
    sliced = net.layer.add(name=f"{layer.name}_slice", type="Slice", bottom=[bottom])
    sliced.top.extend(f"{layer.name}_slice_{name}" for name in letters)
    for name, top in zip(letters, sliced.top, strict=True):
        _set_norm(_new(net, f"{layer.name}_{name}", "LRN", top).lrn_param, layer, layer.size)
    joined = net.layer.add(name=layer.name, type="Concat", top=[layer.name])
    joined.bottom.extend(f"{layer.name}_{name}" for name in letters)
    _add_scale(net, layer)


def _set_norm(norm: Any, layer: LocalResponseNorm | SpatialResponseNorm, window: int) -> None:
    """With ``k = 1``, which is all that Caffe has within a channel, and all that OpenCV reads."""
    norm.local_size, norm.beta = layer.size, layer.beta
    norm.alpha = layer.alpha * window / layer.k


def _add_scale(net: Any, layer: LocalResponseNorm | SpatialResponseNorm) -> None:
    """``(k + alpha sum)^-beta`` is ``k^-beta (1 + alpha / k sum)^-beta``: the first factor."""
    if layer.k != 1:
        message = _new(net, f"{layer.name}_k", "Power", layer.name, top=layer.name)
        message.power_param.scale = layer.k**-layer.beta


def _refuse_leftover(layer: MaxPool | AveragePool, part: Part) -> None:
    for extent, out in zip(part.input_shape[1:], part.output_shape[1:], strict=True):
        theirs = -(-(extent - pair(layer.size)[0]) // pair(layer.stride)[0]) + 1
        if theirs != out:
            raise InterchangeError(
                f"layer {layer.name!r}: leaves out what is left of {extent} pixels; Caffe's pools"
                f" do not: {theirs} windows, not {out}"
            )


def caffe_input_shape(network: Network) -> Shape:
    """What Caffe is to be fed: the crop, with the zeros behind its right and bottom edges."""
    channels, *extents = network.input_shape
    layer = network.layers[0]
    if isinstance(layer, Convolution):
        more = zip(layer.end_paddings(network.input_shape), pair(layer.padding), strict=True)
        extents = [extent + end - begin for extent, (end, begin) in zip(extents, more, strict=True)]
    return (channels, *extents)


def turned(network: Network, plain: Plain) -> dict[str, torch.Tensor]:
    """RGB to BGR, or back: the first weighted layer's input channels in the other order."""
    parts = weighted(network)[0]
    name, channels = f"{parts[0].layer.name}.weight", network.input_shape[0]
    if channels == 1:
        return dict(plain)
    weight = plain[name]
    if plain_groups(parts) > 1:
        raise InterchangeError(f"{name}: groups of a colour image's channels cannot become BGR")
    turned = weight.reshape(len(weight), channels, -1).flip(1).reshape(weight.shape)
    return {**plain, name: turned}


def blob_shape(network: Network, parts: tuple[Part, ...], kind: str) -> Shape:
    """Shape of a layer's weights (or biases) in a ``.caffemodel``."""
    shape = plain_shape(network, parts, kind)
    if kind == "weight" and is_grouped_product(network, parts):
        inputs = (*parts[0].input_shape, 1, 1)[:3]
        assert math.prod(inputs) == shape[1]
        return (shape[0], *inputs)
    return shape

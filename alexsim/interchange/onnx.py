"""A network as an ONNX graph of standard operators, with the weights of a plain ``state_dict``.

Built layer by layer, so that the graph is what the network is: zeros behind the edge are a
convolution's padding, dropout is gone, columns are groups. ONNX's ``LRN`` multiplies the mean
of the squares where ours multiplies their sum, so its alpha is ``alpha * size``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import util
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from alexsim.errors import InterchangeError
from alexsim.interchange.layout import (
    check,
    dropout_factors,
    is_grouped_product,
    plain_groups,
    plain_shapes,
    unknown_kind,
)
from alexsim.interchange.module import plain_module
from alexsim.network.layers import (
    AveragePool,
    Convolution,
    Dropout,
    FullyConnected,
    LocalResponseNorm,
    MaxPool,
    Pair,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
    Tanh,
    pair,
)
from alexsim.network.network import Network
from alexsim.network.part import Part

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

# Read by every runtime since 2022; nothing in here needs more.
_OPSET, _IR_VERSION = 17, 8
_SIMPLE = {ReLU: "Relu", Sigmoid: "Sigmoid", Tanh: "Tanh"}

IMAGES, LOGITS, PROBABILITIES = "images", "logits", "probabilities"


def onnx_bytes(
    network: Network, plain: Mapping[str, torch.Tensor], notes: Mapping[str, str]
) -> bytes:
    """The file: ``images [N, C, H, W]`` in, ``logits`` and ``probabilities [N, classes]`` out.

    ``notes`` become the model's metadata.

    Raises:
        InterchangeError: there is no package ``onnx``, or the weights do not fit.
        NetworkError: the network has no plain form.
    """
    if util.find_spec("onnx") is None:
        raise InterchangeError('ONNX needs a package: pip install "alexsim[onnx]"')
    from onnx import TensorProto, checker, helper

    check(plain, plain_shapes(network), network)
    dropout_factors(network)
    graph = _Graph(plain)
    for parts in network.parts:
        graph.add(network, parts)
    kind = TensorProto.FLOAT
    outputs = (LOGITS, PROBABILITIES)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            network.name,
            [helper.make_tensor_value_info(IMAGES, kind, ["N", *network.input_shape])],
            [helper.make_tensor_value_info(name, kind, ["N", network.classes]) for name in outputs],
            graph.tensors,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="alexsim",
    )
    helper.set_model_props(model, dict(notes))
    checker.check_model(model)
    return bytes(model.SerializeToString())


def largest_difference(
    model: bytes, network: Network, plain: Mapping[str, torch.Tensor], deviation: float
) -> float | None:
    """Between the probabilities that onnxruntime and the plain module give 8 random images.

    ``deviation`` is that of the pixels. None without the package ``onnxruntime``.
    """
    if util.find_spec("onnxruntime") is None:
        return None
    from onnxruntime import InferenceSession

    generator = torch.Generator().manual_seed(0)
    images = deviation * torch.randn(8, *network.input_shape, generator=generator)
    module = plain_module(network, "meta")
    module.load_state_dict(dict(plain), assign=True)
    with torch.no_grad():
        ours = module(images).flatten(1).softmax(1).numpy()
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    (theirs,) = session.run([PROBABILITIES], {IMAGES: images.numpy()})
    return float(np.abs(ours - theirs).max())


class _Graph:
    """Nodes in order, each reading the output of the node before, and their constants."""

    def __init__(self, plain: Mapping[str, torch.Tensor]) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self._plain = plain
        self._output = IMAGES

    def add(self, network: Network, parts: tuple[Part, ...]) -> None:
        """One layer over all its columns."""
        first, name = parts[0], parts[0].layer.name
        match first.layer:
            case Convolution() as layer:
                self._convolution(layer, parts)
            case FullyConnected() if is_grouped_product(network, parts):
                self._flatten(first, name)
                inputs = len(parts) * math.prod(first.input_shape)
                self._reshape(f"{name}.pixel", -1, inputs, 1, 1)
                weight = self._plain[f"{name}.weight"].unsqueeze(3)
                self._node("Conv", name, *self._weights(name, weight), group=len(parts))
                self._node("Flatten", f"{name}.units")
            case FullyConnected():
                self._flatten(first, name)
                weights = self._weights(name, self._plain[f"{name}.weight"])
                self._node("Gemm", name, *weights, transB=1)
            case LocalResponseNorm() as layer:
                self._norm(layer, parts)
            case SpatialResponseNorm() as layer:
                self._spatial_norm(layer)
            case MaxPool() | AveragePool() as layer:
                # Not ceil_mode: runtimes differ in whether a window past the edge counts.
                pads = [*pair(layer.padding), *layer.overhangs(first.input_shape)]
                self._pool(type(layer).__name__, name, layer.size, layer.stride, pads=pads)
            case Dropout():
                pass
            case SoftmaxCrossEntropy():
                self._finish(first)
            case other:
                if type(other) not in _SIMPLE:
                    raise unknown_kind(other, "an ONNX file")
                self._node(_SIMPLE[type(other)], name)

    def _convolution(self, layer: Convolution, parts: tuple[Part, ...]) -> None:
        ends = layer.end_paddings(parts[0].input_shape)
        self._node(
            "Conv",
            layer.name,
            *self._weights(layer.name, self._plain[f"{layer.name}.weight"]),
            kernel_shape=pair(layer.size),
            strides=pair(layer.stride),
            pads=[*pair(layer.padding), *ends],
            group=plain_groups(parts),
        )

    def _norm(self, layer: LocalResponseNorm, parts: tuple[Part, ...]) -> None:
        shape = parts[0].input_shape
        # Columns as separate images: the norm never crosses them.
        if len(parts) > 1:
            self._reshape(f"{layer.name}.columns", -1, *shape)
        self._node(
            "LRN",
            layer.name,
            size=layer.size,
            alpha=layer.alpha * layer.size,
            beta=layer.beta,
            bias=layer.k,
        )
        if len(parts) > 1:
            self._reshape(f"{layer.name}.whole", -1, len(parts) * shape[0], *shape[1:])

    def _spatial_norm(self, layer: SpatialResponseNorm) -> None:
        x, name = self._output, layer.name
        self._node("Mul", f"{name}.squares", x)
        self._pool(
            "AveragePool",
            f"{name}.mean",
            layer.size,
            1,
            pads=[layer.size // 2] * 4,
            count_include_pad=1,
        )
        self._node(
            "Mul", f"{name}.scaled", self._number(f"{name}.alpha", layer.alpha * layer.size**2)
        )
        self._node("Add", f"{name}.denominator", self._number(f"{name}.k", layer.k))
        self._node("Pow", f"{name}.factor", self._number(f"{name}.power", -layer.beta))
        self._node("Mul", name, x)

    def _pool(self, op: str, name: str, size: Pair, stride: Pair, **attributes: Any) -> None:
        self._node(op, name, kernel_shape=pair(size), strides=pair(stride), **attributes)

    def _finish(self, softmax: Part) -> None:
        self._flatten(softmax, softmax.layer.name)
        self.nodes[-1].output[0] = self._output = LOGITS
        self._node("Softmax", PROBABILITIES, axis=1)

    def _flatten(self, part: Part, name: str) -> None:
        if len(part.input_shape) > 1:
            self._node("Flatten", f"{name}.flat")

    def _reshape(self, name: str, *shape: int) -> None:
        self._node("Reshape", name, self._constant(f"{name}.shape", np.array(shape, np.int64)))

    def _weights(self, name: str, weight: torch.Tensor) -> tuple[str, str]:
        bias = self._plain[f"{name}.bias"]
        return (
            self._constant(f"{name}.weight", weight.float().numpy()),
            self._constant(f"{name}.bias", bias.float().numpy()),
        )

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, np.array(value, np.float32))

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.tensors.append(
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        )
        return name

    def _node(self, op: str, name: str, *inputs: str, **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(op, [self._output, *inputs], [name], name, **attributes))
        self._output = name

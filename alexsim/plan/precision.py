"""Which type every number has where PyTorch's autocast chooses: precision ``amp``.

Autocast goes by an operator's name. The lists are those of ``aten/src/ATen/autocast_mode.h``
(PyTorch 2.13; for CUDA), which a test compares with the file that is installed. What is on none of
them takes the type of its inputs, the widest where these differ. Half precision is bfloat16 or
float16, two bytes either way.

Parameters stay float32, with their gradients and the update rule's state. What computes in half
precision reads a copy of each, made in the forward pass and held until the layer's backward pass is
over (autocast's cache, then autograd's graph); and a copy of each input that is not half, which the
backward pass reads again. Likewise copies in float32. The gradient of a copy has its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from alexsim.network.counts import FLOAT, FLOAT_BYTES, Widths
from alexsim.network.layers import (
    Convolution,
    FullyConnected,
    Layer,
    LayerNorm,
    LocalResponseNorm,
    Operator,
    Softmax,
    SoftmaxCrossEntropy,
    SpatialResponseNorm,
)
from alexsim.network.network import Network
from alexsim.network.part import INPUT, Part
from alexsim.plan.choices import PlanPrecision

HALF_BYTES = 2
Rule = Literal["half", "float", "float result", "as its inputs"]
"""``half`` and ``float`` cast every input; a ``float result`` is of inputs as they are."""

LISTS: Mapping[Rule, frozenset[str]] = {
    # AT_FORALL_LOWER_PRECISION_FP
    "half": frozenset({
        "_convolution", "conv1d", "conv2d", "conv3d", "conv_tbc", "conv_transpose1d",
        "conv_transpose2d", "conv_transpose3d", "convolution", "prelu", "addmm", "addmv", "addr",
        "matmul", "einsum", "mm", "mv", "linalg_vecdot", "linear", "addbmm", "baddbmm", "bmm",
        "chain_matmul", "linalg_multi_dot", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell",
        "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
        "_scaled_dot_product_flash_attention", "scaled_dot_product_attention",
    }),
    # AT_FORALL_FP32
    "float": frozenset({
        "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p",
        "reciprocal", "rsqrt", "sinh", "tan", "pow", "softplus", "layer_norm", "native_layer_norm",
        "rms_norm", "group_norm", "frobenius_norm", "nuclear_norm", "cosine_similarity",
        "poisson_nll_loss", "cosine_embedding_loss", "nll_loss", "nll_loss2d",
        "hinge_embedding_loss", "kl_div", "l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss",
        "margin_ranking_loss", "multilabel_margin_loss", "soft_margin_loss", "triplet_margin_loss",
        "multi_margin_loss", "binary_cross_entropy_with_logits", "dist", "pdist", "cdist", "renorm",
        "logsumexp", "upsample_nearest1d", "_upsample_nearest_exact1d", "upsample_nearest2d",
        "_upsample_nearest_exact2d", "upsample_nearest3d", "_upsample_nearest_exact3d",
        "upsample_linear1d", "upsample_bilinear2d", "_upsample_bilinear2d_aa",
        "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bicubic2d_aa",
    }),
    # AT_FORALL_FP32_SET_OPT_DTYPE, and norm of AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE
    "float result": frozenset({
        "prod", "softmax", "log_softmax", "cumprod", "cumsum", "linalg_vector_norm",
        "linalg_matrix_norm", "sum", "norm",
    }),
}  # fmt: skip
"""Operators by what autocast does."""
_LAYERS: Mapping[type[Layer], Rule] = {
    Convolution: "half",
    FullyConnected: "half",
    LayerNorm: "float",
    Softmax: "float result",
    SoftmaxCrossEntropy: "float result",
    # F.local_response_norm raises its sums to a power, which is float32, and divides by that.
    LocalResponseNorm: "float result",
    SpatialResponseNorm: "float result",
}
_PARAMETERS_ASIDE = frozenset({"batch_norm", "instance_norm"})
"""Operators whose result has their input's type, whatever that of their parameters."""


def rule_of(layer: Layer, half_layers: frozenset[str] | None = None) -> Rule:
    """What autocast does with a layer; where it is on for ``half_layers`` alone, others' products
    are ``float``."""
    rule = _rule_of(layer)
    off = half_layers is not None and layer.name not in half_layers
    return "float" if rule == "half" and off else rule


def half_by_rule(network: Network) -> tuple[str, ...]:
    """Layers that autocast computes in half precision."""
    return tuple(layer.name for layer in network.layers if rule_of(layer) == "half")


def _rule_of(layer: Layer) -> Rule:
    if not isinstance(layer, Operator):
        return _LAYERS.get(type(layer), "as its inputs")
    for rule, names in LISTS.items():
        if layer.target in names:
            return rule
    # What a float32 parameter is added to, or multiplies, becomes float32.
    widens = bool(layer.operands) and layer.target not in _PARAMETERS_ASIDE
    return "float result" if widens else "as its inputs"


def output_bytes(
    network: Network, precision: PlanPrecision, half_layers: frozenset[str] | None = None
) -> Mapping[str, int]:
    """Bytes of one value of each layer's output, and of the images, which are float32.

    Outputs that lie side by side in one block of memory have one type, the widest of theirs.
    """
    if precision == "amp":
        return _amp_bytes(network, half_layers)
    return dict.fromkeys(network.readers, FLOAT_BYTES)


@lru_cache(maxsize=64)
def _amp_bytes(network: Network, half_layers: frozenset[str] | None) -> Mapping[str, int]:
    parts = [part for parts in network.parts for part in parts]
    groups = {group for part in parts for group in part.inputs if len(group) > 1}
    widened: set[str] = set()
    while True:
        sizes = {INPUT: FLOAT_BYTES}
        for part in parts:
            name, rule = part.layer.name, rule_of(part.layer, half_layers)
            size = HALF_BYTES if rule == "half" else FLOAT_BYTES
            if rule == "as its inputs":
                size = max(sizes[read.layer] for read in part.reads)
            sizes[name] = max(size, sizes.get(name, 0), FLOAT_BYTES * (name in widened))
        uneven = {
            read.layer
            for group in groups
            if len({sizes[read.layer] for read in group}) > 1
            for read in group
        }
        if uneven <= widened:
            return sizes
        widened |= uneven


@dataclass(frozen=True, slots=True, kw_only=True)
class Types:
    """The types of a plan's numbers."""

    precision: PlanPrecision
    output_bytes: Mapping[str, int]
    """Of one value of each layer's output, and of its gradient."""
    half_layers: frozenset[str] | None = None
    """As ``PlanSpec`` has them."""

    def half(self, part: Part) -> bool:
        """Whether a part computes in half precision."""
        return self.precision == "amp" and rule_of(part.layer, self.half_layers) == "half"

    def widths(self, part: Part) -> Widths:
        """Bytes of the values that a part reads and writes."""
        if self.precision != "amp":
            return FLOAT
        rule = rule_of(part.layer, self.half_layers)
        stored = tuple(max(self.output_bytes[r.layer] for r in group) for group in part.inputs)
        of_copies = {"half": HALF_BYTES, "float": FLOAT_BYTES}.get(rule)
        return Widths(
            stored=stored,
            read=(of_copies,) * len(stored) if of_copies else stored,
            output=self.output_bytes[part.layer.name],
            weight=HALF_BYTES if rule == "half" else FLOAT_BYTES,
        )

    def both(self, first: Part, second: Part) -> tuple[Widths, Widths]:
        """The same of two parts that are one op."""
        return self.widths(first), self.widths(second)


def types_of(
    network: Network, precision: PlanPrecision, half_layers: frozenset[str] | None = None
) -> Types:
    """The types of the numbers of a network's plan."""
    return Types(
        precision=precision,
        output_bytes=output_bytes(network, precision, half_layers),
        half_layers=half_layers,
    )

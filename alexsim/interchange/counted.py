"""Calls of ATen operators that are counted from their shapes: products, bytes, what autograd holds.

Multiply-adds are those of ``torch.utils.flop_counter``; what is saved for the backward pass, of
PyTorch's ``tools/autograd/derivatives.yaml``. An operator that is in neither table moves its bytes
(``formula=False``), and is taken to save what it reads and what it returns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx

from alexsim.interchange.exported import IMAGES, VIEWS, Call, Constant
from alexsim.interchange.mapped import Trace, Value, is_view, is_viewed, per_image
from alexsim.network.layers import (
    Auxiliary,
    Elementwise,
    Operator,
    Parameter,
    Product,
    Role,
    Saved,
    Shape,
)

_COPIES = frozenset({
    "_to_copy", "cat", "clone", "constant_pad_nd", "contiguous", "flip", "gather", "index",
    "index_select", "pad", "pixel_shuffle", "pixel_unshuffle", "repeat", "repeat_interleave",
    "roll", "detach", "stack", "to", "tril", "triu", "embedding", "channel_shuffle",
    "native_channel_shuffle",
})  # fmt: skip
"""They move values and compute nothing; autograd holds indices at most."""
_PRODUCTS = frozenset({
    "addmm", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "convolution", "einsum", "linear", "matmul", "mm", "mv",
    "scaled_dot_product_attention",
})  # fmt: skip
_FLOP: dict[str, tuple[int, int, str]] = {
    # FLOP per output value, forward and per input's gradient, and what is held: (i)nputs, (o)utput.
    "abs": (1, 1, "i"), "add": (1, 0, ""), "clamp": (2, 1, "i"), "clamp_min": (1, 1, "i"),
    "cos": (1, 2, "i"), "div": (1, 2, "i"), "elu": (3, 3, "o"), "erf": (1, 4, "i"),
    "exp": (1, 1, "o"), "gelu": (5, 10, "i"), "hardsigmoid": (4, 3, "i"), "hardswish": (5, 5, "i"),
    "hardtanh": (2, 2, "i"), "leaky_relu": (2, 2, "i"), "log": (1, 1, "i"),
    "log_softmax": (5, 3, "o"), "masked_fill": (0, 1, ""), "maximum": (1, 1, "i"),
    "minimum": (1, 1, "i"), "mish": (7, 12, "i"), "mul": (1, 1, "i"), "neg": (1, 1, ""),
    "pow": (1, 2, "i"), "reciprocal": (1, 2, "o"), "relu": (1, 1, "o"), "relu6": (2, 2, "i"),
    "rsqrt": (2, 3, "o"), "rsub": (1, 1, ""), "sigmoid": (4, 3, "o"), "silu": (5, 9, "i"),
    "sin": (1, 2, "i"), "softmax": (5, 4, "o"), "softplus": (3, 4, "i"), "sqrt": (1, 2, "o"),
    "square": (1, 2, "i"), "sub": (1, 0, ""), "tanh": (5, 3, "o"), "where": (1, 1, ""),
}  # fmt: skip
_REDUCTIONS = {
    # Per value that is read.
    "amax": (1, 1, "io"), "amin": (1, 1, "io"), "linalg_vector_norm": (2, 2, "io"),
    "max": (1, 1, ""), "mean": (1, 1, ""), "min": (1, 1, ""), "norm": (2, 2, "io"),
    "prod": (1, 2, "io"), "std": (4, 3, "io"), "sum": (1, 0, ""), "var": (3, 3, "i"),
    "adaptive_avg_pool1d": (1, 1, "i"), "adaptive_avg_pool2d": (1, 1, "i"),
    "adaptive_avg_pool3d": (1, 1, "i"), "avg_pool1d": (1, 1, "i"), "avg_pool2d": (1, 1, "i"),
    "avg_pool3d": (1, 1, "i"), "cumsum": (1, 1, ""),
}  # fmt: skip
_NORMS = frozenset({"batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"})
_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout")
_RESIZES = ("upsample", "interpolate")


def operator(mapping: Trace, call: Call, shape: Shape) -> Operator:
    """The call, counted."""
    nodes = list(_nodes(call.arguments.values()))
    if call.target in VIEWS:
        del nodes[1:]  # of what follows it needs the shape: expand_as
    reads = [mapping.read(node) for node in nodes]
    values = list(dict.fromkeys(read.layer for read in reads if isinstance(read, Value)))
    # What is drawn or made for every image, or repeated for it, reads nothing of any.
    made = not values
    if made:
        values = [mapping.input_name]
    target = call.target.rstrip("_")
    flop, kept, formula = _arithmetic(call, target)
    if target in ("mul", "div") and sum(map(_learns, reads)) < 2:
        kept = ""  # only the other factor's gradient needs it
    products, grads = _products(mapping, call, target, values)
    shares, operands = _operands(mapping, call, reads)
    return Operator(
        name=call.name,
        inputs=tuple(values),
        shares=shares,
        in_place=call.target.endswith("_"),
        target=target,
        shape=shape,
        products=products,
        grad_products=grads,
        flop=flop,
        formula=formula,
        operands=operands,
        keeps=_copied(mapping, call, values, _saved(call, target, kept, len(values), shape)),
        is_view=_views(call) and not made,
        is_made=made,
    )


def _views(call: Call) -> bool:
    if call.target == "contiguous":
        source = call.arguments["self"].meta["val"]
        return bool(source.is_contiguous())
    return call.target in VIEWS and (call.target not in ("reshape", "flatten") or is_view(call))


def _nodes(arguments: Any) -> Iterator[fx.Node]:
    for argument in arguments:
        if isinstance(argument, fx.Node):
            yield argument
        elif isinstance(argument, tuple | list):
            yield from _nodes(argument)


def _operands(
    mapping: Trace, call: Call, reads: Sequence[Any]
) -> tuple[str, tuple[Parameter, ...]]:
    """Parameters and buffers: all of them, and the operator before whose they are; or those that no
    layer before has."""
    read = [sorted(constant.keys) for constant in reads if isinstance(constant, Constant)]
    keys = [key for key in dict.fromkeys(k for each in read for k in each) if key in mapping.state]
    operands = tuple(_operand(key, mapping.state[key]) for key in keys)
    owners = {mapping.taken.get(key, "") for key in keys}
    for layer in mapping.layers:
        if owners == {layer.name} and isinstance(layer, Operator) and layer.operands == operands:
            return layer.name, operands
    claimed = tuple(operand for operand in operands if operand.name not in mapping.taken)
    mapping.taken |= {operand.name: call.name for operand in claimed}
    return "", claimed


def _operand(key: str, tensor: torch.Tensor) -> Parameter:
    role = Role.WEIGHT if tensor.dim() > 1 else Role.BIAS
    return Parameter(
        key, tuple(tensor.shape) or (1,), role if tensor.requires_grad else Role.RUNNING
    )


def _arithmetic(call: Call, target: str) -> tuple[Elementwise, str, bool]:
    """FLOP of one image, what is held, and whether a formula is known."""
    tensors = (node.meta.get("val") for node in _nodes(call.arguments.values()))
    sizes = [tensor.numel() for tensor in tensors if isinstance(tensor, torch.Tensor)]
    outputs, inputs = call.output.numel() // IMAGES, max(sizes, default=0) // IMAGES
    if target in _PRODUCTS:
        adds = outputs * _has_bias(call, target)
        return Elementwise(adds, 0, adds), "i", True
    if target in _FLOP:
        forward, backward, kept = _FLOP[target]
        return Elementwise(forward * outputs, backward * outputs), kept, True
    if target in _REDUCTIONS:
        forward, backward, kept = _REDUCTIONS[target]
        return Elementwise(forward * inputs, backward * inputs), kept, True
    if target in _NORMS:
        return Elementwise(8 * outputs, 11 * outputs, 4 * outputs), "i", True
    if target.startswith(("max_pool", "adaptive_max_pool")):
        return Elementwise(inputs, inputs), "i", True
    if target.startswith(_RESIZES):
        return Elementwise(7 * outputs, 7 * outputs), "", True
    if target in _DROPOUTS:
        return Elementwise(outputs, outputs), "", True
    if target in _COPIES or target in VIEWS:
        return Elementwise(0, 0), "", True
    return Elementwise(0, 0), "io", False


def _has_bias(call: Call, target: str) -> bool:
    name = "self" if target in ("addmm", "baddbmm") else "bias"
    return isinstance(call.arguments.get(name), fx.Node)


def _saved(call: Call, target: str, kept: str, inputs: int, shape: Shape) -> Saved:
    places = tuple(range(inputs)) if "i" in kept else ()
    beside: tuple[Auxiliary, ...] = ()
    if target in ("layer_norm", "rms_norm", "group_norm", "instance_norm"):
        rows = _rows(call, target)
        names = ("rstd",) if target == "rms_norm" else ("mean", "rstd")
        beside = tuple(Auxiliary(name, (rows,), "norm") for name in names)
    elif target == "batch_norm":
        beside = tuple(Auxiliary(n, shape[:1], "norm", per_image=False) for n in ("mean", "rstd"))
    elif target == "scaled_dot_product_attention":
        beside = (Auxiliary("logsumexp", shape[:-1], "norm"),)
        return Saved(places, True, beside)
    elif target.startswith(("max_pool", "adaptive_max_pool")):
        beside = (Auxiliary("indices", shape, "norm", item_bytes=8),)
    elif target in ("dropout", "where", "masked_fill"):
        beside = (
            Auxiliary("mask", shape, "mask" if target == "dropout" else "norm", item_bytes=1),
        )
    return Saved(places, "o" in kept, beside)


def _copied(mapping: Trace, call: Call, values: Sequence[str], saved: Saved) -> Saved:
    """``matmul`` of batches of matrices that do not lie one behind the other copies them
    (``LinearAlgebra.cpp``: ``expand``, then ``reshape`` to three axes), and holds the copy."""
    if call.target != "matmul":
        return saved
    operands = [call.arguments[name] for name in ("self", "other")]
    if any(node.meta["val"].dim() < 3 for node in operands):
        return saved
    kept, copies = set(), []
    for place, node in enumerate(operands):
        read, tensor = mapping.read(node), node.meta["val"]
        if not isinstance(read, Value):
            continue
        if is_viewed(tensor, (-1, *tensor.shape[-2:])):
            kept.add(values.index(read.layer))
        else:
            copies.append(Auxiliary(f"copy{place}", per_image(tensor), "activation"))
    return saved._replace(inputs=tuple(sorted(kept)), beside=tuple(copies)) if copies else saved


def _learns(read: Any) -> bool:
    return isinstance(read, Value) or (isinstance(read, Constant) and read.trained)


def _rows(call: Call, target: str) -> int:
    given = call.arguments
    if target in ("layer_norm", "rms_norm"):
        return int(call.output.numel() // math.prod(given["normalized_shape"]) // IMAGES)
    if target == "group_norm":
        return int(given["num_groups"])
    return int(call.output.shape[1])


def _products(
    mapping: Trace, call: Call, target: str, values: Sequence[str]
) -> tuple[tuple[Product, ...], tuple[tuple[Product, ...], ...]]:
    """Products of the forward pass, and of each input's gradient, in the order of ``values``."""
    if target not in _PRODUCTS:
        return (), ()
    given = call.arguments
    if target == "scaled_dot_product_attention":
        return _attention(mapping, call, values)
    if "conv" in target:
        product = _convolved(call, target)
        return (product,), ((_turned(product),),)
    if target == "linear":
        names: tuple[Any, Any] = (given["input"], given["weight"])
    elif target == "einsum":
        return _contracted(mapping, call, values)
    elif target in ("addmm", "baddbmm"):
        names = (given.get("mat1", given.get("batch1")), given.get("mat2", given.get("batch2")))
    else:
        names = (given["self"], given.get("mat2", given.get("other", given.get("vec"))))
    first, second = (mapping.read(name) for name in names)
    a, b = (name.meta["val"] for name in names)
    grads: dict[str, tuple[Product, ...]] = {}
    depth = a.shape[-1]
    columns = 1 if b.dim() == 1 else b.shape[-2 if target == "linear" else -1]
    if isinstance(first, Value) and isinstance(second, Value):
        rows = a.shape[-2] if a.dim() > 1 else 1
        times = call.output.numel() // (rows * columns) // IMAGES
        product = Product(rows, depth, columns, times, per_image=True)
        grads = {first.layer: (_turned(product),)}
        other = product._replace(rows=depth, depth=rows)
        grads[second.layer] = (*grads.get(second.layer, ()), other)
    else:
        rows = max(1, call.output.numel() // columns // IMAGES)
        product = Product(rows, depth, columns)
        read = first if isinstance(first, Value) else second
        grads = {read.layer: (_turned(product),)} if isinstance(read, Value) else {}
    return (product,), tuple(grads.get(name, ()) for name in values)


def _turned(product: Product) -> Product:
    """The product that gives the gradient of its first matrix."""
    return product._replace(depth=product.columns, columns=product.depth)


def _attention(
    mapping: Trace, call: Call, values: Sequence[str]
) -> tuple[tuple[Product, ...], tuple[tuple[Product, ...], ...]]:
    """Scores and their weighted sums; the backward pass computes the scores again, as the kernels
    that keep no scores do (``torch.utils.flop_counter``: five products)."""
    nodes = [call.arguments[name] for name in ("query", "key", "value")]
    query, key, value = (node.meta["val"] for node in nodes)
    rows, depth, keys, width = query.shape[-2], query.shape[-1], key.shape[-2], value.shape[-1]
    times = query.numel() // (rows * depth) // IMAGES

    def product(*sides: int) -> Product:
        return Product(sides[0], sides[1], sides[2], times, per_image=True)

    scores, sums = product(rows, depth, keys), product(rows, keys, width)
    parts = {
        "query": (scores, product(rows, keys, depth)),
        "key": (product(keys, rows, depth),),
        "value": (product(keys, rows, width), product(rows, width, keys)),
    }
    grads: dict[str, tuple[Product, ...]] = {}
    for node, products in zip(nodes, parts.values(), strict=True):
        read = mapping.read(node)
        name = read.layer if isinstance(read, Value) else values[0]
        grads[name] = grads.get(name, ()) + products
    return (scores, sums), tuple(grads.get(name, ()) for name in values)


def _convolved(call: Call, target: str) -> Product:
    given = call.arguments
    weight, images = given["weight"].meta["val"], given["input"].meta["val"]
    groups, taps = given["groups"], math.prod(weight.shape[2:])
    if "transpose" in target or given.get("transposed"):
        # Every value that is read spreads over a window.
        rows = math.prod(images.shape[2:]) * images.shape[0] // IMAGES
        return Product(rows, weight.shape[0] // groups, weight.shape[1] * taps, groups)
    # The first axis may hold several rows of each image.
    rows = math.prod(call.output.shape[2:]) * call.output.shape[0] // IMAGES
    return Product(rows, weight.shape[1] * taps, weight.shape[0] // groups, groups)


def _contracted(
    mapping: Trace, call: Call, values: Sequence[str]
) -> tuple[tuple[Product, ...], tuple[tuple[Product, ...], ...]]:
    """``einsum`` of two tensors as one product."""
    nodes = list(_nodes([call.arguments["tensors"]]))
    terms, _, out = call.arguments["equation"].replace(" ", "").partition("->")
    if len(nodes) != 2 or "." in terms or not out:
        return (), ()
    first, second = terms.split(",")
    extents: dict[str, int] = {}
    for term, node in zip((first, second), nodes, strict=True):
        extents |= dict(zip(term, node.meta["val"].shape, strict=True))

    def size(letters: set[str]) -> int:
        return math.prod([int(extents[letter]) for letter in letters])

    a, b, o = set(first), set(second), set(out)
    rows, columns, depth, times = (
        size((a - b) & o),
        size((b - a) & o),
        size(a & b - o),
        size(a & b & o),
    )
    reads = [mapping.read(node) for node in nodes]
    both = all(isinstance(read, Value) for read in reads)
    if both:
        times = max(1, times // IMAGES)
        product = Product(rows, depth, columns, times, per_image=True)
    else:
        product = Product(max(1, rows // IMAGES), depth, columns, times)
    grads: dict[str, tuple[Product, ...]] = {}
    for read, turned in zip(
        reads, (_turned(product), product._replace(rows=depth, depth=rows)), strict=True
    ):
        if isinstance(read, Value):
            grads[read.layer] = (*grads.get(read.layer, ()), turned)
    return (product,), tuple(grads.get(name, ()) for name in values)

"""A PyTorch module as the calls of ATen operators that it makes, by ``torch.export``.

What does not depend on the images (parameters, and what is computed of them alone) is a
``Constant`` without a layer, unless every image has its own copy of it, with which something is
computed; calls that reach no output, or only count minibatches, are left out.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch._ops import HigherOrderOperator

from alexsim.errors import NetworkError
from alexsim.interchange.outputs import outputs
from alexsim.interchange.refused import quiet, refuse_by_values, refuse_inputs, why_not
from alexsim.network.layers import Shape
from alexsim.network.part import INPUT

IMAGES = 13
"""Images of the traced minibatch: a number that no other extent of a tensor is likely to be."""
_IGNORED = frozenset({
    "_assert_async", "_assert_scalar", "_assert_tensor_metadata", "sym_constrain_range",
    "sym_constrain_range_for_size", "sym_size",
})  # fmt: skip
MADE_LIKE = frozenset({
    "empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like",
    "zeros_like",
})  # fmt: skip
"""Of another tensor's shape or type only."""
_SHAPED_LIKE = frozenset({"expand_as", "reshape_as", "type_as", "view_as"})
"""Of their second argument they read its shape or type only."""
VIEWS = frozenset({
    "_unsafe_view", "alias", "as_strided", "broadcast_to", "diagonal", "expand", "expand_as",
    "flatten", "getitem", "movedim", "narrow", "numpy_T", "permute", "reshape", "select", "slice",
    "squeeze", "swapaxes", "swapdims", "t", "transpose", "unflatten", "unfold", "unsqueeze", "view",
    "view_as",
})  # fmt: skip
_REPEATS = frozenset({
    "broadcast_to", "cat", "expand", "expand_as", "repeat", "repeat_interleave", "stack", "tile",
})  # fmt: skip
_SAME_VALUES = VIEWS | _REPEATS | frozenset({
    "chunk", "clone", "contiguous", "detach", "lift_fresh_copy", "split", "split_with_sizes", "to",
    "tensor_split", "unbind", "unsafe_chunk", "unsafe_split",
})  # fmt: skip
_PER_IMAGE = frozenset({"baddbmm", "bmm", "einsum", "matmul", "scaled_dot_product_attention"})
"""Products of two tensors that every image has of its own."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One call of an operator, its shapes those of ``IMAGES`` images."""

    name: str
    """What the module's user would call it: ``layer1.0.conv2``, or ``layer1.0.add``."""
    target: str
    """``conv2d``, ``relu_``, ``add``: the operator's name without namespace and overload."""
    overload: str
    arguments: Mapping[str, Any]
    """By the schema's names, defaults filled in; tensors are the values of other calls."""
    output: torch.Tensor
    """Of the first result, without data."""
    node: fx.Node


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constant:
    """A parameter, a buffer, or what is computed of them: it is the same for every image."""

    keys: frozenset[str]
    """In the module's ``state_dict``."""
    tensor: torch.Tensor
    """Its shape."""
    trained: bool
    direct: bool = True
    """The parameter itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What a module does to a minibatch, in order."""

    calls: tuple[Call, ...]
    constants: Mapping[fx.Node, Constant]
    images: fx.Node
    heads: tuple[fx.Node, ...]
    """Outputs, the answer first."""
    names: tuple[str, ...]
    """What the module calls them; their places where it does not."""


def exported(module: nn.Module, input_shape: Shape) -> Exported:
    """Trace a module as it is trained: on ``eval()``, in training mode; it is left as it was.

    Args:
        module: takes images ``[N, *input_shape]``, returns logits ``[N, classes]``, or several of
            them, the answer first.
        input_shape: of one image.

    Raises:
        NetworkError: PyTorch cannot export it, or it returns no tensor.
    """
    parameter = next(module.parameters(), torch.empty(0))
    if parameter.dtype not in (torch.float32, torch.float64):
        raise NetworkError(
            f"{type(module).__name__} is {str(parameter.dtype).removeprefix('torch.')}: give it in"
            " float32, and ask for --precision amp"
        )
    refuse_inputs(module)
    modes = {child: child.training for child in module.modules()}
    if not module.training:
        # Parts of a module in training mode that are not are meant so.
        module.train()
    images = torch.zeros(IMAGES, *input_shape, dtype=parameter.dtype, device=parameter.device)
    try:
        with quiet():
            program = torch.export.export(module, (images,), strict=False)
    except Exception as error:  # PyTorch's and the module's own, of whatever kind
        raise NetworkError(why_not(module, input_shape, error, IMAGES)) from error
    finally:
        for child, training in modes.items():
            child.training = training
    return _read(program, module)


def _read(program: torch.export.ExportedProgram, module: nn.Module) -> Exported:
    graph, signature = program.graph, program.graph_signature
    keys = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    keys |= dict(signature.inputs_to_lifted_tensor_constants)
    named = module.named_parameters(remove_duplicate=False)
    trained = {name for name, value in named if value.requires_grad}
    constants: dict[fx.Node, Constant] = {}
    images = []
    for node in graph.nodes:
        if node.op == "placeholder":
            if node.name in keys:
                key = keys[node.name]
                constants[node] = Constant(
                    keys=frozenset({key}), tensor=node.meta["val"], trained=key in trained
                )
            else:
                images.append(node)
    _refuse_regions(graph)
    returned = outputs(program)
    if not returned:
        raise NetworkError(f"{type(module).__name__} returns no tensor: what is its answer?")
    names, heads = zip(*returned, strict=True)
    for name, head in returned:
        if images[0] not in _reached((head,)):
            raise NetworkError(f"output {name} of the module does not depend on its images")
    live = _reached(heads)
    nodes = [n for n in graph.nodes if n.op == "call_function" and n in live]
    refuse_by_values(nodes)
    _add_computed(nodes, constants)
    return Exported(
        calls=tuple(_calls([node for node in nodes if node not in constants], module)),
        constants=constants,
        images=images[0],
        heads=heads,
        names=names,
    )


def _add_computed(nodes: list[fx.Node], constants: dict[fx.Node, Constant]) -> None:
    """Add what is computed of constants alone, but for what is computed for every image: of latents
    that are repeated for the minibatch, ``lat.expand(len(x), -1, -1)``.

    Repeated constants that are only added to what the images become, or put beside it (a class
    token), stay constants: that costs what it would cost of the parameter itself.
    """
    origins: dict[fx.Node, frozenset[fx.Node]] = {}
    computed: set[fx.Node] = set()
    for node in nodes:
        reads = _read_by(node)
        repeated = frozenset().union(*(origins.get(read, frozenset()) for read in reads))
        if _depends(node, constants):
            if repeated and _target(node) in _PER_IMAGE:
                computed |= repeated
            continue
        if repeated and _target(node) not in _SAME_VALUES:
            computed |= repeated
            continue
        if _repeats(node):
            repeated |= {node}
        origins[node] = repeated
        above = [constants[read] for read in reads if read in constants]
        constants[node] = Constant(
            keys=frozenset().union(*(value.keys for value in above)),
            tensor=_first(node),
            trained=any(value.trained for value in above),
            direct=False,
        )
    for node, repeated in origins.items():
        if repeated & computed:
            del constants[node]


def _read_by(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values a call reads."""
    reads = node.all_input_nodes
    return reads[:1] if _target(node) in _SHAPED_LIKE else reads


def _repeats(node: fx.Node) -> bool:
    """Whether a call makes of a tensor as many as there are images."""
    reads = _read_by(node)
    if _target(node) not in _REPEATS or len(reads) != 1:
        return False
    before, after = _first(reads[0]).numel(), _first(node).numel()
    return before > 0 and after % (before * IMAGES) == 0


def _refuse_regions(graph: fx.Graph) -> None:
    """Refuse blocks with rules of their own, into which a trace does not look.

    Raises:
        NetworkError: names their kind, and the module.
    """
    for node in graph.nodes:
        name = _target(node) if node.op == "call_function" else ""
        if isinstance(node.target, HigherOrderOperator):
            kinds = {"set_grad_enabled": "torch.no_grad", "autocast": "autocast"}
            what = kinds.get(name.removeprefix("wrap_with_"), name)
            raise NetworkError(
                f"{_path(node) or 'forward'} has a block of {what}, which is not read: leave it out"
                " (frozen parameters have requires_grad=False, types are --precision)"
            )


def _first(node: fx.Node) -> torch.Tensor:
    value = node.meta["val"]
    while isinstance(value, tuple | list):
        value = value[0]
    assert isinstance(value, torch.Tensor)
    return value


def _reached(heads: tuple[fx.Node, ...]) -> set[fx.Node]:
    live: set[fx.Node] = set()
    open_nodes = list(heads)
    while open_nodes:
        node = open_nodes.pop()
        if node not in live:
            live.add(node)
            open_nodes.extend(node.all_input_nodes)
    return live


def _depends(node: fx.Node, constants: Mapping[fx.Node, Constant]) -> bool:
    """Whether a call depends on the images, by its inputs or its shape."""
    made = not node.all_input_nodes or _target(node) in MADE_LIKE
    if not made and any(read not in constants for read in _read_by(node)):
        return True
    # What is drawn for every image: torch.empty(N, ...).bernoulli_().
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return not isinstance(value, tuple | list)
    return made and IMAGES in value.shape


def _calls(nodes: list[fx.Node], module: nn.Module) -> Iterator[Call]:
    nodes = [node for node in nodes if _target(node) not in _IGNORED]
    modules = dict(module.named_modules())
    counted = Counter(_key(node) for node in nodes if node.target is not operator.getitem)
    taken: Counter[str] = Counter((INPUT, "softmax"))
    for node in nodes:
        path = _path(node)
        target = _target(node)
        whole = path in modules and not list(modules[path].children()) and counted[_key(node)] == 1
        name = path if whole else ".".join(filter(None, (path, target.rstrip("_"))))
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}:{taken[name]}"
        schema = getattr(node.target, "_schema", None)
        yield Call(
            name=name,
            target=target,
            overload=getattr(node.target, "_overloadname", ""),
            arguments=_arguments(node, schema),
            output=_first(node),
            node=node,
        )


def _arguments(node: fx.Node, schema: Any) -> dict[str, Any]:
    if schema is None:
        return {f"arg{index}": value for index, value in enumerate(node.args)}
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    given |= node.kwargs
    return {
        argument.name: given.get(argument.name, argument.default_value)
        for argument in schema.arguments
    }


def _target(node: fx.Node) -> str:
    packet = getattr(node.target, "overloadpacket", None)
    if packet is not None:
        return str(packet.__name__)
    return str(getattr(node.target, "__name__", node.target))


def _key(node: fx.Node) -> str:
    """The call of a module in which an operator is called."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    return str(list(stack)[-1])


def _path(node: fx.Node) -> str:
    """The innermost module in whose ``forward`` an operator is called."""
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""

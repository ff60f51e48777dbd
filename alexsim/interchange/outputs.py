"""What a module returns: which tensor is its answer, and which are other heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

_ANSWER = "logits"


def outputs(program: torch.export.ExportedProgram) -> tuple[tuple[str, fx.Node], ...]:
    """Each tensor that a traced module returns, with what it is called, the answer first.

    An entry ``logits`` of a dict, or of a named tuple, is the answer, and entries with it in their
    name (``aux_logits``) are other heads: the rest has no cost. Without such an entry the first is
    the answer.
    """
    spec = program.call_spec.out_spec
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    results = program.graph_signature.output_specs
    needed = {result.arg.name for result in results
              if result.kind.name == "USER_OUTPUT" and hasattr(result.arg, "name")}  # fmt: skip
    theirs = output.args[0][len(output.args[0]) - spec.num_leaves :]
    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(theirs), spec))
    named = [
        (_called(path, place), node)
        for place, (path, node) in enumerate(paths)
        if isinstance(node, fx.Node)
        and node.name in needed
        and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    if any(name == _ANSWER for name, _ in named):
        named = [(name, node) for name, node in named if _ANSWER in name]
        named.sort(key=lambda each: each[0] != _ANSWER)
    return tuple(named)


def _called(path: Sequence[Any], place: int) -> str:
    """The last name on an output's way out of what is returned; its place where it has none."""
    for key in reversed(path):
        name = getattr(key, "key", getattr(key, "name", None))
        if isinstance(name, str):
            return name
    return str(place)

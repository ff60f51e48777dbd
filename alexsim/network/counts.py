"""What one op costs: multiply-adds, other arithmetic, and bytes that it must move.

What is counted
---------------
``mac``: multiply-adds of convolutions and fully connected layers; 1 MAC = 2 FLOP. Windows over
    the zero border count in full, as every published figure of AlexNet does.
``elementwise_flop``: everything else, per output element of a layer what its class says
    (``Layer.elementwise``; the gradient of a bias is 1). ``update`` is what the rule's row in
    ``alexsim.network.update_rules`` says: in 2012 7 per weight and 4 per other parameter; where
    ``grad_weight`` is fused into the update, 6 of the 7 move to ``grad_weight``.
``moved_bytes``: each operand read once and each result written once, 4 bytes per element: the
    least traffic any kernel has, not what a given kernel does. Of two layers that one kernel does,
    all arithmetic, and the operands of both without what lies between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from alexsim.network.layers import Concat
from alexsim.network.part import Part
from alexsim.network.update_rules import RULES, Optimizer

FLOAT_BYTES = 4
PASSES = ("forward", "grad_input", "grad_weight", "update")
"""What is done of a layer in a training step, in this order."""
_remembered = lru_cache(maxsize=1 << 13)
"""Plans of other choices, and of other machines' budgets, have the same ops again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Cost of one op over a whole minibatch."""

    mac: int = 0
    elementwise_flop: int = 0
    moved_bytes: int = 0

    @property
    def flop(self) -> int:
        """FLOP of the multiply-adds: two each."""
        return 2 * self.mac


def macs(part: Part) -> int:
    """Multiply-adds of one image's forward pass; its two gradients cost the same each."""
    return part.multiply_adds


@_remembered
def forward(part: Part, batch_size: int) -> Count:
    """Cost of the forward op."""
    outputs = math.prod(part.output_shape)
    return _count(
        batch_size,
        mac=macs(part),
        elementwise=part.arithmetic.forward,
        elements=part.input_values + outputs + _auxiliary(part, batch=False),
        parameters=part.parameters_read + _auxiliary(part, batch=True),
    )


@_remembered
def grad_input(part: Part, batch_size: int, index: int | None = None) -> Count:
    """Cost of the gradient with respect to the layer's whole input, or to one of its inputs."""
    outputs = math.prod(part.output_shape)
    inputs = part.input_values if index is None else math.prod(part.input_shapes[index])
    if isinstance(part.layer, Concat):
        outputs = inputs  # a slice of it
    shapes = (part.input_shape, part.output_shape)
    return _count(
        batch_size,
        mac=part.layer.grad_multiply_adds(*shapes, index or 0),
        elementwise=part.arithmetic.grad_input,
        elements=outputs + inputs + _elements_reread(part, index),
        parameters=_backward_parameters(part) + _auxiliary(part, batch=True),
    )


@_remembered
def grad_weight(part: Part, batch_size: int, *, fused: bool, later: bool = False) -> Count:
    """Cost of the weight and bias gradients; ``fused``: added into the momentum at once.

    ``later``: into a momentum, or a gradient, that earlier images of the same step have gone into
    already.
    """
    outputs, inputs = math.prod(part.output_shape), math.prod(part.input_shape)
    count = _count(
        batch_size,
        mac=macs(part),
        elementwise=part.arithmetic.grad_weight,
        elements=outputs + inputs,
        parameters=part.parameters_read + _auxiliary(part, batch=True),
    )
    if not fused:
        added = part.parameters_read if later else 0
        return Count(
            mac=count.mac,
            elementwise_flop=count.elementwise_flop + added,
            moved_bytes=count.moved_bytes + FLOAT_BYTES * added,
        )
    # Reads the weight (decay) and the momentum beside writing the momentum.
    per_weight, reads = (2, 1) if later else (RULES["sgd-2012"].fused_flop, 2)
    return Count(
        mac=count.mac,
        elementwise_flop=count.elementwise_flop + per_weight * part.weight_count,
        moved_bytes=count.moved_bytes + reads * FLOAT_BYTES * part.weight_count,
    )


def forward_of_both(first: Part, second: Part, batch_size: int) -> Count:
    """Cost of two layers' forward passes as one op."""
    count = _count(
        batch_size,
        mac=macs(first),
        elementwise=first.arithmetic.forward + second.arithmetic.forward,
        elements=first.input_values + math.prod(second.output_shape),
        parameters=first.parameters_read,
    )
    return replace(count, moved_bytes=count.moved_bytes + _bytes_kept(second, batch_size))


def grad_input_of_both(first: Part, second: Part, batch_size: int, *, counted: bool) -> Count:
    """Cost of the gradient of the first's input from that of the second's output.

    ``counted``: the second's arithmetic is counted with another op that does it too.
    """
    again = first.input_values if "input" in first.layer.backward_reads else 0
    count = _count(
        batch_size,
        mac=macs(first),
        elementwise=first.arithmetic.grad_input + (0 if counted else second.arithmetic.grad_input),
        elements=math.prod(second.output_shape) + first.input_values + again,
        parameters=_backward_parameters(first),
    )
    return replace(count, moved_bytes=count.moved_bytes + epilogue_read_bytes(second, batch_size))


def grad_weight_of_both(
    first: Part, second: Part, batch_size: int, *, fused: bool, later: bool = False
) -> Count:
    """Cost of the first's weight gradients from that of the second's output."""
    plain = grad_weight(first, batch_size, fused=fused, later=later)
    return Count(
        mac=plain.mac,
        elementwise_flop=plain.elementwise_flop + second.arithmetic.grad_input * batch_size,
        moved_bytes=plain.moved_bytes + epilogue_read_bytes(second, batch_size),
    )


def epilogue_read_bytes(second: Part, batch_size: int) -> int:
    """Bytes beside its output's gradient that a backward op through the second layer reads."""
    output = FLOAT_BYTES * batch_size * math.prod(second.output_shape)
    return _bytes_kept(second, batch_size) or output


@_remembered
def update(part: Part, *, fused: bool, optimizer: Optimizer = "sgd-2012") -> Count:
    """Cost of one update of the part's parameters; ``fused``: of what ``grad_weight`` leaves."""
    rule = RULES[optimizer]
    biases = part.parameters - part.weight_count
    per_weight = rule.weight_flop - (rule.fused_flop if fused else 0)
    accesses = rule.read_values + rule.written_values
    # Fused: read momentum, read and write weight, and neither read gradient nor write momentum.
    moved = (accesses - (2 if fused else 0)) * part.weight_count + accesses * biases
    if rule.counts_updates:
        moved += 2
    return Count(
        elementwise_flop=per_weight * part.weight_count + rule.other_flop * biases,
        moved_bytes=FLOAT_BYTES * moved,
    )


def _bytes_kept(second: Part, batch_size: int) -> int:
    """Bytes that the second of two layers leaves for backward passes beside its output."""
    buffers = second.layer.kept_fused(second.output_shape)
    return batch_size * sum(math.prod(buffer.shape) * buffer.item_bytes for buffer in buffers)


def _count(batch_size: int, *, mac: int, elementwise: int, elements: int, parameters: int) -> Count:
    return Count(
        mac=mac * batch_size,
        elementwise_flop=elementwise * batch_size,
        moved_bytes=FLOAT_BYTES * (elements * batch_size + parameters),
    )


def _auxiliary(part: Part, *, batch: bool) -> int:
    """Values of auxiliary buffers: those that every image has, or those of the minibatch."""
    return sum(math.prod(kept.shape) for kept in part.auxiliary if kept.per_image != batch)


def _backward_parameters(part: Part) -> int:
    """Parameters that the input's gradient is computed from."""
    weight = part.read_by_name.get("weight")
    return math.prod(weight.shape) if weight else 0


def _elements_reread(part: Part, index: int | None = None) -> int:
    """Elements per image that the backward op reads beside the output's gradient."""
    sizes = {
        "output": math.prod(part.output_shape),
        "input": part.input_values
        if index is None
        else part.input_values - math.prod(part.input_shapes[index]),
    }
    reread = sum(sizes[name] for name in part.layer.backward_reads)
    return reread + _auxiliary(part, batch=False)

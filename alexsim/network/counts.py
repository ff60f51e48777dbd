"""What one op costs: multiply-adds, other arithmetic, and bytes that it must move.

What is counted
---------------
``mac``: multiply-adds of convolutions and fully connected layers; 1 MAC = 2 FLOP. Windows over
    the zero border count in full, as every published figure of AlexNet does.
``elementwise_flop``: everything else, per output element of a layer what its class says
    (``Layer.elementwise``; the gradient of a bias is 1). ``update`` is what the rule's row in
    ``alexsim.network.update_rules`` says: in 2012 7 per weight and 4 per other parameter; where
    ``grad_weight`` is fused into the update, 6 of the 7 move to ``grad_weight``.
``moved_bytes``: each operand read once and each result written once, 4 bytes per element unless
    ``Widths`` say otherwise: the least traffic any kernel has, not what a given kernel does. Of two
    layers that one kernel does, all arithmetic, and the operands of both without what lies between
    them. An operand that is first copied as another type is read and written once more
    (``cast_bytes``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

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
    cast_bytes: int = field(default=0, repr=False)
    """Of ``moved_bytes``, those of copies that only change a value's type."""

    @property
    def flop(self) -> int:
        """FLOP of the multiply-adds: two each."""
        return 2 * self.mac


class Widths(NamedTuple):
    """Bytes of one value, by what it is to a layer; float32 unless ``alexsim.plan.precision`` says
    otherwise."""

    stored: tuple[int, ...] = ()
    """Of each input, where it lies; float32 where none is named."""
    read: tuple[int, ...] = ()
    """As the layer reads it: of a copy, where another number is stored."""
    output: int = FLOAT_BYTES
    weight: int = FLOAT_BYTES
    """Of its parameters as it reads them: of copies, where that is not float32."""

    def of_input(self, index: int) -> int:
        """As the layer reads an input."""
        return self.read[index] if self.read else FLOAT_BYTES

    def cast(self, index: int) -> int:
        """Bytes that a copy of one value of an input moves; 0 where it is read as it lies."""
        if not self.read or self.read[index] == self.stored[index]:
            return 0
        return self.read[index] + self.stored[index]

    @property
    def weight_cast(self) -> int:
        """The same of a parameter, or of its gradient."""
        return 0 if self.weight == FLOAT_BYTES else self.weight + FLOAT_BYTES


FLOAT = Widths()


def macs(part: Part) -> int:
    """Multiply-adds of one image's forward pass; its two gradients cost the same each."""
    return part.multiply_adds


@_remembered
def forward(part: Part, batch_size: int, widths: Widths = FLOAT, *, cast: bool = True) -> Count:
    """Cost of the forward op; ``cast``: it makes its parameters' copies, where it reads copies."""
    return _count(
        batch_size,
        mac=macs(part),
        elementwise=part.arithmetic.forward,
        image_bytes=_input_bytes(part, widths)
        + widths.output * math.prod(part.output_shape)
        + _auxiliary(part, batch=False),
        other_bytes=widths.weight * part.parameters_read + _auxiliary(part, batch=True),
        image_cast=_input_casts(part, widths),
        other_cast=widths.weight_cast * part.parameters_read if cast else 0,
    )


@_remembered
def grad_input(
    part: Part, batch_size: int, index: int | None = None, widths: Widths = FLOAT
) -> Count:
    """Cost of the gradient with respect to the layer's whole input, or to one of its inputs."""
    outputs = math.prod(part.output_shape)
    inputs = part.input_values if index is None else math.prod(part.input_shapes[index])
    if isinstance(part.layer, Concat):
        outputs = inputs  # a slice of it
    shapes, at = (part.input_shape, part.output_shape), index or 0
    # The gradient of a copy has the copy's type, and is then cast itself. What nothing copies is
    # written as it is kept.
    written = inputs * widths.of_input(at)
    return _count(
        batch_size,
        mac=part.layer.grad_multiply_adds(*shapes, at),
        elementwise=part.arithmetic.grad_input,
        image_bytes=widths.output * outputs + written + _bytes_reread(part, widths, index),
        other_bytes=widths.weight * _backward_parameters(part) + _auxiliary(part, batch=True),
        image_cast=inputs * widths.cast(at),
    )


@_remembered
def grad_weight(
    part: Part, batch_size: int, widths: Widths = FLOAT, *, fused: bool, later: bool = False
) -> Count:
    """Cost of the weight and bias gradients; ``fused``: added into the momentum at once.

    ``later``: into a momentum, or a gradient, that earlier images of the same step have gone into
    already.
    """
    outputs, inputs = math.prod(part.output_shape), math.prod(part.input_shape)
    count = _count(
        batch_size,
        mac=macs(part),
        elementwise=part.arithmetic.grad_weight,
        image_bytes=widths.output * outputs + widths.of_input(0) * inputs,
        other_bytes=widths.weight * part.parameters_read + _auxiliary(part, batch=True),
        other_cast=widths.weight_cast * part.parameters_read,
    )
    if not fused:
        added = part.parameters_read if later else 0
        return replace(
            count,
            elementwise_flop=count.elementwise_flop + added,
            moved_bytes=count.moved_bytes + FLOAT_BYTES * added,
        )
    # Reads the weight (decay) and the momentum beside writing the momentum.
    per_weight, reads = (2, 1) if later else (RULES["sgd-2012"].fused_flop, 2)
    return replace(
        count,
        elementwise_flop=count.elementwise_flop + per_weight * part.weight_count,
        moved_bytes=count.moved_bytes + reads * FLOAT_BYTES * part.weight_count,
    )


def forward_of_both(
    first: Part,
    second: Part,
    batch_size: int,
    widths: tuple[Widths, Widths] = (FLOAT, FLOAT),
    *,
    cast: bool = True,
) -> Count:
    """Cost of two layers' forward passes as one op."""
    before, after = widths
    count = _count(
        batch_size,
        mac=macs(first),
        elementwise=first.arithmetic.forward + second.arithmetic.forward,
        image_bytes=_input_bytes(first, before) + after.output * math.prod(second.output_shape),
        other_bytes=before.weight * first.parameters_read,
        image_cast=_input_casts(first, before),
        other_cast=before.weight_cast * first.parameters_read if cast else 0,
    )
    return replace(count, moved_bytes=count.moved_bytes + _bytes_kept(second, batch_size))


def grad_input_of_both(
    first: Part,
    second: Part,
    batch_size: int,
    widths: tuple[Widths, Widths] = (FLOAT, FLOAT),
    *,
    counted: bool,
) -> Count:
    """Cost of the gradient of the first's input from that of the second's output.

    ``counted``: the second's arithmetic is counted with another op that does it too.
    """
    before, after = widths
    again = 2 if "input" in first.layer.backward_reads else 1
    count = _count(
        batch_size,
        mac=macs(first),
        elementwise=first.arithmetic.grad_input + (0 if counted else second.arithmetic.grad_input),
        image_bytes=after.output * math.prod(second.output_shape)
        + again * _input_bytes(first, before),
        other_bytes=before.weight * _backward_parameters(first),
        image_cast=_input_casts(first, before),
    )
    read = epilogue_read_bytes(second, batch_size, after)
    return replace(count, moved_bytes=count.moved_bytes + read)


def grad_weight_of_both(
    first: Part,
    second: Part,
    batch_size: int,
    widths: tuple[Widths, Widths] = (FLOAT, FLOAT),
    *,
    fused: bool,
    later: bool = False,
) -> Count:
    """Cost of the first's weight gradients from that of the second's output."""
    plain = grad_weight(first, batch_size, widths[0], fused=fused, later=later)
    return replace(
        plain,
        elementwise_flop=plain.elementwise_flop + second.arithmetic.grad_input * batch_size,
        moved_bytes=plain.moved_bytes + epilogue_read_bytes(second, batch_size, widths[1]),
    )


def epilogue_read_bytes(second: Part, batch_size: int, widths: Widths = FLOAT) -> int:
    """Bytes beside its output's gradient that a backward op through the second layer reads."""
    output = widths.output * batch_size * math.prod(second.output_shape)
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


def _count(
    batch_size: int,
    *,
    mac: int,
    elementwise: int,
    image_bytes: int,
    other_bytes: int,
    image_cast: int = 0,
    other_cast: int = 0,
) -> Count:
    """Sums over the minibatch; what is no image's is counted once."""
    cast = image_cast * batch_size + other_cast
    return Count(
        mac=mac * batch_size,
        elementwise_flop=elementwise * batch_size,
        moved_bytes=image_bytes * batch_size + other_bytes + cast,
        cast_bytes=cast,
    )


def _input_bytes(part: Part, widths: Widths) -> int:
    """Of one image, all that the layer reads."""
    if not widths.read:
        return FLOAT_BYTES * part.input_values
    return sum(
        width * math.prod(shape)
        for width, shape in zip(widths.read, part.input_shapes, strict=True)
    )


def _input_casts(part: Part, widths: Widths) -> int:
    """Of one image, what copies of inputs move."""
    return sum(
        widths.cast(index) * math.prod(shape) for index, shape in enumerate(part.input_shapes)
    )


def _auxiliary(part: Part, *, batch: bool) -> int:
    """Bytes of auxiliary buffers: those that every image has, or those of the minibatch."""
    return sum(
        math.prod(kept.shape) * kept.item_bytes
        for kept in part.auxiliary
        if kept.per_image != batch
    )


def _backward_parameters(part: Part) -> int:
    """Parameters that the input's gradient is computed from."""
    weight = part.read_by_name.get("weight")
    return math.prod(weight.shape) if weight else 0


def _bytes_reread(part: Part, widths: Widths, index: int | None = None) -> int:
    """Bytes per image that the backward op reads beside the output's gradient."""
    again = 0
    if "output" in part.layer.backward_reads:
        again += widths.output * math.prod(part.output_shape)
    if "input" in part.layer.backward_reads:
        again += _input_bytes(part, widths)
        if index is not None:
            again -= widths.of_input(index) * math.prod(part.input_shapes[index])
    return again + _auxiliary(part, batch=False)

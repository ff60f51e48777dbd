"""The buffers of each device: what the 2012 system kept, or what this backend touches.

``as-released`` and ``in-place`` hold every buffer of the released source, used here or not: two
inputs, output and gradient of every layer, norm denominators, dropout masks, copies of the other
GPU's activations and their gradients, weights, momentum, convolution and bias gradients, and the
partial sums of weight gradients. ``reuse`` holds only what some op touches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import Auxiliary, Convolution, Role, Shape, pair
from alexsim.network.part import INPUT, Part, letter
from alexsim.network.update_rules import RULES, UPDATES
from alexsim.plan.plan import Buffer, Category
from alexsim.plan.steps import StepList

LABEL_BYTES = 8


@dataclass(slots=True)
class Piece:
    """A buffer before it has an address and a lifetime; ``purpose``: what it is to its layer."""

    device: int
    layer: str
    column: int
    purpose: str
    category: Category
    shape: Shape
    item_bytes: int = FLOAT_BYTES
    persistent: bool = False
    shares: str = ""
    label: str = field(init=False)
    name: str = field(init=False)
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        within = self.layer != INPUT
        self.label = (
            f"{self.layer}.{letter(self.column)}.{self.purpose}" if within else self.purpose
        )
        self.name = f"gpu{self.device}/{self.label}"
        self.size_bytes = math.prod(self.shape) * self.item_bytes

    def placed(self, block: str, life: tuple[int, int], channel: int = 0) -> Buffer:
        """The buffer in its block; ``life``: its first and last op."""
        return Buffer(
            name=self.name,
            label=self.label,
            device=f"gpu{self.device}",
            category=self.category,
            layer=self.layer,
            column=self.column,
            shape=self.shape,
            item_bytes=self.item_bytes,
            block=block,
            channel=channel,
            shares=self.shares,
            first=life[0],
            last=life[1],
        )


def partial_sum_copies(part: Part) -> int:
    """Copies of a convolution's weights in which the 2012 kernels gathered partial sums.

    ``ceil(modules / partialSum)``. The released layer files have partialSum 5 for conv1, 3 for
    conv2 and 13 for conv3-conv5. For another network it had to be chosen; here it goes by the
    filter as it does there: 5 for 11 x 11, 3 for 5 x 5, 13 for all others. What memory holds and
    what time the sums take both come from here.
    """
    assert isinstance(part.layer, Convolution)
    per_copy = {11: 5, 5: 3}.get(max(pair(part.layer.size)), 13)
    return -(-math.prod(part.output_shape[1:]) // per_copy)


def pieces(steps: StepList) -> list[Piece]:
    """Every buffer of every device, uploads first, then layer by layer."""
    buffers = [*_inputs(steps)]
    for parts in steps.layers:
        for part in parts:
            buffers += _part_pieces(steps, part)
            buffers += _remote_pieces(steps, part)
    buffers += _landings(steps, buffers)
    # An output of another device that several layers read has one copy here.
    buffers = list({piece.name: piece for piece in buffers}.values())
    if steps.spec.policy == "reuse":
        touched = {name for ops in steps.ops for op in ops for name in (*op.reads, *op.writes)}
        buffers = [piece for piece in buffers if piece.name in touched]
    return buffers


def _inputs(steps: StepList) -> Iterator[Piece]:
    shape = (steps.batch_size, *steps.network.input_shape)
    for device in range(len(steps.ops)):
        # The 2012 system uploads the next minibatch while this one trains.
        for name in ("input", "input.next"):
            yield Piece(device, INPUT, 0, name, Category.INPUT, shape)
        if steps.device_of[0] == device:
            images = steps.batch_size * steps.turns
            yield Piece(device, INPUT, 0, "labels", Category.INPUT, (images,), LABEL_BYTES)


def _part_pieces(steps: StepList, part: Part) -> Iterator[Piece]:
    device, layer = steps.device_of[part.column], part.layer
    shape = (steps.batch_size, *part.output_shape)
    trains = layer.name in steps.trainable
    piece = partial(Piece, device, layer.name, part.column)
    item = steps.types.output_bytes[layer.name]
    if part.view:
        return
    # Between two layers that are one op, nothing is in memory.
    if layer.name not in steps.fusions:
        output = piece("activation", Category.ACTIVATION, shape, item_bytes=item)
        if steps.spec.policy != "as-released" and layer.overwrites_input and _is_free(steps, part):
            output.shares = steps.inputs(part)[0][0]
        yield output
    if steps.has_grad(layer.name) and steps.end_of(part, backward=True) is None:
        grad = piece("activation_grad", Category.ACTIVATION_GRAD, shape, item_bytes=item)
        grad.shares = _overwritten(steps, part, grad.name)
        yield grad
    for kept in _left_behind(steps, part):
        images = (steps.batch_size,) if kept.per_image else ()
        held = Category(kept.category)
        yield piece(kept.name, held, (*images, *kept.shape), item_bytes=kept.item_bytes)
    for name, size, role, *_ in part.parameters_by_name.values():
        yield piece(name, Category.WEIGHT, size, persistent=True)
        if not (trains and role != Role.RUNNING):
            continue
        for state in RULES[steps.spec.optimizer].state:
            yield piece(f"{name}.{state}", Category.MOMENTUM, size, persistent=True)
        if not (role == Role.WEIGHT and steps.fuses(part)):
            yield piece(f"{name}.grad", Category.WEIGHT_GRAD, size)
    if trains and part.trained and RULES[steps.spec.optimizer].counts_updates:
        yield piece(UPDATES, Category.MOMENTUM, (1,), persistent=True)
    if trains and isinstance(layer, Convolution):
        # One such buffer per convolution, reused over the columns it reads.
        passes = part.joined
        one_pass = (part.weight_shape[0], part.weight_shape[1] // passes, *part.weight_shape[2:])
        yield piece("partial_sum", Category.PARTIAL_SUM, (partial_sum_copies(part), *one_pass))
    if layer.name not in steps.ends:
        yield from _copies(steps, part, piece)


def _copies(steps: StepList, part: Part, piece: Callable[..., Piece]) -> Iterator[Piece]:
    """What a part reads in another type than it lies in memory, and what its gradients are."""
    widths = steps.types.widths(part)
    for index in steps.copies(part):
        shape, item = (steps.batch_size, *part.input_shapes[index]), widths.of_input(index)
        yield piece(f"x{index}.cast", Category.ACTIVATION, shape, item_bytes=item)
        if any(steps.has_grad(read.layer) for read in part.inputs[index]):
            yield piece(f"dx{index}.cast", Category.WORKSPACE, shape, item_bytes=item)
    halves = steps.half_copies(part)
    for name, parameter in part.read_by_name.items() if steps.first_in_half(part) else ():
        yield piece(f"{name}.half", Category.WEIGHT, parameter.shape, item_bytes=widths.weight)
    if halves and part.owner in steps.trainable:
        size = (part.parameters_read,)
        yield piece("grads.half", Category.WORKSPACE, size, item_bytes=widths.weight)


def _overwritten(steps: StepList, part: Part, grad: str) -> str:
    """The buffer whose memory the gradient of a part's output shares; empty if it shares none."""
    readers = steps.network.readers[part.layer.name]
    if steps.spec.policy != "as-released" and len(readers) == 1:
        (reader,) = readers
        if not steps.alike(part.layer.name, reader):
            return steps.shared.get(grad, "")
        if steps.network.parts_of(reader)[0].layer.overwrites_grad:
            device = steps.device_of[part.column]
            return f"gpu{device}/{reader}.{letter(part.column)}.activation_grad"
    return steps.shared.get(grad, "")


def _left_behind(steps: StepList, part: Part) -> tuple[Auxiliary, ...]:
    """Buffers that a part leaves for the backward pass; of a fused op, its last part does."""
    if part.layer.name in steps.ends:
        return part.layer.kept_fused(part.output_shape)
    return () if part.layer.name in steps.fusions else part.auxiliary


def _remote_pieces(steps: StepList, part: Part) -> Iterator[Piece]:
    device = steps.device_of[part.column]
    for read in part.reads:
        if read.layer == INPUT or steps.device_of[read.column] == device:
            continue
        shape = (steps.batch_size, *steps.network.part_of(*read).output_shape)
        categories = [Category.REMOTE]
        if steps.has_grad(read.layer):
            categories.append(Category.REMOTE_GRAD)
        for category in categories:
            item = steps.types.output_bytes[read.layer]
            yield Piece(device, *read, category, category, shape, item)


def _landings(steps: StepList, buffers: list[Piece]) -> Iterator[Piece]:
    """Buffers in which a remote gradient arrives before it is added, if the backend needs them."""

    def landing(grad: Piece, name: str) -> Piece:
        place = (grad.device, grad.layer, grad.column)
        return Piece(*place, name, Category.WORKSPACE, grad.shape, grad.item_bytes)

    known = {piece.name for piece in buffers}
    grads = {(p.layer, p.column): p for p in buffers if p.category == Category.ACTIVATION_GRAD}
    for exchange in steps.exchanges:
        if exchange.lands and exchange.target_buffer not in known:
            yield landing(grads[exchange.layer, exchange.column], f"from_{exchange.source}")
    for op in (op for ops in steps.ops for op in ops if "landing" in op.operands):
        yield landing(grads[op.layer, op.column], "landing")


def _is_free(steps: StepList, part: Part) -> bool:
    """Whether the first output that a part reads may be overwritten: it is there, and nothing else
    needs it."""
    read, *others = part.inputs[0]
    if others or part.layer.name in steps.ends:
        return False
    if read.layer == INPUT or len(steps.network.readers[read.layer]) > 1:
        return False
    if not steps.alike(read.layer, part.layer.name):
        return False
    return not steps.network.part_of(*read).layer.keeps_output

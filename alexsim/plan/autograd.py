"""What eager PyTorch holds of a step, and from when to when: a reading of the plan's own ops.

Rules, with PyTorch's files (of 2.11 to 2.13)
---------------------------------------------
Forward
    A tensor lives until the last that reads it has run, or as long as something saved it
    (``Layer.saved``; ``tools/autograd/derivatives.yaml``). What PyTorch writes in place costs
    nothing. A concatenation is a copy. Images, labels and the network's answer have names in a
    usual loop, so they last until the next step's take their place.
Backward
    A node of autograd's graph has all of a layer's gradients. What it saved, its output's gradient
    and what it makes are alive together; then the first two go
    (``torch/csrc/autograd/engine.cpp``, ``evaluate_function``). Nodes run in the reverse of the
    forward order. A sum passes its gradient on to all its inputs, a concatenation slices of it:
    no bytes. A second contribution to a gradient is a tensor of its own that is added to the
    first, in place where nobody else has that (``input_buffer.cpp``, ``accumulate``).
    Gradients of parameters stay until the next step sets them to None.
Recomputation
    Blocks of ``torch.utils.checkpoint`` save what they read alone. Before the first of their
    nodes runs, all that they would have saved is made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import (
    Auxiliary,
    Concat,
    Dropout,
    Flatten,
    FullyConnected,
    Saved,
    Shape,
)
from alexsim.network.part import Part
from alexsim.network.views import Read
from alexsim.plan.plan import Category, OpKind
from alexsim.plan.precision import HALF_BYTES
from alexsim.plan.tensors import Held, Tensors

_OF_NODES = frozenset({OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT})


@dataclass(slots=True)
class _Gradient:
    held: Held
    dense: bool = True
    """Whether it is all of that memory, not a slice."""


@dataclass(slots=True, kw_only=True)
class Tape(Tensors):
    """The tensors of one step of a network on one device."""

    recomputed: tuple[frozenset[str], ...] = ()
    """Blocks of layers whose forward pass is done again in the backward pass."""
    _block: dict[str, frozenset[str]] = field(init=False)
    _saved: dict[Read, list[Held]] = field(default_factory=dict)
    _made_by: dict[int, str] = field(default_factory=dict)
    """By identity of what a forward pass made, the layer."""
    _waiting: dict[Read, _Gradient] = field(default_factory=dict)
    _left: int = field(init=False)
    """The tick at which the forward pass, and with it autocast, is over."""
    _answers: set[tuple[str, ...]] = field(init=False)
    """Readers of an output that a loop has a name for."""

    def __post_init__(self) -> None:
        Tensors.__post_init__(self)
        self._answers = {(head.name,) for head in self.steps.network.heads}
        last = max(i for i, op in enumerate(self.ops) if op.kind == OpKind.FORWARD)
        self._left = 2 * last + 1
        self._block = {name: block for block in self.recomputed for name in block}
        for position, op in enumerate(self.ops):
            if op.kind == OpKind.UPLOAD:
                self.upload()
            elif op.kind == OpKind.DRAW:
                self._draw(self.part(op), 2 * position)
            elif op.kind == OpKind.FORWARD:
                self._forward(self.part(op), 2 * position)
        self._backward()
        self.update()
        self.held.sort(key=lambda held: held.first)

    def saved_of(self, block: frozenset[str]) -> int:
        """Bytes that layers saved which they made themselves."""
        saved = (held for read, all_ in self._saved.items() if read.layer in block for held in all_)
        made = {id(held): held for held in saved if self._made_by.get(id(held)) in block}
        return sum(held.piece.size_bytes for held in made.values())

    @staticmethod
    def _saves(part: Part) -> Saved:
        return part.layer.saved(part.input_shape, part.output_shape)

    def _auxiliary(self, part: Part, kept: Auxiliary, first: int, last: int | None = None) -> Held:
        images = (self.steps.batch_size,) if kept.per_image else ()
        factors = isinstance(part.layer, Dropout) and not self.eager.byte_masks
        item = FLOAT_BYTES if factors else kept.item_bytes
        shape, category = (*images, *kept.shape), Category(kept.category)
        return self.hold(part, kept.name, category, shape, first, last, item=item)

    def _draw(self, part: Part, tick: int) -> None:
        for kept in self._saves(part).beside:
            if kept.category == "mask":
                self._auxiliary(part, kept, tick)

    def _inputs(self, part: Part, tick: int) -> list[Held]:
        """What a part reads, input by input; of several columns, a copy of all."""
        inputs = []
        for index, names in enumerate(self.steps.inputs(part)):
            for name in names:
                self.at[name].used(tick)
            if len(names) == 1:
                inputs.append(self.at[names[0]])
            else:
                inputs.append(self._copy_of_input(part, index, f"x{index}", tick))
        widths = self.steps.types.widths(part)
        for index in self.steps.copies(part):
            item = widths.of_input(index)
            inputs[index] = self._copy_of_input(part, index, f"x{index}.cast", tick, item)
        return inputs

    def _copy_of_input(
        self, part: Part, index: int, purpose: str, tick: int, item: int = 0
    ) -> Held:
        """One of what a part reads, put together or in another type."""
        shape = (self.steps.batch_size, *part.input_shapes[index])
        item = item or self.item_bytes(part.inputs[index][0].layer)
        held = self.hold(part, purpose, Category.ACTIVATION, shape, tick, item=item)
        self._made_by[id(held)] = part.layer.name
        return held

    def _half_parameters(self, part: Part, tick: int) -> list[Held]:
        """Autocast's copies of a part's parameters, which last until it is left: layers that share
        parameters have one of each."""
        copies = []
        for name, (buffer,) in self.steps.half_copies(part).items():
            if self.steps.first_in_half(part):
                shape = part.read_by_name[name].shape
                self.hold(
                    part, f"{name}.half", Category.WEIGHT, shape, tick, self._left, item=HALF_BYTES
                )
            copies.append(self.at[buffer])
        return copies

    def _forward(self, part: Part, tick: int) -> None:
        layer, saves = part.layer, self._saves(part)
        inputs = self._inputs(part, tick)
        beside = []
        halves = self._half_parameters(part, tick)
        for kept in saves.beside:
            drawn = self.at.get(self.named(part, kept.name))
            beside.append(drawn or self._auxiliary(part, kept, tick))
        if isinstance(layer, Flatten):
            # A view, of what our kernels copy.
            output = inputs[0]
            self.share(part, "activation", Category.ACTIVATION, output)
        elif layer.in_place and self._is_free(part, inputs[0]):
            output = inputs[0]
            self.share(part, "activation", Category.ACTIVATION, output)
        else:
            shape, item = (self.steps.batch_size, *part.output_shape), self.item_bytes(layer.name)
            output = self.hold(part, "activation", Category.ACTIVATION, shape, tick, item=item)
            self._made_by[id(output)] = layer.name
        for held in (output, *beside):
            held.used(tick)
        self._made_by.update((id(held), layer.name) for held in beside)
        if layer.name in self.steps.learning:
            # The product's weight gradient alone needs its input; a convolution's node holds it.
            frozen = isinstance(layer, FullyConnected) and not self.trains(part)
            read = [] if frozen else [inputs[place] for place in saves.inputs]
            self._saved[part.output] = [*read, *halves, *beside]
            self._saved[part.output] += [output] if saves.output else []
        if self.steps.network.readers[layer.name] in self._answers:
            output.used(self.end)

    def _is_free(self, part: Part, held: Held) -> bool:
        """Whether PyTorch writes over it: nothing saved it, nor does anything read it later."""
        (read, *others), learns = part.inputs[0], part.layer.name in self.steps.learning
        if others or (learns and 0 in self._saves(part).inputs):
            return False
        is_last = self.steps.network.readers[read.layer][-1] == part.layer.name
        kept = any(held is other for saved in self._saved.values() for other in saved)
        values = self.steps.batch_size * math.prod(part.output_shape)
        same = held.piece.size_bytes == values * self.item_bytes(part.layer.name)
        return is_last and not kept and same

    def _backward(self) -> None:
        places: dict[Read, list[int]] = {}
        for position, op in enumerate(self.ops):
            if op.kind in _OF_NODES:
                places.setdefault(Read(op.layer, op.column), []).append(2 * position)
        now = next((2 * i for i, op in enumerate(self.ops) if op.kind == OpKind.LOSS), 0)
        again: set[frozenset[str]] = set()
        for parts in reversed(self.steps.layers):
            for part in parts:
                if part.layer.name not in self.steps.learning or part.view:
                    continue
                ticks = places.get(part.output, [now])
                block = self._block.get(part.layer.name)
                if block and block not in again:
                    again.add(block)
                    self._recompute(block, ticks[0])
                now = ticks[-1]
                self._node(part, ticks[0], now)

    def _recompute(self, block: frozenset[str], tick: int) -> None:
        """Make again what a block saved of its own, just before the first of its nodes."""
        for part in (part for part in self.parts() if part.layer.name in block):
            for name in (name for names in self.steps.inputs(part) for name in names):
                if self._made_by.get(id(self.at[name])) not in block:
                    self.at[name].used(tick)
        made: dict[int, Held] = {}
        for read, saved in self._saved.items():
            if read.layer not in block:
                continue
            for place, held in enumerate(saved):
                if self._made_by.get(id(held)) in block:
                    if id(held) not in made:
                        made[id(held)] = self._copy(held, tick)
                    saved[place] = made[id(held)]

    def _copy(self, held: Held, tick: int) -> Held:
        piece = held.piece
        part = self.steps.network.part_of(piece.layer, piece.column)
        purpose = self.unused(part, f"{piece.purpose}.again")
        return self.hold(part, purpose, piece.category, piece.shape, tick, item=piece.item_bytes)

    def _node(self, part: Part, begins: int, ends: int) -> None:
        """All gradients of a layer; what it saved, and its output's gradient, end with it."""
        gradient = self._waiting.pop(part.output, None)
        for held in self._saved.get(part.output, ()):
            held.used(ends)
        if gradient:
            gradient.held.references -= 1
            gradient.held.used(ends)
        # Of two factors of one shape, both gradients are products that stay.
        summed = not part.layer.several or len(set(part.input_shapes)) > 1
        for kept in self._saves(part).passing if summed else ():
            self._auxiliary(part, kept, begins, ends).piece.category = Category.ACTIVATION_GRAD
        if self.trains(part):
            self._parameter_grads(part, begins, ends)
        for index, group in enumerate(part.inputs):
            if any(self.steps.has_grad(read.layer) for read in group):
                self._contribute(part, index, gradient, begins, ends)

    def _parameter_grads(self, part: Part, begins: int, ends: int) -> None:
        """Those of a layer's parameters; what several layers compute with has one, a sum."""
        owner = self.steps.network.part_of(part.owner, part.column)
        if self.steps.half_copies(part):
            # What was saved is gone when the next nodes cast them.
            size = (part.parameters_read,)
            self._passing(part, "grads.half", size, begins, ends + 1, HALF_BYTES)
            begins = ends + 1
        for parameter in part.learning:
            purpose = f"{parameter.name}.grad"
            later = self.named(owner, purpose) in self.at
            until = ends + 1 if later else self.end
            purpose = self.unused(owner, purpose)
            self.hold(owner, purpose, Category.WEIGHT_GRAD, parameter.shape, begins, until)

    def _contribute(
        self, part: Part, index: int, gradient: _Gradient | None, begins: int, ends: int
    ) -> None:
        """The gradient of one input, to each of the outputs that it is made of."""
        group, layer = part.inputs[index], part.layer
        new: _Gradient | None = None
        if gradient and (layer.passes_grad or isinstance(layer, Flatten)):
            new = _Gradient(gradient.held, gradient.dense)
        elif gradient and isinstance(layer, Concat):
            new = _Gradient(gradient.held, dense=False)
        for read in group:
            target = self.steps.network.part_of(*read)
            if new is None:
                shape = (self.steps.batch_size, *part.input_shapes[index])
                new = _Gradient(self._grad(target, shape, begins, ends), dense=len(group) == 1)
                if self.steps.grad_copy(part, index):
                    item = self.steps.types.widths(part).of_input(index)
                    self._passing(part, f"dx{index}.cast", shape, begins, ends, item)
            new.held.used(ends)
            self._add_to(target, new, ends)

    def _passing(
        self, part: Part, purpose: str, shape: Shape, begins: int, ends: int, item: int
    ) -> None:
        """A gradient in the type in which it was computed, before it is cast."""
        self.hold(part, purpose, Category.WORKSPACE, shape, begins, ends, item=item)

    def _grad(self, target: Part, shape: Shape, first: int, last: int) -> Held:
        purpose, item = self.unused(target, "activation_grad"), self.item_bytes(target.layer.name)
        return self.hold(target, purpose, Category.ACTIVATION_GRAD, shape, first, last, item=item)

    def _add_to(self, target: Part, new: _Gradient, ends: int) -> None:
        """Add what came to the gradient of an output, or begin it."""
        before = self._waiting.get(target.output)
        if before is None:
            self.share(target, "activation_grad", Category.ACTIVATION_GRAD, new.held)
            new.held.references += 1
            self._waiting[target.output] = new
            return
        sums = ends + 1
        before.held.used(sums)
        new.held.used(sums)
        if self.eager.sums_in_place and before.dense and before.held.references == 1:
            return
        before.held.references -= 1
        total = self._grad(target, (self.steps.batch_size, *target.output_shape), sums, sums)
        total.references = 1
        self._waiting[target.output] = _Gradient(total)

"""What eager PyTorch holds of a step, and from when to when: a reading of the plan's own ops.

Rules, with PyTorch's files
---------------------------
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
Update
    One over all parameters. With ``foreach``, the default on a card, ``torch/optim/sgd.py`` has a
    second list of the gradients that decay, ``adamw`` one of roots as large as all parameters;
    without, as on a CPU, one or two tensors as large as the parameter that is being updated.
Data parallel
    ``DistributedDataParallel`` copies gradients into buckets (``reducer.cpp``), which stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, count

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import Auxiliary, BatchNorm, Dropout, FullyConnected, Role, Shape
from alexsim.network.part import INPUT, Part, letter
from alexsim.network.update_rules import RULES, UPDATES
from alexsim.network.views import Read
from alexsim.plan.buffers import LABEL_BYTES, Piece
from alexsim.plan.plan import Category, Op, OpKind
from alexsim.plan.steps import StepList

_OF_NODES = frozenset({OpKind.GRAD_INPUT, OpKind.GRAD_WEIGHT})
BATCHES = "num_batches_tracked"
"""What PyTorch's batch norm has beside its running statistics: one number of 8 bytes."""
ROOTS_OF_ADAMW = 2
"""Tensors per parameter that ``adamw`` makes of its roots, where it takes one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eager:
    """What differs from one way of running eagerly to another."""

    foreach: bool = True
    """Whether parameters are updated all at a time."""
    byte_masks: bool = True
    """Whether dropout keeps a byte per value; else the factors, in four."""
    state_beside: bool = True
    """Whether counts of updates are in the host's memory, beside a card's."""
    sums_in_place: bool = True
    """Whether a second contribution is added to the first; not where a mode of
    ``torch.utils._python_dispatch`` watches."""


CARD = Eager()
CPU = Eager(foreach=False, byte_masks=False, state_beside=False)


def item_bytes(layer: str) -> int:
    """Bytes of a value of a layer's output, and of its gradient."""
    del layer
    return FLOAT_BYTES


@dataclass(slots=True, eq=False)
class Held:
    """A tensor's memory. Time is in ticks, two for each op: it runs, then sums are taken."""

    piece: Piece
    first: int
    last: int
    references: int = 0
    """Gradients that are this, or a part of it, and wait for their node."""

    def used(self, tick: int) -> None:
        """It is alive then."""
        self.last = max(self.last, tick)


@dataclass(slots=True)
class _Gradient:
    held: Held
    dense: bool = True
    """Whether it is all of that memory, not a slice."""


@dataclass(slots=True)
class Tape:
    """The tensors of one step of a network on one device."""

    steps: StepList
    eager: Eager = CARD
    held: list[Held] = field(default_factory=list)
    """In the order in which they are allocated."""
    aliases: list[Piece] = field(default_factory=list)
    """Buffers of the plan that are the memory of another, which they name as shared."""
    _ops: list[Op] = field(init=False)
    _at: dict[str, Held] = field(default_factory=dict)
    _saved: dict[Read, list[Held]] = field(default_factory=dict)
    _waiting: dict[Read, _Gradient] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _end: int = field(init=False)
    _answers: set[tuple[str, ...]] = field(init=False)
    """Readers of an output that a loop has a name for."""

    def __post_init__(self) -> None:
        (self._ops,) = self.steps.ops
        self._answers = {(head.name,) for head in self.steps.network.heads}
        self._end = 2 * len(self._ops) - 1
        self._lasting()
        for position, op in enumerate(self._ops):
            if op.kind == OpKind.UPLOAD:
                self._upload()
            elif op.kind == OpKind.DRAW:
                self._draw(self._part(op), 2 * position)
            elif op.kind == OpKind.FORWARD:
                self._forward(self._part(op), 2 * position)
        self._backward()
        self._update()
        self.held.sort(key=lambda held: held.first)

    def _part(self, op: Op) -> Part:
        return self.steps.network.part_of(op.layer, op.column)

    def _parts(self) -> Iterator[Part]:
        return (part for parts in self.steps.layers for part in parts)

    def _trains(self, part: Part) -> bool:
        return bool(part.trained) and part.layer.name in self.steps.trainable

    def _hold(
        self,
        part: Part,
        purpose: str,
        category: Category,
        shape: Shape,
        first: int,
        last: int | None = None,
        *,
        item: int = FLOAT_BYTES,
        persistent: bool = False,
    ) -> Held:
        piece = Piece(
            0, *part.output, purpose, category, shape, item_bytes=item, persistent=persistent
        )
        held = Held(piece, first, first if last is None else last)
        self.held.append(held)
        self._names.add(piece.name)
        self._at[piece.name] = held
        return held

    def _share(self, part: Part, purpose: str, category: Category, held: Held) -> None:
        """Give the plan's buffer of that name the memory of another."""
        shape = (self.steps.batch_size, *part.output_shape)
        piece = Piece(
            0, *part.output, purpose, category, shape, item_bytes=held.piece.item_bytes,
            shares=held.piece.name,
        )  # fmt: skip
        self._at[piece.name] = held
        if piece.name not in self._names:
            self._names.add(piece.name)
            self.aliases.append(piece)

    def _lasting(self) -> None:
        """Parameters, their state, and buckets: alive all step."""
        rule, end = RULES[self.steps.spec.optimizer], self._end
        for part in self._parts():
            trains = self._trains(part)
            for name, shape, role, *_ in part.parameters_by_name.values():
                self._hold(part, name, Category.WEIGHT, shape, 0, end, persistent=True)
                if not trains or role == Role.RUNNING:
                    continue
                for state in rule.state:
                    of = f"{name}.{state}"
                    self._hold(part, of, Category.MOMENTUM, shape, 0, end, persistent=True)
                if self.steps.spec.copies > 1:
                    of = f"{name}.bucket"
                    self._hold(part, of, Category.WEIGHT_GRAD, shape, 0, end, persistent=True)
            if isinstance(part.layer, BatchNorm):
                self._hold(part, BATCHES, Category.WEIGHT, (2,), 0, end, persistent=True)
            if trains and rule.counts_updates:
                item = 0 if self.eager.state_beside else FLOAT_BYTES
                shape = (len(part.trained),)
                self._hold(
                    part, UPDATES, Category.MOMENTUM, shape, 0, end, item=item, persistent=True
                )

    def _upload(self) -> None:
        images = self.steps.batch_size
        shape = (images, *self.steps.network.input_shape)
        for purpose, of, item in (
            ("input", shape, FLOAT_BYTES),
            ("labels", (images,), LABEL_BYTES),
        ):
            piece = Piece(0, INPUT, 0, purpose, Category.INPUT, of, item_bytes=item)
            held = Held(piece, 0, self._end)
            self.held.append(held)
            self._at[piece.name] = held

    def _auxiliary(self, part: Part, kept: Auxiliary, tick: int, last: int | None = None) -> Held:
        images = (self.steps.batch_size,) if kept.per_image else ()
        item = kept.item_bytes
        if isinstance(part.layer, Dropout) and not self.eager.byte_masks:
            item = FLOAT_BYTES
        return self._hold(
            part, kept.name, Category(kept.category), (*images, *kept.shape), tick, last, item=item
        )

    def _draw(self, part: Part, tick: int) -> None:
        for kept in self._saves(part).beside:
            if kept.category == "mask":
                self._auxiliary(part, kept, tick)

    def _saves(self, part: Part):  # type: ignore[no-untyped-def]
        return part.layer.saved(part.input_shape, part.output_shape)

    def _inputs(self, part: Part, tick: int) -> list[Held]:
        """What a part reads, input by input; of several columns, a copy of all."""
        inputs = []
        for index, names in enumerate(self.steps.inputs(part)):
            for name in names:
                self._at[name].used(tick)
            if len(names) == 1:
                inputs.append(self._at[names[0]])
            else:
                shape = (self.steps.batch_size, *part.input_shapes[index])
                inputs.append(self._hold(part, f"x{index}", Category.ACTIVATION, shape, tick))
        return inputs

    def _forward(self, part: Part, tick: int) -> None:
        layer, saves = part.layer, self._saves(part)
        inputs = self._inputs(part, tick)
        beside = [
            self._at[name] if (name := self._named(part, kept.name)) in self._at
            else self._auxiliary(part, kept, tick)
            for kept in saves.beside
        ]  # fmt: skip
        if layer.in_place and self._is_free(part, inputs[0]):
            output = inputs[0]
            self._share(part, "activation", Category.ACTIVATION, output)
        else:
            shape = (self.steps.batch_size, *part.output_shape)
            item = item_bytes(layer.name)
            output = self._hold(part, "activation", Category.ACTIVATION, shape, tick, item=item)
        output.used(tick)
        for held in beside:
            held.used(tick)
        if layer.name in self.steps.learning:
            kept_inputs = [inputs[place] for place in saves.inputs]
            if isinstance(layer, FullyConnected) and not self._trains(part):
                kept_inputs = []
            self._saved[part.output] = [*kept_inputs, *beside, *([output] if saves.output else [])]
        if self.steps.network.readers[layer.name] in self._answers:
            output.used(self._end)

    def _is_free(self, part: Part, held: Held) -> bool:
        """Whether PyTorch writes over it: nothing saved it, nor does anything read it later."""
        (read, *others), learns = part.inputs[0], part.layer.name in self.steps.learning
        if others or (learns and 0 in self._saves(part).inputs):
            return False
        is_last = self.steps.network.readers[read.layer][-1] == part.layer.name
        kept = any(held is other for saved in self._saved.values() for other in saved)
        return is_last and not kept and held.piece.size_bytes == self._output_bytes(part)

    def _output_bytes(self, part: Part) -> int:
        values = self.steps.batch_size * math.prod(part.output_shape)
        return values * item_bytes(part.layer.name)

    def _backward(self) -> None:
        places: dict[Read, list[int]] = {}
        for position, op in enumerate(self._ops):
            if op.kind in _OF_NODES:
                places.setdefault(Read(op.layer, op.column), []).append(2 * position)
        now = next((2 * i for i, op in enumerate(self._ops) if op.kind == OpKind.LOSS), 0)
        for parts in reversed(self.steps.layers):
            for part in parts:
                if part.layer.name in self.steps.learning and not part.view:
                    at = places.get(part.output, [now])
                    begins, now = at[0], at[-1]
                    self._node(part, begins, now)

    def _node(self, part: Part, begins: int, ends: int) -> None:
        """All gradients of a layer; what it saved, and its output's gradient, end with it."""
        saves = self._saves(part)
        gradient = self._waiting.pop(part.output, None)
        alive = self._saved.get(part.output, [])
        if gradient:
            gradient.held.references -= 1
            alive = [gradient.held, *alive]
        for held in alive:
            held.used(ends)
        differ = not part.layer.several or len(set(part.input_shapes)) > 1
        for kept in saves.passing if differ else ():
            self._auxiliary(part, kept, begins, ends).piece.category = Category.ACTIVATION_GRAD
        if self._trains(part):
            for parameter in part.trained:
                self._hold(
                    part, f"{parameter.name}.grad", Category.WEIGHT_GRAD, parameter.shape, begins,
                    self._end,
                )  # fmt: skip
        for index, group in enumerate(part.inputs):
            if any(self.steps.has_grad(read.layer) for read in group):
                self._contribute(part, index, gradient, begins, ends)

    def _contribute(
        self, part: Part, index: int, gradient: _Gradient | None, begins: int, ends: int
    ) -> None:
        """The gradient of one input, to each of the outputs that it is made of."""
        group = part.inputs[index]
        new: _Gradient | None = None
        if gradient and part.layer.passes_grad:
            new = _Gradient(gradient.held, gradient.dense)
        elif gradient and part.layer.several and not part.layer.backward_reads:
            new = _Gradient(gradient.held, dense=False)
        for read in group:
            target = self.steps.network.part_of(*read)
            if new is None:
                shape = (self.steps.batch_size, *part.input_shapes[index])
                purpose = self._free_name(target, "activation_grad")
                new = _Gradient(
                    self._hold(
                        target, purpose, Category.ACTIVATION_GRAD, shape, begins, ends,
                        item=item_bytes(read.layer),
                    ),
                    dense=len(group) == 1,
                )  # fmt: skip
            new.held.used(ends)
            self._add_to(target, new, ends)

    def _add_to(self, target: Part, new: _Gradient, ends: int) -> None:
        """Add what came to the gradient of an output, or begin it."""
        before = self._waiting.get(target.output)
        if before is None:
            self._share(target, "activation_grad", Category.ACTIVATION_GRAD, new.held)
            new.held.references += 1
            self._waiting[target.output] = _Gradient(new.held, new.dense)
            return
        sums = ends + 1
        before.held.used(sums)
        new.held.used(sums)
        if self.eager.sums_in_place and before.dense and before.held.references == 1:
            return
        before.held.references -= 1
        shape = (self.steps.batch_size, *target.output_shape)
        purpose = self._free_name(target, "activation_grad")
        total = self._hold(
            target,
            purpose,
            Category.ACTIVATION_GRAD,
            shape,
            sums,
            item=item_bytes(target.layer.name),
        )
        total.references = 1
        self._waiting[target.output] = _Gradient(total)

    def _update(self) -> None:
        """What the update makes beside state and parameters."""
        places = [2 * i for i, op in enumerate(self._ops) if op.kind == OpKind.UPDATE]
        optimizer = self.steps.spec.optimizer
        for place, op in zip(
            places, (op for op in self._ops if op.kind == OpKind.UPDATE), strict=True
        ):
            part = self._part(op)
            made = [p for p in part.trained if optimizer != "sgd-2012" or p.role == Role.WEIGHT]
            if self.eager.foreach:
                for p in made:
                    self._hold(
                        part, f"{p.name}.step", Category.WORKSPACE, p.shape, places[0], places[-1]
                    )
            elif made:
                largest = max(made, key=lambda p: math.prod(p.shape))
                for index in range(ROOTS_OF_ADAMW if optimizer == "adamw" else 1):
                    self._hold(part, f"step{index}", Category.WORKSPACE, largest.shape, place)

    def _named(self, part: Part, name: str) -> str:
        return f"gpu0/{part.layer.name}.{letter(part.column)}.{name}"

    def _free_name(self, part: Part, name: str) -> str:
        """That name, or the first with a number behind it that is not taken."""
        names = chain((name,), (f"{name}{index}" for index in count(2)))
        return next(each for each in names if self._named(part, each) not in self._names)

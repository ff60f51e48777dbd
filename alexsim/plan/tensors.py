"""Tensors of an eager step, apart from what autograd saves: parameters, state, images, updates.

The update is one over all parameters. With ``foreach``, the default on a card, ``sgd`` has a second
list of the gradients that decay (``torch/optim/sgd.py``), ``adamw`` a list of roots as large as all
parameters (``adam.py``); without, as on a CPU, one or two tensors as large as the parameter that is
being updated. Counts of updates are numbers on the host, unless parameters are there too.
``DistributedDataParallel`` copies gradients into buckets of 25 MiB (``reducer.cpp``), which stay:
once more the bytes of all gradients, however they are cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, count

from alexsim.network.counts import FLOAT_BYTES
from alexsim.network.layers import BatchNorm, Parameter, Role, Shape
from alexsim.network.part import INPUT, Part, letter
from alexsim.network.update_rules import RULES, UPDATES
from alexsim.plan.buffers import LABEL_BYTES, Piece
from alexsim.plan.plan import Category, Op, OpKind
from alexsim.plan.steps import StepList

BATCHES = "num_batches_tracked"
"""What PyTorch's batch norm has beside its running statistics: one number of 8 bytes."""
_PARAMETERS_AT_A_TIME = {"adamw": 2}
"""Tensors as large as a parameter that an update without ``foreach`` makes, where not 1: of
``adamw`` the root, and its quotient."""


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
    """Whether a second contribution to a gradient is added to the first; not where a mode of
    ``torch.utils._python_dispatch`` watches."""


CARD = Eager()
CPU = Eager(foreach=False, byte_masks=False, state_beside=False)


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


@dataclass(slots=True, kw_only=True)
class Tensors:
    """What a step holds on one device; ``held`` in the order in which it is allocated."""

    steps: StepList
    eager: Eager = CARD
    held: list[Held] = field(default_factory=list)
    aliases: list[Piece] = field(default_factory=list)
    """Buffers of the plan that are the memory of another, which they name as shared."""
    ops: list[Op] = field(init=False)
    end: int = field(init=False)
    """The last tick."""
    at: dict[str, Held] = field(default_factory=dict)
    """By buffer's name."""

    def __post_init__(self) -> None:
        (self.ops,) = self.steps.ops
        self.end = 2 * len(self.ops) - 1
        for part in self.parts():
            self._lasting(part)

    def item_bytes(self, layer: str) -> int:
        """Bytes of a value of a layer's output, and of its gradient."""
        return self.steps.types.output_bytes[layer]

    def part(self, op: Op) -> Part:
        """The part that an op belongs to."""
        return self.steps.network.part_of(op.layer, op.column)

    def parts(self) -> Iterator[Part]:
        """All, in forward order."""
        return (part for parts in self.steps.layers for part in parts)

    def trains(self, part: Part) -> bool:
        """Whether it computes with parameters that learn, its own or another layer's."""
        return bool(part.learning) and part.owner in self.steps.trainable

    def hold(
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
        """A new tensor, alive from ``first`` to ``last``; for one tick, if that is not known."""
        of = (0, *part.output, purpose, category, shape)
        piece = Piece(*of, item_bytes=item, persistent=persistent)
        held = Held(piece, first, first if last is None else last)
        self.held.append(held)
        self.at[piece.name] = held
        return held

    def share(self, part: Part, purpose: str, category: Category, held: Held) -> None:
        """Give the plan's buffer of that name the memory of another."""
        name = self.named(part, purpose)
        if name not in self.at:
            shape, item = (self.steps.batch_size, *part.output_shape), held.piece.item_bytes
            shares = held.piece.name
            self.aliases.append(
                Piece(0, *part.output, purpose, category, shape, item_bytes=item, shares=shares)
            )
        self.at[name] = held

    @staticmethod
    def named(part: Part, purpose: str) -> str:
        """Name of a buffer."""
        return f"gpu0/{part.layer.name}.{letter(part.column)}.{purpose}"

    def unused(self, part: Part, purpose: str) -> str:
        """That purpose, or the first with a number behind it that is not taken."""
        names = chain((purpose,), (f"{purpose}{index}" for index in count(2)))
        return next(each for each in names if self.named(part, each) not in self.at)

    def upload(self) -> None:
        """Images and labels; a loop has names for them until the next come."""
        images = (self.steps.batch_size,)
        shape = (*images, *self.steps.network.input_shape)
        for purpose, of, item in (("input", shape, FLOAT_BYTES), ("labels", images, LABEL_BYTES)):
            piece = Piece(0, INPUT, 0, purpose, Category.INPUT, of, item_bytes=item)
            self.held.append(Held(piece, 0, self.end))
            self.at[piece.name] = self.held[-1]

    def _lasting(self, part: Part) -> None:
        rule, trains = RULES[self.steps.spec.optimizer], self.trains(part)

        def keep(purpose: str, category: Category, shape: Shape, item: int = FLOAT_BYTES) -> None:
            self.hold(part, purpose, category, shape, 0, self.end, item=item, persistent=True)

        for name, shape, role, *_ in part.parameters_by_name.values():
            keep(name, Category.WEIGHT, shape)
            if not trains or role == Role.RUNNING:
                continue
            for state in rule.state:
                keep(f"{name}.{state}", Category.MOMENTUM, shape)
            if self.steps.spec.copies > 1:
                keep(f"{name}.bucket", Category.WEIGHT_GRAD, shape)
        if isinstance(part.layer, BatchNorm):
            keep(BATCHES, Category.WEIGHT, (1,), 8)
        if trains and part.trained and rule.counts_updates:
            item = 0 if self.eager.state_beside else FLOAT_BYTES
            keep(UPDATES, Category.MOMENTUM, (len(part.trained),), item)

    def update(self) -> None:
        """What the update makes beside state and parameters."""
        updates = [(2 * i, op) for i, op in enumerate(self.ops) if op.kind == OpKind.UPDATE]
        optimizer = self.steps.spec.optimizer
        for tick, op in updates:
            part = self.part(op)
            # The 2012 rule is PyTorch's with two groups of parameters, of which one decays.
            made = [p for p in part.trained if optimizer != "sgd-2012" or p.role == Role.WEIGHT]
            if self.eager.foreach:
                first, last = updates[0][0], updates[-1][0]
                for p in made:
                    self.hold(part, f"{p.name}.step", Category.WORKSPACE, p.shape, first, last)
            elif made:
                largest = max(made, key=_values)
                for index in range(_PARAMETERS_AT_A_TIME.get(optimizer, 1)):
                    self.hold(part, f"step{index}", Category.WORKSPACE, largest.shape, tick)


def _values(parameter: Parameter) -> int:
    return math.prod(parameter.shape)

"""The memory of a step in eager PyTorch: lifetimes of autograd, addresses of its allocator."""

from __future__ import annotations

from collections.abc import Iterable

from alexsim.plan.autograd import Tape
from alexsim.plan.caching_allocator import CachingAllocator
from alexsim.plan.layout import Layout
from alexsim.plan.plan import Block, Category, OpKind
from alexsim.plan.steps import StepList
from alexsim.plan.tensors import CARD, Eager, Held

STEPS = 2
"""Steps after which a loop asks the card for no more memory: the first makes the state."""


def lay_out_eager(steps: StepList, eager: Eager = CARD) -> Layout:
    """Give every tensor of a step its address and lifetime."""
    tape = Tape(steps=steps, eager=eager)
    loop = _Loop(tape)
    reserved = loop.run()
    peak, alive = live_peak(tape)
    roots = {held.piece.name: held for held in tape.held}
    blocks = tuple(
        Block(
            name=held.piece.name,
            shape=held.piece.shape,
            size_bytes=held.piece.size_bytes,
            offset_bytes=loop.addresses.get(held.piece.name, 0),
            first=held.first // 2,
            last=held.last // 2,
        )
        for held in tape.held
    )
    buffers = (
        *(held.piece.placed(held.piece.name, _ops(held)) for held in tape.held),
        *(piece.placed(piece.shares, _ops(roots[piece.shares])) for piece in tape.aliases),
    )
    return Layout(
        buffers=buffers,
        blocks=blocks,
        arena_bytes=reserved,
        live_peak_bytes=peak,
        resident=tuple(held.piece.name for held in alive),
    )


def _ops(held: Held) -> tuple[int, int]:
    """The first and the last op of its life."""
    return held.first // 2, held.last // 2


def live_peak(tape: Tape) -> tuple[int, list[Held]]:
    """The most bytes that are alive at a time, and what is alive then."""
    changes: dict[int, int] = {}
    for held in tape.held:
        changes[held.first] = changes.get(held.first, 0) + held.piece.size_bytes
        changes[held.last + 1] = changes.get(held.last + 1, 0) - held.piece.size_bytes
    live, peak, at = 0, -1, 0
    for tick in sorted(changes):
        live += changes[tick]
        if live > peak:
            peak, at = live, tick
    return peak, [held for held in tape.held if held.first <= at <= held.last]


def reserved_bytes(tape: Tape) -> int:
    """Bytes that the caching allocator takes of the card."""
    return _Loop(tape).run()


class _Loop:
    """A loop of steps before the caching allocator, each tensor in its turn.

    What has a name in the loop is freed when the next step's has been made; gradients of
    parameters at the beginning of the next step. State is made by the first update.
    """

    def __init__(self, tape: Tape) -> None:
        self.addresses: dict[str, int] = {}
        """Of each tensor, in the last step."""
        self._allocator = CachingAllocator()
        self._ops = tape.ops
        sized = [held for held in tape.held if held.piece.size_bytes]
        self._lasting = [held for held in sized if held.piece.persistent]
        self._begins: dict[int, list[Held]] = {}
        self._ends: dict[int, list[Held]] = {}
        for held in (held for held in sized if not held.piece.persistent):
            self._begins.setdefault(held.first // 2, []).append(held)
            self._ends.setdefault(held.last // 2, []).append(held)
        at_last = self._ends.pop(len(tape.ops) - 1, [])
        loops = (Category.INPUT, Category.ACTIVATION)
        self._named = {held.piece.name for held in at_last if held.piece.category in loops}
        self._dropped = [held for held in at_last if held.piece.name not in self._named]

    def run(self) -> int:
        """Go through the steps; the bytes that are reserved then."""
        self._allocate(held for held in self._lasting if not _is_state(held))
        for step in range(STEPS):
            for held in self._dropped if step else ():
                self._allocator.release(self.addresses[held.piece.name])
            updated = bool(step)
            for position, op in enumerate(self._ops):
                if op.kind == OpKind.UPDATE and not updated:
                    updated = True
                    self._allocate(held for held in self._lasting if _is_state(held))
                self._allocate(self._begins.get(position, ()))
                for held in self._ends.get(position, ()):
                    self._allocator.release(self.addresses[held.piece.name])
        return self._allocator.reserved_bytes

    def _allocate(self, tensors: Iterable[Held]) -> None:
        for held in tensors:
            name = held.piece.name
            before = self.addresses.get(name)
            self.addresses[name] = self._allocator.allocate(held.piece.size_bytes)
            if before is not None and name in self._named:
                self._allocator.release(before)


def _is_state(held: Held) -> bool:
    return held.piece.category == Category.MOMENTUM

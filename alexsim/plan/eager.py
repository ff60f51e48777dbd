"""The memory of a step in eager PyTorch: lifetimes of autograd, addresses of its allocator."""

from __future__ import annotations

from alexsim.plan.autograd import CARD, Eager, Held, Tape
from alexsim.plan.buffers import Piece
from alexsim.plan.caching_allocator import CachingAllocator
from alexsim.plan.layout import Layout
from alexsim.plan.plan import Block, Buffer, Category, OpKind
from alexsim.plan.steps import StepList

STEPS = 2
"""Steps after which a loop asks the card for no more memory: the first makes the state."""


def lay_out_eager(steps: StepList, eager: Eager = CARD) -> Layout:
    """Give every tensor of a step its address and lifetime."""
    tape = Tape(steps, eager)
    addresses, reserved = _addresses(tape, len(steps.ops[0]))
    peak, alive = live_peak(tape)
    roots = {held.piece.name: held for held in tape.held}
    blocks = tuple(
        Block(
            name=held.piece.name,
            shape=held.piece.shape,
            size_bytes=held.piece.size_bytes,
            offset_bytes=addresses.get(held.piece.name, 0),
            first=held.first // 2,
            last=held.last // 2,
        )
        for held in tape.held
    )
    buffers = (
        *(_buffer(held.piece, held) for held in tape.held),
        *(_buffer(piece, roots[piece.shares]) for piece in tape.aliases),
    )
    return Layout(
        buffers=buffers,
        blocks=blocks,
        arena_bytes=max(reserved, peak),
        live_peak_bytes=peak,
        resident=tuple(held.piece.name for held in alive),
    )


def _buffer(piece: Piece, held: Held) -> Buffer:
    return Buffer(
        name=piece.name,
        label=piece.label,
        device=f"gpu{piece.device}",
        category=piece.category,
        layer=piece.layer,
        column=piece.column,
        shape=piece.shape,
        item_bytes=piece.item_bytes,
        block=held.piece.name,
        shares=piece.shares,
        first=held.first // 2,
        last=held.last // 2,
    )


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


def _addresses(tape: Tape, ops: int) -> tuple[dict[str, int], int]:
    """The address of every tensor in a step that goes on as it began, and the bytes reserved.

    What has a name in the loop is freed when the next step's has been made; gradients of
    parameters at the beginning of the next step.
    """
    allocator = CachingAllocator()
    addresses: dict[str, int] = {}
    sized = [held for held in tape.held if held.piece.size_bytes]
    updates = next((i for i, op in enumerate(tape.steps.ops[0]) if op.kind == OpKind.UPDATE), ops)
    lasting = [held for held in sized if held.piece.persistent]
    begins: dict[int, list[Held]] = {}
    ends: dict[int, list[Held]] = {}
    for held in (held for held in sized if not held.piece.persistent):
        begins.setdefault(held.first // 2, []).append(held)
        ends.setdefault(held.last // 2, []).append(held)
    at_last = ends.pop(ops - 1, [])
    named = [h for h in at_last if h.piece.category in (Category.INPUT, Category.ACTIVATION)]
    dropped = [held for held in at_last if held not in named]

    def allocate(held: Held) -> None:
        before = addresses.get(held.piece.name)
        addresses[held.piece.name] = allocator.allocate(held.piece.size_bytes)
        if before is not None and held in named:
            allocator.release(before)

    for held in lasting:
        if held.piece.category != Category.MOMENTUM:
            allocate(held)
    for step in range(STEPS):
        for position in range(ops):
            if step and not position:
                for held in dropped:
                    allocator.release(addresses[held.piece.name])
            if position == updates and not step:
                for held in lasting:
                    if held.piece.category == Category.MOMENTUM:
                        allocate(held)
            for held in begins.get(position, ()):
                allocate(held)
            for held in ends.get(position, ()):
                allocator.release(addresses[held.piece.name])
    return addresses, allocator.reserved_bytes

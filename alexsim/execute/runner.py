"""One device of a plan at work: its memory, its stream, and its ops in order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from alexsim.execute.bind import bind
from alexsim.execute.cards import Timeline
from alexsim.execute.context import Choices, Hyperparameters, Launch, StepContext
from alexsim.execute.memory import Memory
from alexsim.execute.transport import Transport
from alexsim.plan.exchanges import Exchange
from alexsim.plan.plan import Op, OpKind, Plan, waited_for
from alexsim.trace import Span

if TYPE_CHECKING:
    from alexsim.execute.bind_triton import Constants

_TRANSFER = (OpKind.POST, OpKind.WAIT)
_COLLECTIVE = (OpKind.ALL_GATHER, OpKind.REDUCE_SCATTER)
_BETWEEN = (*_TRANSFER, *_COLLECTIVE, OpKind.BARRIER, OpKind.ALL_REDUCE)
"""Kinds that the transport performs."""
_EVENTS = 2000
"""Ops that are timed to learn what timing costs."""


@dataclass(slots=True, kw_only=True)
class _Joint:
    """A device's part of a collective: what it sends, and what it has still to receive."""

    op: Op
    sent: tuple[Exchange, ...]
    received: tuple[Exchange, ...]
    arrived: int = 0
    worked_s: float = 0.0
    """What sending and receiving took before the op had to wait for another device."""


class DeviceRunner:
    """One device: its memory, its stream, and its op list bound to functions.

    Args:
        plan: that the device is of.
        memory: of the device.
        choices: how to run the plan.
        scratch: of backend ``native``, which the devices of a process share.
    """

    def __init__(
        self, plan: Plan, memory: Memory, choices: Choices, scratch: torch.Tensor | None
    ) -> None:
        device, place = memory.device, memory.place
        self.device, self.place, self.memory = device, place, memory
        self.stream = torch.cuda.Stream(place) if place.type == "cuda" else None
        self.constants: Constants | None = None
        self.timeline: Timeline | None = None
        self.spans: list[Span] | None = None
        binder: Callable[[Op], Launch] = partial(
            bind, plan, memory=self.memory, replica=choices.replica
        )
        if plan.spec.backend == "triton" or plan.spec.triton_ops:
            from alexsim.execute.bind_triton import Binder, Constants

            self.constants = Constants(place)
            binder = Binder(plan, self.memory, self.constants, choices)
        elif scratch is not None:
            from alexsim.execute import bind_native

            binder = bind_native.Binder(plan, self.memory, choices.replica, scratch)
        self._exchanges = {exchange.name: exchange for exchange in plan.posted}
        collectives = {collective.name: collective for collective in plan.collectives}
        self._joint = {
            op.id: _Joint(
                op=op,
                sent=collectives[op.collective].sent_by(device.index),
                received=collectives[op.collective].received_by(device.index),
            )
            for op in device.ops
            if op.kind in _COLLECTIVE
        }
        self._overlaps = plan.spec.schedule == "overlap"
        self._ops: list[tuple[Op, Launch | None]] = [
            (op, None if op.kind in _BETWEEN else binder(op)) for op in device.ops
        ]
        self._arrived_at = ""
        self._reduces = any(op.kind == OpKind.ALL_REDUCE for op in device.ops)

    def launch_of(self, op: Op) -> Launch:
        """The function that runs an op of this device, which no transport performs."""
        launch = next(run for each, run in self._ops if each is op)
        assert launch is not None
        return launch

    def turns(self, context: StepContext, transport: Transport) -> Iterator[bool]:
        """Run the ops in order; yields whether it got on, whenever another device must go first."""
        begun: Op | None = None
        for op, run in self._ops:
            if not (context.training or op.in_test):
                continue
            if context.uploaded and op.kind == OpKind.UPLOAD:
                continue
            if op.kind in _COLLECTIVE:
                # Who begins the next has ended the last: then what was sent there is free.
                yield from self._until_done(begun, None, context, transport)
                self._begin(op, transport)
                begun = op
                if self._overlaps:
                    continue
            elif begun and (begun.id in op.depends_on or op.kind == OpKind.BARRIER):
                yield from self._until_done(begun, None, context, transport)
                begun = None
            yield from self._until_done(op, run, context, transport)
            begun = None if begun is op else begun
        yield from self._until_done(begun, None, context, transport)

    def _until_done(
        self, op: Op | None, run: Launch | None, context: StepContext, transport: Transport
    ) -> Iterator[bool]:
        got_on = True
        while op and not self._timed(op, run, context, transport):
            yield got_on
            got_on = False

    def _begin(self, op: Op, transport: Transport) -> None:
        """Send this device's part of a collective."""
        joint = self._joint[op.id]
        started = time.perf_counter()
        with self.on_stream():
            for exchange in joint.sent:
                transport.post(exchange, self.memory.buffer(exchange.source_buffer))
        joint.arrived, joint.worked_s = 0, time.perf_counter() - started

    def _end(self, joint: _Joint, transport: Transport) -> bool:
        """Receive what others sent, or say that another must go first.

        Gradients are added in the order in which devices are counted, whichever comes first.
        """
        started = time.perf_counter()
        operands = joint.op.operands
        adds = joint.op.kind == OpKind.REDUCE_SCATTER
        for exchange in joint.received[joint.arrived :]:
            # A sum that the device has no part of itself begins with the first part that comes.
            lands = adds and (joint.arrived > 0 or operands["total"][0] in joint.op.reads)
            name = operands["landing"][0] if lands else exchange.target_buffer
            target = self.memory.buffer(name)
            if not transport.pull(exchange, target):
                joint.worked_s += time.perf_counter() - started
                return False
            if lands:
                self.memory.buffer(exchange.target_buffer).add_(target)
            joint.arrived += 1
        return True

    def barriers(self, *, training: bool) -> list[str]:
        """Names of the barriers that a step or a test passes, in order."""
        return [
            op.barrier
            for op, _ in self._ops
            if op.kind == OpKind.BARRIER and (training or op.in_test)
        ]

    def upload(self, context: StepContext) -> None:
        """Only the images and labels, on the caller's stream."""
        for op, run in self._ops:
            if op.kind == OpKind.UPLOAD and run is not None:
                run(context)

    def on_stream(self) -> contextlib.AbstractContextManager[object]:
        """What is enqueued inside goes to this device's stream."""
        return torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext()

    def _timed(
        self, op: Op, run: Launch | None, context: StepContext, transport: Transport
    ) -> bool:
        """Run an op and time it, or say that another device must go first."""
        with self.on_stream():
            # Tests on the way are no part of a step.
            timed = context.training
            if op.kind == OpKind.UPDATE and not self._summed(op, context, transport):
                return False
            start = self.timeline.mark() if self.timeline and timed else None
            started = time.perf_counter()
            done = self._perform(op, run, context, transport)
            if done and self.timeline is not None and start is not None:
                self.timeline.add(op, context.step, start)
            elif done and timed:
                before_s = self._joint[op.id].worked_s if op.id in self._joint else 0.0
                self._note(op, context, started - before_s)
            return done

    def _summed(self, op: Op, context: StepContext, transport: Transport) -> bool:
        """Wait for the sums of gradients; that is no part of the update."""
        started = time.perf_counter()
        if not transport.reduced(self.device.index):
            return False
        if self._reduces and context.training:
            self._note(waited_for(op), context, started)
        return True

    def _note(self, op: Op, context: StepContext, started: float) -> None:
        """Keep what has just ended, where ops are timed by the host's clock."""
        if self.spans is not None:
            end = time.perf_counter()
            span = op.span(step=context.step, start_s=started, end_s=end, source="measured")
            self.spans.append(span)

    def _perform(
        self, op: Op, run: Launch | None, context: StepContext, transport: Transport
    ) -> bool:
        if run is not None:
            run(context)
            return True
        if op.kind == OpKind.ALL_REDUCE:
            gradients = [self.memory.buffer(name) for name in op.writes]
            transport.reduce(self.device.index, op.layer, gradients)
            return True
        if op.kind in _COLLECTIVE:
            return self._end(self._joint[op.id], transport)
        if op.kind == OpKind.BARRIER:
            if self._arrived_at != op.barrier:
                transport.arrive(self.device.index, op.barrier)
                self._arrived_at = op.barrier
            if not transport.passed(op.barrier):
                return False
            self._arrived_at = ""
            return True
        exchange = self._exchanges[op.exchange]
        if op.kind == OpKind.POST:
            transport.post(exchange, self.memory.buffer(exchange.source_buffer))
            return True
        return transport.pull(exchange, self.memory.buffer(exchange.target_buffer))

    def idle_s(self, transport: Transport) -> float:
        """Seconds of an op that does nothing, timed or not as the others are."""
        op = self.device.ops[0]
        context = StepContext(
            images=torch.empty(0),
            labels=torch.empty(0),
            step=0,
            seed=0,
            training=True,
            hyperparameters=Hyperparameters(),
        )
        started = time.perf_counter()
        for _ in range(_EVENTS):
            self._timed(op, _nothing, context, transport)
        return (time.perf_counter() - started) / _EVENTS


def _nothing(_: StepContext) -> None:
    return None

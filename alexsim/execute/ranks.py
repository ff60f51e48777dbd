"""A plan over processes: each runs one device's ops; used like ``Executor``, by all at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
import torch.distributed as dist

from alexsim.data.normalising import Normalising
from alexsim.execute.cards import cap, places, process_bytes
from alexsim.execute.context import Choices, Hyperparameters, StepContext
from alexsim.execute.executor import Executor
from alexsim.execute.stored import stored_parameters
from alexsim.execute.wire import Wire
from alexsim.plan.plan import Plan
from alexsim.processes.world import Connected
from alexsim.trace import Span, Trace

_STATE = 1 << 25
"""Tags of weights begin here."""
_PINGS = 20


class Ranks:
    """This process's device of a plan, among the others'.

    Every method is called by all processes, in the same order. ``step`` and ``evaluate`` take the
    images of this process's part of the minibatch, and give the losses of all of it; ``state`` is
    whole in the first process, and a part elsewhere; ``load_state`` takes the first process's.

    Raises:
        MemoryBudgetError: this device's plan does not fit.
    """

    def __init__(self, plan: Plan, choices: Choices, world: Connected) -> None:
        self.plan, self.choices, self.world = plan, choices, world
        self._column = world.rank % world.columns
        self.wire = Wire(plan, world, pinned=choices.device == "cuda")
        # Processes of a host have a card each, or all share one.
        self._place = places(choices.device, world.on_host)[world.local]
        cap(self._place, choices.budget_bytes)
        self._executor = Executor(
            plan,
            replace(choices, replica=world.replica),
            devices=(self._column,),
            place=self._place,
            transport=self.wire,
        )
        self._stored = stored_parameters(plan)
        self._offset_s = 0.0
        self._exchanged = self._reduced = self._steps = 0

    def initialise(self) -> None:
        """Draw the first weights; all replicas draw the same."""
        self._executor.initialise()

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and momentum by name: all of them in the first process."""
        world, buffers = self.world, self._executor.parameters()
        needed = [held for _, stored in sorted(self._stored.items()) for held in stored.needed]
        for tag, held in enumerate(needed):
            rank = held.index
            if world.replica or not rank:
                continue
            if world.first:
                buffers[held.buffer] = torch.empty(held.shape)
                with world.named(f"weights {held.buffer}", (rank,)):
                    received = buffers[held.buffer]
                    world.wait(dist.irecv(received, rank, tag=_STATE + tag, group=world.all))
            elif rank == self._column:
                with world.named(f"weights {held.buffer}", (0,)):
                    sent = buffers[held.buffer].cpu().contiguous()
                    world.wait(dist.isend(sent, 0, tag=_STATE + tag, group=world.all))
        return {
            name: stored.joined(buffers)
            for name, stored in self._stored.items()
            if all(held.buffer in buffers for held in stored.needed)
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over the first process's state; the others' arguments are not looked at."""
        buffers = self._executor.parameters()
        for name, stored in sorted(self._stored.items()):
            if self.world.first:
                tensor = state[name].cpu().contiguous()
            else:
                tensor = torch.empty(stored.shape)
            stored.spread(self.world.broadcast(tensor), buffers)

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        step: int,
        hyperparameters: Hyperparameters,
        normalising: Normalising | None = None,
    ) -> StepContext:
        """Train on this process's images; the losses are those of all replicas."""
        before = (self.wire.exchanged_bytes, self.wire.reduced_bytes)
        context = self._executor.step(
            images,
            self._labels(labels),
            step=step,
            hyperparameters=hyperparameters,
            normalising=normalising,
        )
        self._exchanged += self.wire.exchanged_bytes - before[0]
        self._reduced += self.wire.reduced_bytes - before[1]
        self._steps += 1
        return self._together(context)

    def evaluate(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        normalising: Normalising | None = None,
    ) -> StepContext:
        """Forward only."""
        labels = self._labels(labels)
        return self._together(self._executor.evaluate(images, labels, normalising=normalising))

    def _labels(self, labels: torch.Tensor) -> torch.Tensor:
        """A hybrid plan's loss is computed where column a is, for everybody's images."""
        return self.world.gathered(labels).flatten() if self.world.hybrid else labels

    def _together(self, context: StepContext) -> StepContext:
        results = torch.zeros(3, self.plan.images // self.plan.replicas)
        if context.losses is not None:
            assert context.top1 is not None
            assert context.top5 is not None
            rows = (context.losses, context.top1, context.top5)
            results = torch.stack([row.float().cpu() for row in rows])
        # The loss is computed where column a is.
        losses, top1, top5 = self.world.gathered(results)[:: self.world.columns].unbind(1)
        return replace(context, losses=losses.flatten(), top1=top1.flatten(), top5=top5.flatten())

    def first_not_finite(self) -> str:
        """The first tensor that is not finite, of any process."""
        records = self.world.each({"tensor": self._executor.first_not_finite()})
        return next((str(record["tensor"]) for record in records if record["tensor"]), "")

    def record(self, on: bool = True) -> None:
        """Time every op from now on, or none; forgets what was timed before."""
        if on:
            self._offset_s = self._clock_offset()
        self._executor.record(on)

    def trace(self) -> Trace:
        """What was timed since ``record``, on the first process's clock.

        Devices are numbered through all replicas: of two columns, ``gpu2`` is column a of the
        second replica.
        """
        spans = [asdict(span) for span in self._executor.trace().spans]
        for span in spans:
            span["device"], span["device_index"] = f"gpu{self.world.rank}", self.world.rank
            span["start_s"] += self._offset_s
            span["end_s"] += self._offset_s
        records = self.world.each({"spans": spans})
        return Trace(spans=tuple(Span(**span) for record in records for span in record["spans"]))

    def _clock_offset(self) -> float:
        """What to add to this process's clock: half-way between a question and its answer, the
        quickest of some (Cristian 1989)."""
        world, offset, best = self.world, 0.0, float("inf")
        now = torch.zeros(1, dtype=torch.float64)
        with world.named("clocks", range(world.size)):
            for rank in range(1, world.size):
                for _ in range(_PINGS):
                    if world.first:
                        world.wait(dist.irecv(now, rank, group=world.all))
                        now[0] = time.perf_counter()
                        world.wait(dist.isend(now, rank, group=world.all))
                    elif rank == world.rank:
                        asked = time.perf_counter()
                        world.wait(dist.isend(now, 0, group=world.all))
                        world.wait(dist.irecv(now, 0, group=world.all))
                        answered = time.perf_counter()
                        if answered - asked < best:
                            best = answered - asked
                            offset = now.item() - (asked + answered) / 2
        return offset

    def crossed_bytes_per_step(self) -> tuple[int, int]:
        """What all processes have received of each other's activations and their gradients, and
        the weights' gradients that they have summed, on average over the steps trained here;
        without steps, what the plan says."""
        records = self.world.each({"exchanged": self._exchanged, "reduced": self._reduced})
        if not self._steps:
            return self.plan.exchanged_bytes, self.plan.reduced_bytes
        exchanged, reduced = (
            sum(int(record[key]) for record in records) // max(1, self._steps)
            for key in ("exchanged", "reduced")
        )
        return exchanged, reduced

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Most memory that each device of all replicas has held."""
        records = self.world.each(self._executor.peak_bytes)
        return {f"gpu{rank}": int(*record.values()) for rank, record in enumerate(records)}

    @property
    def process_bytes(self) -> dict[str, int]:
        """What the driver counts for each device's process on a card; {} without."""
        counted = process_bytes() if self._place.type == "cuda" else None
        counts = (record["bytes"] for record in self.world.each({"bytes": counted}))
        return {f"gpu{rank}": count for rank, count in enumerate(counts) if count is not None}

    def close(self) -> None:
        """Lift the cap; the processes go on, and so do their connections."""
        cap(self._place, 1 << 62)

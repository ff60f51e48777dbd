"""Runs the plan: one runner per device, taking turns in one process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from alexsim.data.normalising import Normalising
from alexsim.errors import PlanError
from alexsim.execute.cards import Cards, Timeline, places
from alexsim.execute.choices import BACKENDS
from alexsim.execute.context import Choices, Hyperparameters, StepContext
from alexsim.execute.malloc import set_allocators
from alexsim.execute.memory import Memory
from alexsim.execute.random import normal
from alexsim.execute.runner import DeviceRunner
from alexsim.execute.stored import rows_before, stored_parameters
from alexsim.execute.transport import InProcess, Transport
from alexsim.network.not_run import refuse_not_run
from alexsim.network.part import Part, letter
from alexsim.network.update_rules import is_state
from alexsim.plan.placement import activation, parameter
from alexsim.plan.plan import Plan
from alexsim.trace import Trace


class Executor:
    """All devices of a plan in one process.

    Args:
        plan: made for a backend, ``aten`` or ``triton``.
        choices: how to run it; what differs from the defaults may be given by name.
        devices: devices of this process, all by default; ``transport`` then leads to the others.
        place: where they are, if not where ``places`` puts them.
        transport: how exchanges travel; chosen if None.

    Raises:
        MemoryBudgetError: a device's plan does not fit; nothing was allocated.
        PlanError: it is of a precision that nothing here computes in.
        AlexsimError: there is no CUDA device.
    """

    def __init__(
        self,
        plan: Plan,
        choices: Choices | None = None,
        *,
        devices: tuple[int, ...] | None = None,
        place: torch.device | None = None,
        transport: Transport | None = None,
        **changes: object,
    ) -> None:
        if plan.spec.precision != "fp32":
            raise PlanError(f"a plan of precision {plan.spec.precision} is counted, not run")
        if not plan.spec.backend:
            raise ValueError(f"the plan's backend must be one of {', '.join(BACKENDS)}")
        refuse_not_run(plan.network)
        if plan.alike > 1:
            raise ValueError("the plan has one of the devices that it needs")
        if plan.replicas > 1 and transport is None:
            raise ValueError("replicas need a transport to each other")
        self.choices = replace(choices or Choices(), **changes)  # type: ignore[arg-type]
        set_allocators()
        self.plan = plan
        count = len(plan.devices)
        where = [place] * count if place else places(self.choices.device, count)
        budget, dtype = self.choices.budget_bytes, self.choices.dtype
        memories = [
            Memory(plan, plan.devices[index], budget, dtype, place=where[index])
            for index in (range(count) if devices is None else devices)
        ]
        scratch = None
        if plan.spec.backend == "native":
            from alexsim.execute.bind_native import shared_scratch

            scratch = shared_scratch(plan, memories)
        self.runners = [DeviceRunner(plan, memory, self.choices, scratch) for memory in memories]
        self.on_cuda = where[0].type == "cuda"
        if self.on_cuda:
            # fp32 means fp32: cuDNN would take TF32 unasked.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        count = len(self.runners)
        self.transport: Transport = transport or (
            Cards(count, plan.transport) if self.on_cuda else InProcess(count)
        )
        self._memory = {runner.device.name: runner.memory for runner in self.runners}
        self._stored = stored_parameters(plan)
        self._pulled = [e for e in plan.posted if e.target in self._memory]
        for collective in plan.collectives:
            for runner in self.runners:
                self._pulled += collective.received_by(runner.device.index)
        self._captured: _Captured | None = None

    def initialise(self) -> None:
        """Draw the first weights, set the first biases, clear the update rule's state."""
        for runner in self.runners:
            for parts in self.plan.network.parts:
                for part in parts:
                    if part.column not in runner.device.columns:
                        continue
                    for held in part.parameters_by_name.values():
                        name = parameter(runner.device.index, part, held.name)
                        tensor = runner.memory.buffer(name)
                        tensor.fill_(held.mean)
                        if held.std:
                            drawn = self._first_weights(part, held.std)
                            tensor.add_(torch.from_numpy(drawn))
        for name, tensor in self.parameters().items():
            if is_state(name):
                tensor.zero_()

    def _first_weights(self, part: Part, deviation: float) -> NDArray[np.float32]:
        """A hybrid plan's are those of the network before it was split."""
        whole = self._stored[f"{part.layer.name}.a.weight"].shape
        split = self.plan.spec.partition == "hybrid"
        values = normal(
            seed=self.choices.seed,
            layer=part.layer.name,
            column=0 if split else part.column,
            shape=whole if split else part.weight_shape,
        )
        values *= deviation
        first = rows_before(self.plan.network, part)
        return values[first : first + part.weight_shape[0]]

    def parameters(self) -> dict[str, torch.Tensor]:
        """What training changes on this process's devices, by buffer, as views."""
        return {
            held.buffer: self._memory[held.device].buffer(held.buffer)
            for stored in self._stored.values()
            for held in stored.places
            if held.device in self._memory
        }

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and momentum by name (``conv1.a.weight``) that the devices here hold all of; as
        views of their memory where one device does."""
        buffers = self.parameters()
        return {
            name: stored.joined(buffers)
            for name, stored in self._stored.items()
            if all(held.buffer in buffers for held in stored.needed)
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy weights and momentum in; every name must be there, and no other."""
        if self._stored.keys() != state.keys():
            missing = sorted(self._stored.keys() - state.keys())
            unknown = sorted(state.keys() - self._stored.keys())
            raise ValueError(f"state: missing {missing}, unknown {unknown}")
        buffers = self.parameters()
        for name, stored in self._stored.items():
            stored.spread(state[name], buffers)

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        step: int,
        hyperparameters: Hyperparameters,
        normalising: Normalising | None = None,
    ) -> StepContext:
        """Train on one minibatch, whose images are floating, or bytes and what is done to them.

        The losses are those before the update.
        """
        context = StepContext(
            images=images,
            normalising=normalising,
            labels=labels,
            step=step,
            seed=self.choices.seed,
            training=True,
            hyperparameters=hyperparameters,
        )
        for runner in self.runners:
            if runner.constants is not None:
                runner.constants.set(hyperparameters, step)
        # A graph is of one card, and its ops are not timed one by one.
        one_card = len({runner.place for runner in self.runners}) == 1
        timed = any(runner.timeline for runner in self.runners)
        graph = self.choices.graph and one_card and not timed
        return _copied(self._replay(context) if graph else self._run(context))

    def evaluate(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        normalising: Normalising | None = None,
    ) -> StepContext:
        """Forward only, with every unit kept and scaled; changes no weight."""
        context = StepContext(
            images=images,
            normalising=normalising,
            labels=labels,
            step=0,
            seed=self.choices.seed,
            training=False,
            hyperparameters=Hyperparameters(),
        )
        return _copied(self._run(context))

    def activation(self, layer: str) -> torch.Tensor:
        """The latest output of a layer, its columns side by side: ``[N, ...]``, a copy.

        It is there as long as the plan keeps it: with policy ``as-released``, to the next step. Of
        layers that a hybrid plan splits, it is that of the last turn's images.
        """
        parts = self.plan.network.parts_of(layer)
        columns = [
            runner.memory.buffer(name).cpu()
            for part in parts
            for runner in self.runners
            if runner.memory.has(name := activation(runner.device.index, layer, part.column))
        ]
        return torch.cat(columns, 0 if parts[0].copied else 1)

    def record(self, on: bool = True) -> None:
        """Time every op from now on, or none; forgets what was timed before."""
        begin = Timeline.mark() if on and self.on_cuda else None
        for runner in self.runners:
            runner.timeline = runner.spans = None
            if begin is not None:
                runner.timeline = Timeline(begin)
            elif on:
                runner.spans = []

    def event_s(self) -> float:
        """Seconds that timing one op costs; forgets what was timed before."""
        seconds: dict[bool, float] = {}
        for on in (True, False, True, False):
            self.record(on=on)
            elapsed = self.runners[0].idle_s(self.transport)
            seconds[on] = min(elapsed, seconds.get(on, elapsed))
        return max(0.0, seconds[True] - seconds[False])

    def trace(self) -> Trace:
        """What was timed since ``record``."""
        spans = []
        for runner in self.runners:
            spans += runner.timeline.spans() if runner.timeline else runner.spans or []
        return Trace(spans=tuple(spans))

    def first_not_finite(self) -> str:
        """The first activation, in order, that is not finite; else parameter; else empty.

        A step that puts out NaN has updated every weight with it: activations tell where it began.
        """
        places = (
            (runner, f"{part.layer.name}.{letter(part.column)}.{name}")
            for of_weights in (False, True)
            for parts in self.plan.network.parts
            for part in parts
            for runner in self.runners
            if part.column in runner.device.columns
            for name in (part.parameters_by_name if of_weights else ("activation",))
        )
        for runner, label in places:
            memory, key = runner.memory, f"{runner.device.name}/{label}"
            if memory.has(key) and not bool(torch.isfinite(memory.buffer(key)).all()):
                return f"{label} on {runner.device.name}"
        return ""

    def close(self) -> None:
        """Nothing to end: all devices live in this process."""

    def crossed_bytes_per_step(self) -> tuple[int, int]:
        """What the plan's exchanges and sums move: in one process nothing else crosses."""
        return self.plan.exchanged_bytes, self.plan.reduced_bytes

    @property
    def process_bytes(self) -> dict[str, int]:
        """What the driver counts per device: known only where each device is a process."""
        return {}

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Most memory that each device has held."""
        return {runner.device.name: runner.memory.ledger.peak_bytes for runner in self.runners}

    def _run(self, context: StepContext) -> StepContext:
        coming = [e for e in self._pulled if context.training or e.direction == "forward"]
        with torch.no_grad(), self._streams():
            self.transport.begin(coming, self.runners[0].barriers(training=context.training))
            waiting = [runner.turns(context, self.transport) for runner in self.runners]
            while waiting:
                turns = [(turn, next(turn, None)) for turn in waiting]
                waiting = [turn for turn, got_on in turns if got_on is not None]
                got_on = [result for _, result in turns if result is not False]
                assert got_on, "every device waits for another: the plan's exchanges do not match"
        return context

    @contextlib.contextmanager
    def _streams(self) -> Iterator[None]:
        """Devices begin where the caller's stream stands, and it goes on when they have ended."""
        for runner in self.runners:
            if runner.stream is not None:
                runner.stream.wait_stream(torch.cuda.current_stream(runner.place))
        yield
        for runner in self.runners:
            if runner.stream is not None:
                torch.cuda.current_stream(runner.place).wait_stream(runner.stream)

    def _replay(self, context: StepContext) -> StepContext:
        """Replay the captured step on this minibatch; the first steps run as they are."""
        if self._captured is None:
            self._captured = _Captured()
        captured = self._captured
        if captured.warm_ups:
            # Kernels compile and choose their algorithms in steps that are not captured.
            captured.warm_ups -= 1
            return self._run(context)
        # Images come from wherever the caller has them: that is no part of the graph.
        for runner in self.runners:
            runner.upload(context)
        if captured.context is None:
            captured.context = replace(context, uploaded=True)
            torch.cuda.synchronize()
            with torch.cuda.graph(captured.graph):
                self._run(captured.context)
        captured.graph.replay()
        return captured.context


class _Captured:
    """A training step as a graph, and the context that it reads and fills."""

    def __init__(self) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.warm_ups = 2
        self.context: StepContext | None = None


def _copied(context: StepContext) -> StepContext:
    """The same with copies of the results: the next step overwrites these."""
    results = (context.losses, context.top1, context.top5)
    losses, top1, top5 = (None if value is None else value.clone() for value in results)
    return replace(context, losses=losses, top1=top1, top5=top5)

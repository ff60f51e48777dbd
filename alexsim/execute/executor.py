"""Runs the plan: one runner per device, taking turns in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch

from alexsim.execute.bind import Hyperparameters, Run, StepContext, bind
from alexsim.execute.malloc import keep_freed_memory
from alexsim.execute.memory import Memory, parameter_names
from alexsim.execute.random import normal
from alexsim.execute.transport import InProcess, Transport
from alexsim.network.layers import Convolution, FullyConnected
from alexsim.plan.placement import parameter
from alexsim.plan.records import DevicePlan, Op, OpKind, Plan
from alexsim.trace import Span, Trace

_FORWARD = (OpKind.UPLOAD, OpKind.FORWARD, OpKind.LOSS)
_TRANSFER = (OpKind.POST, OpKind.WAIT)


class DeviceRunner:
    """One device: its memory, and its op list bound to functions."""

    def __init__(
        self, plan: Plan, device: DevicePlan, budget_bytes: int | None, dtype: torch.dtype
    ) -> None:
        self.device = device
        self.memory = Memory(plan, device, budget_bytes, dtype)
        self._exchanges = {exchange.name: exchange for exchange in plan.exchanges}
        self._ops: list[tuple[Op, Run | None]] = [
            (op, None if op.kind in (*_TRANSFER, OpKind.BARRIER) else bind(plan, op, self.memory))
            for op in device.ops
        ]
        self.spans: list[Span] | None = None

    def turns(self, context: StepContext, transport: Transport) -> Iterator[bool]:
        """Run the ops in order; yields whether it got on, whenever another device must go first."""
        got_on = True
        for op, run in self._ops:
            if not (context.training or self._in_test(op)):
                continue
            started = time.perf_counter()
            if run is not None:
                run(context)
            elif op.kind == OpKind.POST:
                exchange = self._exchanges[op.exchange]
                transport.post(exchange, self.memory.buffer(exchange.source_buffer))
            elif op.kind == OpKind.BARRIER:
                name = op.id.partition(".")[2]
                transport.arrive(self.device.name, name)
                while not transport.passed(name):
                    yield got_on
                    got_on = False
            else:
                exchange = self._exchanges[op.exchange]
                target = self.memory.buffer(exchange.target_buffer)
                while not transport.pull(exchange, target):
                    yield got_on
                    got_on = False
                    started = time.perf_counter()
            got_on = True
            self._record(op, context.step, started)

    def _in_test(self, op: Op) -> bool:
        if op.kind in _TRANSFER:
            return self._exchanges[op.exchange].direction == "forward"
        return op.kind in _FORWARD or (op.kind == OpKind.BARRIER and op.id.endswith(".forward"))

    def _record(self, op: Op, step: int, started: float) -> None:
        if self.spans is None:
            return
        self.spans.append(
            Span(
                op_id=op.id,
                device=op.device,
                queue=op.queue,
                step=step,
                start_s=started,
                end_s=time.perf_counter(),
                source="measured",
            )
        )


class Executor:
    """All devices of a plan in one process.

    Args:
        plan: made for the ``aten`` backend.
        budget_bytes: memory of each device; None for no limit.
        dtype: float32, or float64 for references (its budget then counts float32 bytes).

    Raises:
        MemoryBudgetError: a device's plan does not fit; nothing was allocated.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        budget_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        if plan.backend != "aten":
            raise ValueError(f"the plan's backend must be 'aten', got {plan.backend!r}")
        keep_freed_memory()
        self.plan = plan
        self.seed = seed
        self.runners = [DeviceRunner(plan, device, budget_bytes, dtype) for device in plan.devices]
        self.transport = InProcess(len(self.runners))
        self._memory = {runner.device.name: runner.memory for runner in self.runners}
        self._parameters = parameter_names(plan)

    def initialise(self) -> None:
        """Draw the first weights, set the first biases, clear the momentum."""
        for runner in self.runners:
            for parts in self.plan.network.parts:
                for part in parts:
                    layer = part.layer
                    mine = part.column in runner.device.columns
                    if mine and isinstance(layer, Convolution | FullyConnected):
                        device = int(runner.device.name.removeprefix("gpu"))
                        values = normal(
                            seed=self.seed,
                            layer=layer.name,
                            column=part.column,
                            shape=part.weight_shape,
                        )
                        values *= layer.weight_std
                        weight = runner.memory.buffer(parameter(device, part, "weight"))
                        weight.copy_(torch.from_numpy(values))
                        runner.memory.buffer(parameter(device, part, "bias")).fill_(layer.bias_init)
        for name, tensor in self.state().items():
            if name.endswith(".momentum"):
                tensor.zero_()

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and momentum by name (``conv1.a.weight``), as views of the devices' memory."""
        return {
            name: self._memory[device].buffer(buffer)
            for name, (device, buffer) in self._parameters.items()
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy weights and momentum in; every name must be there, and no other."""
        own = self.state()
        if own.keys() != state.keys():
            missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
            raise ValueError(f"state: missing {missing}, unknown {unknown}")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        step: int,
        hyperparameters: Hyperparameters,
    ) -> StepContext:
        """Train on one minibatch; the losses are those before the update."""
        return self._run(images, labels, step, hyperparameters, training=True)

    def evaluate(self, images: torch.Tensor, labels: torch.Tensor) -> StepContext:
        """Forward only, with every unit kept and scaled; changes no weight."""
        return self._run(images, labels, 0, Hyperparameters(), training=False)

    def record(self) -> None:
        """Time every op from now on."""
        for runner in self.runners:
            runner.spans = []

    def trace(self) -> Trace:
        """What was timed since ``record``."""
        return Trace(spans=tuple(span for runner in self.runners for span in runner.spans or ()))

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Most memory that each device has held."""
        return {runner.device.name: runner.memory.ledger.peak_bytes for runner in self.runners}

    def _run(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        step: int,
        hyperparameters: Hyperparameters,
        *,
        training: bool,
    ) -> StepContext:
        context = StepContext(
            images=images,
            labels=labels,
            step=step,
            seed=self.seed,
            training=training,
            hyperparameters=hyperparameters,
        )
        with torch.no_grad():
            waiting = [runner.turns(context, self.transport) for runner in self.runners]
            while waiting:
                turns = [(turn, next(turn, None)) for turn in waiting]
                waiting = [turn for turn, got_on in turns if got_on is not None]
                got_on = [result for _, result in turns if result is not False]
                assert got_on, "every device waits for another: the plan's exchanges do not match"
        return context

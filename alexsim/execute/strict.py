"""Strict mode: a process per virtual GPU, which its own allocator holds to the budget.

In one process all virtual GPUs share PyTorch's allocator, and the ledger alone keeps their budgets.
Here every device has a process, and on CUDA ``set_per_process_memory_fraction`` refuses what goes
beyond, scratch of libraries included. (A context, and what bypasses the allocator, still escape
it: ``process_bytes`` is what the driver counts.) Exchanges go through shared memory of the host.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event, Semaphore
from typing import Any

import torch
from torch import multiprocessing

from alexsim.errors import AlexsimError, TrainingError
from alexsim.execute.bind import Hyperparameters, StepContext
from alexsim.execute.cards import cap, places
from alexsim.execute.executor import Executor
from alexsim.execute.runner import Choices
from alexsim.plan.records import Exchange, Plan
from alexsim.trace import Trace

_PATIENCE_S = 120.0
"""How long a device waits for another: the first step compiles kernels on a card."""
_POLL_S = 0.5


@dataclass(slots=True)
class _Channel:
    """Where one exchange lands: the source fills it, the target empties it."""

    buffer: torch.Tensor
    filled: Semaphore
    empty: Semaphore


@dataclass(slots=True)
class _Links:
    """What the processes share."""

    channels: dict[str, _Channel]
    arrivals: dict[tuple[str, str], Semaphore]
    """From one device to another: a token for every barrier that it has come to."""
    stopped: Event


class _Shared:
    """The transport between processes of one machine: through its memory.

    Args:
        links: what the processes share.
        device: whose transport it is.
        check: raises if another process is gone.
    """

    def __init__(self, links: _Links, device: str, check: Callable[[], None]) -> None:
        self.exchanged_bytes = 0
        self._links, self._check = links, check
        self._to = [token for (a, _), token in links.arrivals.items() if a == device]
        self._from = [token for (_, b), token in links.arrivals.items() if b == device]

    def begin(self, exchanges: Sequence[Exchange], barriers: Sequence[str]) -> None:
        """Nothing to prepare."""

    def reduce(self, device: int, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Nothing is summed here.

        Raises:
            AssertionError: the plan is one of replicas, or hybrid.
        """
        del device, gradients
        raise AssertionError(f"{layer}: no sums between these processes")

    def reduced(self, device: int) -> bool:
        """Nothing was begun."""
        del device
        return True

    def post(self, exchange: Exchange, source: torch.Tensor) -> None:
        """Copy ``source`` to the host, once the last one was fetched."""
        channel = self._links.channels[exchange.name]
        self._take(channel.empty, f"exchange {exchange.name} was not fetched")
        channel.buffer.copy_(source)
        channel.filled.release()

    def pull(self, exchange: Exchange, target: torch.Tensor) -> bool:
        """Wait for what was posted, and copy it."""
        channel = self._links.channels[exchange.name]
        self._take(channel.filled, f"exchange {exchange.name} did not come")
        target.copy_(channel.buffer)
        channel.empty.release()
        self.exchanged_bytes += target.numel() * target.element_size()
        return True

    def arrive(self, device: int, barrier: str) -> None:
        """Tell every other device; all come to the same barriers in the same order."""
        del device, barrier
        for token in self._to:
            token.release()

    def passed(self, barrier: str) -> bool:
        """Wait for every other device."""
        for token in self._from:
            self._take(token, f"another device did not come to {barrier}")
        return True

    def _take(self, semaphore: Semaphore, otherwise: str) -> None:
        until = time.monotonic() + _PATIENCE_S
        while not semaphore.acquire(timeout=_POLL_S):
            self._check()
            if self._links.stopped.is_set() or time.monotonic() > until:
                raise TrainingError(otherwise)


class Strict:
    """Runs a plan with a process per device; used like ``Executor``. Close it after use.

    Raises:
        MemoryBudgetError: a device's plan does not fit.
        TrainingError: a device's process died.
    """

    def __init__(self, plan: Plan, choices: Choices, *, threads: int) -> None:
        self.plan, self.choices = plan, choices
        context = multiprocessing.get_context("spawn")
        self._links = _links_of(plan, context)
        self._images = _shared_images((plan.batch_size, *plan.network.input_shape))
        self._labels = torch.empty(plan.batch_size, dtype=torch.int64).share_memory_()
        self._others: list[tuple[str, Any, Connection]] = []
        try:
            cap(_place(plan, choices, 0), choices.budget_bytes)
            own = _Shared(self._links, plan.devices[0].name, self._check)
            self._own = Executor(plan, choices, mine=(0,), transport=own)
            for index in range(1, len(plan.devices)):
                here, there = context.Pipe()
                batch = (self._images, self._labels)
                arguments = (there, plan, choices, index, threads, self._links, batch)
                child = context.Process(target=_serve, args=arguments, daemon=True)
                child.start()
                there.close()
                self._others.append((plan.devices[index].name, child, here))
            self._answers()
        except BaseException:
            self.close()
            raise

    def initialise(self) -> None:
        """Draw the first weights, set the first biases, clear the momentum."""
        self._ask("initialise")
        self._own.initialise()
        self._answers()

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and momentum by name; copies of what other processes hold."""
        self._ask("state")
        whole = dict(self._own.state())
        for part in self._answers():
            whole |= part
        return whole

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy weights and momentum in."""
        self._ask("load_state", dict(state))
        self._own.load_state(state)
        self._answers()

    def step(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        step: int,
        hyperparameters: Hyperparameters,
    ) -> StepContext:
        """Train on one minibatch."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._ask("step", step, hyperparameters)
        context = self._guarded(
            lambda: self._own.step(
                self._images, self._labels, step=step, hyperparameters=hyperparameters
            )
        )
        self._answers()
        return context

    def evaluate(self, images: torch.Tensor, labels: torch.Tensor) -> StepContext:
        """Forward only."""
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._ask("evaluate")
        context = self._guarded(lambda: self._own.evaluate(self._images, self._labels))
        self._answers()
        return context

    def first_not_finite(self) -> str:
        """The first tensor that is not finite, of any device."""
        self._ask("first_not_finite")
        return next(filter(None, [self._own.first_not_finite(), *self._answers()]), "")

    def record(self, on: bool = True) -> None:
        """Time every op from now on, or none; forgets what was timed before."""
        self._ask("record", on)
        self._own.record(on)
        self._answers()

    def trace(self) -> Trace:
        """What was timed since ``record``; all processes of a machine read the same clock."""
        self._ask("trace")
        traces = [self._own.trace(), *self._answers()]
        return Trace(spans=tuple(span for trace in traces for span in trace.spans))

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Most memory that each device has held."""
        self._ask("peak_bytes")
        found = dict(self._own.peak_bytes)
        for part in self._answers():
            found |= part
        return found

    @property
    def process_bytes(self) -> dict[str, int]:
        """What the driver counts for each device's process, its context included; {} without."""
        self._ask("process_bytes")
        found = _process_bytes(self.plan.devices[0].name)
        for part in self._answers():
            found |= part
        return found

    def close(self) -> None:
        """End the other processes."""
        self._links.stopped.set()
        for _, child, connection in self._others:
            with contextlib.suppress(OSError):
                connection.send(("close", ()))
            child.join(5)
            if child.is_alive():
                child.kill()
                child.join()
            connection.close()
        self._others = []
        # The cap holds for the rest of this process otherwise.
        cap(_place(self.plan, self.choices, 0), 1 << 62)

    def _guarded(self, run: Any) -> StepContext:
        try:
            context: StepContext = run()
        except TrainingError as error:
            # Rather say why the other one did not come.
            self._links.stopped.set()
            self._answers(otherwise=error)
            raise
        return context

    def _ask(self, command: str, *arguments: object) -> None:
        for name, child, connection in self._others:
            try:
                connection.send((command, arguments))
            except OSError as error:
                raise self._died(name, child) from error

    def _answers(self, otherwise: TrainingError | None = None) -> list[Any]:
        found = []
        for name, child, connection in self._others:
            until = time.monotonic() + _PATIENCE_S
            while not connection.poll(_POLL_S):
                if not child.is_alive():
                    raise self._died(name, child) from otherwise
                if time.monotonic() > until:
                    raise TrainingError(f"{name}: no answer for {_PATIENCE_S:g} s")
            try:
                answer = connection.recv()
            except (EOFError, OSError) as error:
                raise self._died(name, child) from error
            if isinstance(answer, AlexsimError):
                raise answer from otherwise
            found.append(answer)
        return found

    def _check(self) -> None:
        for name, child, _ in self._others:
            if not child.is_alive():
                raise self._died(name, child)

    def _died(self, name: str, child: Any) -> TrainingError:
        self._links.stopped.set()
        child.join(1)
        return TrainingError(f"the process of {name} died (exit code {child.exitcode})")


def _links_of(plan: Plan, context: Any) -> _Links:
    shapes = {b.name: b.shape for device in plan.devices for b in device.buffers}
    channels = {
        exchange.name: _Channel(
            buffer=_shared_images(shapes[exchange.source_buffer]),
            filled=context.Semaphore(0),
            empty=context.Semaphore(1),
        )
        for exchange in plan.exchanges
    }
    names = [device.name for device in plan.devices]
    arrivals = {(a, b): context.Semaphore(0) for a in names for b in names if a != b}
    return _Links(channels, arrivals, context.Event())


def _shared_images(shape: tuple[int, ...]) -> torch.Tensor:
    """Shared memory of a shape; images lie channels-last, as the devices hold most of them."""
    if len(shape) != 4:
        return _shared(*shape)
    n, c, h, w = shape
    return _shared(n, h, w, c).permute(0, 3, 1, 2)


def _shared(*shape: int) -> torch.Tensor:
    made = torch.empty(shape)
    made.share_memory_()
    return made


def _serve(
    connection: Connection,
    plan: Plan,
    choices: Choices,
    index: int,
    threads: int,
    links: _Links,
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """The life of another device's process: do what is asked, until it is over."""
    # Ctrl-C reaches the whole group; the first process answers it, and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    name = plan.devices[index].name
    images, labels = batch
    try:
        cap(_place(plan, choices, index), choices.budget_bytes)
        executor = Executor(
            plan, choices, mine=(index,), transport=_Shared(links, name, _parent_lives)
        )
        connection.send(None)
        while True:
            command, arguments = connection.recv()
            answer: Any = None
            match command:
                case "close":
                    return
                case "step":
                    step, rates = arguments
                    executor.step(images, labels, step=step, hyperparameters=rates)
                case "evaluate":
                    executor.evaluate(images, labels)
                case "state":
                    answer = {k: v.cpu().clone() for k, v in executor.state().items()}
                case "peak_bytes":
                    answer = dict(executor.peak_bytes)
                case "process_bytes":
                    answer = _process_bytes(name)
                case _:
                    answer = getattr(executor, command)(*arguments)
            connection.send(answer)
    except AlexsimError as error:
        links.stopped.set()
        connection.send(error)
    except EOFError:
        return  # the run is over


def _parent_lives() -> None:
    parent = parent_process()
    if parent is not None and not parent.is_alive():
        raise TrainingError("the process that began this one is gone")


def _place(plan: Plan, choices: Choices, index: int) -> torch.device:
    return places(choices.device, len(plan.devices))[index]


def _process_bytes(name: str) -> dict[str, int]:
    """Bytes that NVML counts for this process; nothing where there is no NVML."""
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        for card in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(card)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == os.getpid():
                    return {name: int(process.usedGpuMemory or 0)}
    except pynvml.NVMLError:
        pass
    return {}

"""Steps of a PyTorch module as its user would run them: eager, and by ``torch.compile``.

The module is copied; its weights stay as they are, and it is put in training mode. Memory formats
are left as the user has them. Both run in this process, with its threads and its allocator.

Eager time is told apart by marks: from each on, time is a module's. Hooks set one where a module's
forward pass begins and ends, and where autograd comes to one of its nodes; whose a node is, its
sequence number tells, which grows with every node that the forward pass makes.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity

from alexsim.errors import AlexsimError
from alexsim.execute.choices import Device
from alexsim.execute.context import STILL
from alexsim.network.network import Network
from alexsim.network.update_rules import Optimizer
from alexsim.plan.plan import Plan
from alexsim.profile.beside import group_of
from alexsim.profile.step_profile import (
    Beside,
    CompiledStep,
    EagerStep,
    ModuleTimes,
    PassTimes,
    ratio,
    spread,
)
from alexsim.profile.steps import Batch, allocations, minibatch, take_turns, wait

Tensor = torch.Tensor
Key = tuple[str, str]
"""A module's name and a pass, or nothing and a part of the step."""
_LOSS, _UPDATE, _UNCOUNTED = ("", "loss"), ("", "update"), ("", "uncounted")
PREPARATIONS = 3
"""Eager PyTorch's first steps, the compiled module's first, and its second."""
_LONGEST = 200
"""Letters of another program's error that are shown."""


class Eager:
    """A copy of a module, its update rule, and a minibatch.

    Raises:
        AlexsimError: the module cannot be copied.
    """

    def __init__(
        self,
        network: Network,
        batch: Batch,
        *,
        optimizer: Optimizer = "sgd-2012",
        frozen: Sequence[str] = (),
        device: Device = "cpu",
    ) -> None:
        """``batch``: images as the module reads them, ``[N, ...]``, and labels ``[N]``; ``frozen``:
        names of parameters that do not learn."""
        try:
            module = deepcopy(network.module)
        except Exception as error:
            raise AlexsimError(f"the module cannot be copied: {in_one_line(error)}") from error
        self.module: nn.Module = module.train().to(device)
        self.images, self.labels = batch[0].to(device), batch[1].to(device)
        self.device = device
        *others, answer = network.heads
        self._weights = [head.weight for head in (answer, *others)]
        for name, parameter in self.module.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)
        self.optimizer = _rule(optimizer, self.module)
        self.run: Callable[[Tensor], Any] = self.module

    def step(self, mark: Callable[[Key], None] = lambda _: None, trace: Any = None) -> float:
        """Seconds of a step.

        Args:
            mark: is called where a part of it begins.
            trace: is called with the cost before its backward pass.
        """
        wait(self.device)
        started = time.perf_counter()
        mark(_UPDATE)
        self.optimizer.zero_grad()
        outputs = self.run(self.images)
        mark(_LOSS)
        cost = self._cost(outputs)
        if trace is not None:
            mark(_UNCOUNTED)
            trace(cost)
            mark(_LOSS)
        cost.backward()  # type: ignore[no-untyped-call]
        mark(_UPDATE)
        self.optimizer.step()
        mark(_UNCOUNTED)
        wait(self.device)
        return time.perf_counter() - started

    def _cost(self, outputs: object) -> Tensor:
        """Cross entropy of the first output, and of the others by the weights of their heads."""
        scores = [each for each in _tensors(outputs) if each.requires_grad]
        if not scores:
            raise AlexsimError("the module puts out nothing that has a gradient")
        known = len(scores) == len(self._weights)
        weights = self._weights if known else [1.0] + [0.3] * (len(scores) - 1)
        costs = [
            weight * F.cross_entropy(each.flatten(1), self.labels)
            for weight, each in zip(weights, scores, strict=True)
        ]
        return torch.stack(costs).sum() if len(costs) > 1 else costs[0]


class Rivals:
    """PyTorch's steps, to take turns with ours."""

    def __init__(
        self,
        network: Network,
        batch: Batch,
        *,
        done: Callable[[int], None] = lambda _: None,
        **choices: Any,
    ) -> None:
        """As ``Eager``. The first steps are run, and the module is compiled: may take minutes.

        ``done`` gets how many of ``PREPARATIONS`` are over.

        Raises:
            AlexsimError: the module cannot be copied, or fails.
        """
        self.eager = Eager(network, batch, **choices)
        self._watch = _Watch(self.eager)
        try:
            self.eager.step()
            self._watch.step()
        except AlexsimError:
            raise
        except Exception as error:
            raise AlexsimError(f"the module's step fails: {in_one_line(error)}") from error
        done(1)
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._timed: list[dict[Key, float]] = []
        self.why_not = ""
        self._compiled: Eager | None = Eager(network, batch, **choices)
        try:
            self._compiled.run = torch.compile(self._compiled.module)
            self._first_s = self._compiled.step()
            done(2)
            self._compiled.step()
        except Exception as error:
            self._compiled, self.why_not = None, in_one_line(error)
        done(PREPARATIONS)

    def turns(self) -> list[Callable[[], None]]:
        """What is to run in every round, in any order."""
        turns = [self._eager_turn, self._timed_turn]
        return [*turns, self._compiled_turn] if self._compiled else turns

    def _eager_turn(self) -> None:
        self._seconds["eager"].append(self.eager.step())

    def _timed_turn(self) -> None:
        self._timed.append(self._watch.step())

    def _compiled_turn(self) -> None:
        assert self._compiled is not None
        self._seconds["compiled"].append(self._compiled.step())

    def result(self, ours: Sequence[float] = ()) -> Beside:
        """What the rounds gave.

        Args:
            ours: seconds of our steps in the same rounds, if there were any.
        """
        eager_s, compiled_s = self._seconds["eager"], self._seconds["compiled"]
        return Beside(
            eager=EagerStep(
                torch=torch.__version__,
                untimed=spread(eager_s),
                timed=spread([sum(times.values()) for times in self._timed]),
                modules=tuple(self._modules()),
                loss_s=self._median(_LOSS),
                update_s=self._median(_UPDATE),
                held_bytes=_held_bytes(self.eager),
            ),
            compiled=CompiledStep(
                untimed=spread(compiled_s),
                compile_s=max(0.0, self._first_s - median(compiled_s)),
                over_eager=ratio(compiled_s, eager_s),
                over_ours=ratio(compiled_s, ours) if ours else None,
            )
            if self._compiled
            else None,
            why_not=self.why_not,
            over_ours=ratio(eager_s, ours) if ours else None,
        )

    def _modules(self) -> Iterator[ModuleTimes]:
        for name in self._watch.called:
            module = self.eager.module.get_submodule(name)
            yield ModuleTimes(
                name=name,
                aliases=self._watch.aliases[name],
                works=name in self._watch.makers or not any(module.children()),
                eager=PassTimes(
                    forward_s=self._median((name, "forward")),
                    backward_s=self._median((name, "backward")),
                ),
            )

    def _median(self, key: Key) -> float:
        return median(times.get(key, 0.0) for times in self._timed)


def rivals_of(plan: Plan, device: Device, done: Callable[[int], None] = lambda _: None) -> Rivals:
    """The module that a plan's network was made of, on the same minibatch and by the same rule.

    Raises:
        AlexsimError: as ``Rivals``.
    """
    module: nn.Module = plan.network.module
    images, labels = minibatch(plan)
    names = {name: name for name, _ in module.named_modules(remove_duplicate=False)}
    learning, frozen = plan.spec.trainable, []
    for layer in plan.network.weighted_layers:
        if learning is not None and layer not in learning:
            name = group_of(layer, names)
            still = module.get_submodule(name).named_parameters(name, recurse=False)
            frozen += [parameter for parameter, _ in still]
    return Rivals(
        plan.network,
        (images.contiguous(), labels),
        optimizer=plan.spec.optimizer,
        frozen=frozen,
        device=device,
        done=done,
    )


def beside_alone(
    network: Network,
    batch: Batch,
    *,
    rounds: int,
    done: Callable[[int], None] = lambda _: None,
    **choices: Any,
) -> Beside:
    """PyTorch's steps without ours: of a network with layers that are only counted here."""
    rivals = Rivals(network, batch, **choices)
    for index in range(rounds):
        take_turns(rivals.turns(), index)
        done(index + 1)
    return rivals.result()


class _Watch:
    """Whose the time of a step is."""

    def __init__(self, eager: Eager) -> None:
        self._eager = eager
        self._name = {id(module): name for name, module in eager.module.named_modules()}
        names: dict[str, list[str]] = defaultdict(list)
        for name, module in eager.module.named_modules(remove_duplicate=False):
            names[self._name[id(module)]].append(name)
        self.aliases: Mapping[str, tuple[str, ...]] = {
            name: tuple(others) for name, others in names.items()
        }
        self.called: dict[str, None] = {}
        """In the order in which their first calls ended: children before their parents."""
        self.makers: set[str] = set()
        """Those that made a node themselves."""

    def step(self) -> dict[Key, float]:
        """Seconds by module and pass of a step; together they are the step."""
        self._marks: list[tuple[Any, Key]] = []
        self._starts: list[int] = []
        self._keys: list[Key] = []
        self._outer: list[Key] = []
        self._pass = "forward"
        handles = []
        for module in self._eager.module.modules():
            name = self._name[id(module)]
            handles += [
                module.register_forward_pre_hook(partial(self._enter, name), prepend=True),
                module.register_forward_hook(partial(self._leave, name)),
            ]
        try:
            self._eager.step(self._mark, self._at_nodes)
        finally:
            for handle in handles:
                handle.remove()
        times: dict[Key, float] = defaultdict(float)
        for (start, key), (end, _) in zip(self._marks, self._marks[1:], strict=False):
            times[key] += self._between(start, end)
        times.pop(_UNCOUNTED)
        return times

    def _mark(self, key: Key) -> None:
        self._starts.append(torch._C._autograd._get_sequence_nr())
        self._keys.append(key)
        self._set(key)

    def _set(self, key: Key) -> None:
        if self._eager.device == "cuda":
            event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append((event, key))
        else:
            self._marks.append((time.perf_counter(), key))

    def _between(self, start: Any, end: Any) -> float:
        seconds: float = (
            start.elapsed_time(end) / 1e3 if self._eager.device == "cuda" else end - start
        )
        return seconds

    def _enter(self, name: str, *_: object) -> None:
        # In the backward pass too: there a checkpoint computes again.
        self._outer.append(self._marks[-1][1])
        self._mark((name, self._pass))

    def _leave(self, name: str, *_: object) -> None:
        self.called.setdefault(name)
        self._mark(self._outer.pop())

    def _at_nodes(self, cost: Tensor) -> None:
        """Have autograd set a mark where it comes to a node."""
        self._pass = "backward"
        seen: set[object] = set()
        nodes: list[Any] = [cost.grad_fn]
        while nodes:
            node = nodes.pop()
            # A parameter's gradient is stored at once, by a node without a number: it is part of
            # what computed it.
            if node is None or node in seen or hasattr(node, "variable"):
                continue
            seen.add(node)
            nodes += [before for before, _ in node.next_functions]
            name, part = self._keys[bisect_right(self._starts, node._sequence_nr()) - 1]
            if part == "forward":
                self.makers.add(name)
                node.register_prehook(partial(self._node, (name, "backward")))
            else:
                node.register_prehook(partial(self._node, (name, part)))

    def _node(self, key: Key, _: object) -> None:
        self._set(key)


def _rule(optimizer: Optimizer, module: nn.Module) -> torch.optim.Optimizer:
    """The update rule as PyTorch has it, at a rate that changes no weight."""
    learning = [each for each in module.parameters() if each.requires_grad]
    if not learning:
        raise AlexsimError("none of the module's parameters learns")
    rate, decay = STILL.weight_rate, STILL.weight_decay
    if optimizer == "adamw":
        return torch.optim.AdamW(
            learning, rate, (STILL.momentum, STILL.beta2), STILL.epsilon, decay
        )
    return torch.optim.SGD(learning, rate, STILL.momentum, weight_decay=decay)


def _tensors(outputs: object) -> Iterator[Tensor]:
    """Of what a module puts out, in order."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        yield from _tensors(tuple(outputs.values()))
    elif isinstance(outputs, list | tuple):
        for each in outputs:
            yield from _tensors(each)


def _held_bytes(eager: Eager) -> int:
    """Most bytes held in a step; the minibatch is not in it."""
    if eager.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        eager.step()
        return torch.cuda.max_memory_allocated()
    eager.optimizer.zero_grad()
    lasting = [*eager.module.parameters(), *eager.module.buffers()]
    for state in eager.optimizer.state.values():
        lasting += [value for value in state.values() if isinstance(value, Tensor)]
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        eager.step()
    alive = peak = 0
    for _, size in allocations(profiled):
        alive += size
        peak = max(peak, alive)
    return sum(each.nbytes for each in lasting) + peak


def in_one_line(error: BaseException) -> str:
    """An error's kind and the beginning of its text."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."

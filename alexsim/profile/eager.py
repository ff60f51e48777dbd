"""A PyTorch module's training step as its user would run it.

The module is copied; its weights stay as they are, and it is put in training mode. Memory formats
are left as the user has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from types import MappingProxyType
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
from alexsim.profile.steps import Batch, allocations, wait

Tensor = torch.Tensor
Key = tuple[str, str]
"""A module's name and a pass, or nothing and a part of the step."""
LOSS, UPDATE, UNCOUNTED = ("", "loss"), ("", "update"), ("", "uncounted")
_AS_IT_IS: Mapping[str, bool] = MappingProxyType({})
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
        learns: Mapping[str, bool] = _AS_IT_IS,
        device: Device = "cpu",
    ) -> None:
        """``batch``: images as the module reads them, ``[N, ...]``, and labels ``[N]``; ``learns``:
        of parameters, whether they do, where that is not as the module has it."""
        try:
            module = deepcopy(network.module)
        except Exception as error:
            raise AlexsimError(f"the module cannot be copied: {in_one_line(error)}") from error
        self.module: nn.Module = module.train().to(device)
        self.images, self.labels = batch[0].to(device), batch[1].to(device)
        self.device = device
        # The answer, a module's first output, is a network's last head.
        self._weights = [head.weight for head in reversed(network.heads)]
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(learns.get(name, parameter.requires_grad))
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
        mark(UPDATE)
        self.optimizer.zero_grad()
        outputs = self.run(self.images)
        mark(LOSS)
        cost = self._cost(outputs)
        if trace is not None:
            mark(UNCOUNTED)
            trace(cost)
            mark(LOSS)
        cost.backward()  # type: ignore[no-untyped-call]
        mark(UPDATE)
        self.optimizer.step()
        mark(UNCOUNTED)
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


def held_bytes(eager: Eager) -> int:
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

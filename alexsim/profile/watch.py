"""Whose the time of an eager step is, told apart by marks: from each on, it is a module's.

Hooks set a mark where a module's forward pass begins and ends, and where autograd comes to one of
its nodes. Whose a node is, its sequence number tells, which grows with every node that the forward
pass makes.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from alexsim.profile.eager import UNCOUNTED, Eager, Key


class Watch:
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
        times.pop(UNCOUNTED)
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

    def _at_nodes(self, cost: torch.Tensor) -> None:
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

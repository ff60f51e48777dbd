"""ATen's functions, and Triton's kernels for the ops that they were measured to be faster at."""

from __future__ import annotations

from collections.abc import Iterable

from alexsim.network.kernel_names import kernel_name
from alexsim.network.layers import MaxPool
from alexsim.network.part import INPUT, Part
from alexsim.plan.backends.aten import Aten
from alexsim.plan.backends.base import Asked, Choice, Passes
from alexsim.plan.backends.triton import Triton
from alexsim.plan.plan import OpKind


class Chosen(Aten):
    """Our kernel where an op's name is among those given and there is one; else ATen's function.

    All that ops leave for each other is the same in both.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names, self._triton = frozenset(names), Triton()

    def choose(self, asked: Asked) -> Choice:
        """By its name."""
        part = asked.part
        if part is None or kernel_name(asked.kind, part, asked.end) not in self._names:
            return super().choose(asked)
        return self._triton.choose(asked)

    def fuses(self, first: Asked, second: Part, *, rows: bool, adds: bool) -> Passes:
        """Of a product both passes, if all its gradients are by our kernels, which take a mask.

        A norm and a pool are one kernel in both passes: it keeps for the one what the other reads.
        """
        part = first.part
        assert part is not None
        kinds = [OpKind.GRAD_WEIGHT, OpKind.GRAD_INPUT]
        if alone := isinstance(second.layer, MaxPool):
            kinds[0] = OpKind.FORWARD
        elif all(read.layer == INPUT for read in part.reads):
            kinds.pop()
        asked = [first._replace(kind=kind, end=second) for kind in kinds]
        ours = all(self.choose(each).backend == "triton" for each in asked)
        both = self._triton.fuses(first, second, rows=rows, adds=adds) if ours else "none"
        if alone or both != "none":
            return both
        return super().fuses(first, second, rows=rows, adds=adds)

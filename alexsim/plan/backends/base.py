"""What a backend decides about an op before it runs: the torch-free half of each backend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, Protocol

from alexsim.network.network import Network
from alexsim.network.part import Part
from alexsim.network.update_rules import Optimizer
from alexsim.network.views import Read
from alexsim.plan.choices import Policy, Products
from alexsim.plan.plan import Op, OpKind

Passes = Literal["none", "forward", "forward and backward"]
"""Passes in which one kernel does two layers."""


Rows = tuple[bool, bool]
"""Whether images that an op's layer reads, and those that it writes, or their gradients, may lie
channels first."""


class Asked(NamedTuple):
    """An op that a backend has to choose for."""

    kind: OpKind
    part: Part | None
    images: int
    """Images that it works on."""
    accumulate: bool = False
    """Add to what is written instead of overwriting it."""
    optimizer: Optimizer = "sgd-2012"
    replicas: int = 1
    rows: Rows = (False, False)
    threads: int = 1
    """Threads of a device."""
    products: Products = "fp32"
    """What fully connected layers multiply."""
    end: Part | None = None
    """The part that the same kernel does too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How an op is run: decided once, recorded on the op, followed by executor and simulator."""

    backend: str
    """The backend whose kernel runs it."""
    algorithm: str = ""
    chunk_images: int
    """Images that it works on at a time, so that scratch stays small."""
    scratch_bytes: int = 0


class Backend(Protocol):
    """A set of kernels: how it runs an op, and which layers it fuses."""

    def choose(self, asked: Asked) -> Choice:
        """How it runs one op."""
        ...

    def fuses(self, first: Asked, second: Part, *, rows: bool, adds: bool) -> Passes:
        """What its kernels do of two layers at once, if the second can end the first's kernel.

        Args:
            first: the op that has the kernel, forward; ``accumulate`` says whether the gradient of
                its weights may have to be added to another.
            second: the only part that reads its output.
            rows: the second's output lies channels first.
            adds: the gradient of what the first reads may have to be added to another.
        """
        ...

    def done_flop(self, op: Op, part: Part) -> int:
        """FLOP of the multiply-adds that are done for an op: Winograd's are fewer."""
        ...


@cache
def _counted(images: int) -> Choice:
    return Choice(backend="", chunk_images=images)


class Counted:
    """No backend: the 2012 kernels, which are counted and simulated, and need no scratch."""

    def choose(self, asked: Asked) -> Choice:
        """Nothing to choose."""
        return _counted(asked.images)

    def fuses(self, first: Asked, second: Part, *, rows: bool, adds: bool) -> Passes:
        """All that a kernel could: cuda-convnet had no such kernels, so this is a what-if."""
        del first, second, rows, adds
        return "forward and backward"

    def done_flop(self, op: Op, part: Part) -> int:
        """All that are counted."""
        del part
        return op.count.flop


def read_as_rows(network: Network, policy: Policy) -> frozenset[Read]:
    """Images that lie channels first, or their gradients do, as a matrix product reads them."""
    rows: set[Read] = set()
    for parts in reversed(network.parts):
        for part in parts:
            layer = part.layer
            flattens = layer.flattens and math.prod(part.input_shape[1:]) > 1
            # What such a layer reads, or its gradient, may lie in the memory of its output.
            shares = layer.passes_grad or (
                policy != "as-released" and (layer.overwrites_grad or layer.overwrites_input)
            )
            if flattens or (shares and part.output in rows):
                rows.update(part.reads)
    return frozenset(rows)


def rows_of(part: Part, rows: frozenset[Read]) -> Rows:
    """Which images of a part lie so."""
    return not rows.isdisjoint(part.reads), part.output in rows

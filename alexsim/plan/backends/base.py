"""What a backend says about an op before it runs: the torch-free half of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

from alexsim.network.network import Network, Part
from alexsim.network.update_rules import Optimizer
from alexsim.plan.records import Algorithm, OpKind

Passes = Literal["none", "forward", "forward and backward"]
"""Passes in which one kernel does two layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How an op is run: decided once, recorded on the op, followed by whoever runs or times it."""

    backend: str
    """Whose kernel runs it."""
    algorithm: Algorithm = ""
    chunk_images: int
    """Images that it works on at a time, so that scratch stays small."""
    scratch_bytes: int = 0


class Backend(Protocol):
    """Who runs ops here, and what that takes."""

    def refused(self, network: Network) -> str:
        """Why it cannot run a network, or nothing."""
        ...

    def choose(
        self,
        kind: OpKind,
        part: Part | None,
        batch_size: int,
        *,
        accumulate: bool,
        optimizer: Optimizer = "sgd-2012",
    ) -> Choice:
        """How it runs one op."""
        ...

    def fuses(self, first: Part, second: Part, *, flat: bool, adds: bool) -> Passes:
        """What its kernels do of two layers at once, if the second can end the first's kernel.

        Args:
            first: has the kernel.
            second: the only one that reads its output.
            flat: the second's output lies channels first.
            adds: the gradient of what the first reads may have to be added to another's.
        """
        ...


@cache
def _counted(batch_size: int) -> Choice:
    return Choice(backend="", chunk_images=batch_size)


class Counted:
    """No backend: the 2012 kernels, which are counted and simulated, and need no scratch."""

    def refused(self, network: Network) -> str:
        """Everything can be counted."""
        del network
        return ""

    def choose(
        self,
        kind: OpKind,
        part: Part | None,
        batch_size: int,
        *,
        accumulate: bool,
        optimizer: Optimizer = "sgd-2012",
    ) -> Choice:
        """Nothing to choose."""
        del kind, part, accumulate, optimizer
        return _counted(batch_size)

    def fuses(self, first: Part, second: Part, *, flat: bool, adds: bool) -> Passes:
        """All that a kernel could: cuda-convnet had no such kernels, so this is a what-if."""
        del first, second, flat, adds
        return "forward and backward"

"""What trains with a plan, however its devices are spread over processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from alexsim.data.normalising import Normalising
from alexsim.execute.context import Hyperparameters, StepContext
from alexsim.plan.plan import Plan
from alexsim.trace import Trace


class PlanExecutor(Protocol):
    """All devices of a plan in this process (``Executor``), or one of them in each of several
    processes (``Ranks``), which then call every method together."""

    plan: Plan

    def initialise(self) -> None:
        """Draw the first weights, set the first biases, clear the momentum."""

    def state(self) -> dict[str, torch.Tensor]:
        """Weights and momentum by name (``conv1.a.weight``): all of them in the first process."""

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Copy weights and momentum in; the first process's count."""

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

    def evaluate(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        *,
        normalising: Normalising | None = None,
    ) -> StepContext:
        """Forward only; changes no weight."""

    def first_not_finite(self) -> str:
        """The first tensor that is not finite, of any device; or nothing."""

    def record(self, on: bool = True) -> None:
        """Time every op from now on, or none; forgets what was timed before."""

    def trace(self) -> Trace:
        """What was timed since ``record``."""

    def crossed_bytes_per_step(self) -> tuple[int, int]:
        """Activations and their gradients that have crossed between devices, and gradients of
        weights that were summed."""

    @property
    def peak_bytes(self) -> dict[str, int]:
        """Most memory that each device has held."""

    @property
    def process_bytes(self) -> dict[str, int]:
        """What the driver counts per device: known only where each device is a process."""

    def close(self) -> None:
        """Give back what outlives the object."""

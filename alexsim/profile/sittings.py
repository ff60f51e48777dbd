"""Steps of a network at several batch sizes, measured op by op in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from alexsim.errors import AlexsimError
from alexsim.execute.choices import Device
from alexsim.execute.context import STILL, Choices
from alexsim.execute.executor import Executor
from alexsim.execute.transport import InProcess
from alexsim.plan.plan import Plan
from alexsim.plan.planner import plan
from alexsim.plan.spec import PlanSpec
from alexsim.profile.others import Moment
from alexsim.profile.steps import minibatch, wait

_WARM_UPS: Mapping[Device, int] = {"cpu": 1, "cuda": 3}
"""Steps that fault pages in, and let oneDNN and cuDNN make their kernels and a card its clocks."""
_DISTURBED = 0.05
"""Share of the cores' time that others may take during a step."""
_SITTING = 2
"""Rounds in the same memory. Where a step's pages happen to lie makes a difference of percents to
it, the same in every round: medians are over several such places."""
_COPIES = 2
"""Replicas, of which one's step is timed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One measured step: its wall time, and its ops' seconds by id."""

    batch_size: int
    step_s: float
    ops: dict[str, float]
    disturbed: bool = False
    """Whether others took the cores meanwhile."""


class _Alone(InProcess):
    """A replica without the others: what they would sum stays as it is."""

    def reduce(self, device: int, layer: str, gradients: Sequence[torch.Tensor]) -> None:
        """Nothing."""


class Step:
    """The same step again and again, every op timed."""

    def __init__(self, made: Plan, device: Device, state: Mapping[str, torch.Tensor]) -> None:
        """``state``: weights to begin with; if empty, drawn ones."""
        self.plan, self.device = made, device
        transport = _Alone(len(made.devices)) if made.replicas > 1 else None
        self.executor = Executor(made, Choices(device=device), transport=transport)
        if state:
            self.executor.load_state(state)
        else:
            self.executor.initialise()
        images, labels = minibatch(made)
        if device == "cuda":
            # As in training: what is not pinned crosses at a fraction of the link's rate.
            images, labels = images.pin_memory(), labels.pin_memory()
        self._images, self._labels = images, labels

    def __call__(self) -> Round:
        """Run it once."""
        self.executor.record()
        wait(self.device)
        before = Moment.now()
        started = time.perf_counter()
        self.executor.step(self._images, self._labels, step=0, hyperparameters=STILL)
        wait(self.device)
        elapsed = time.perf_counter() - started
        seconds = {op: times[0] for op, times in self.executor.trace().by_op().items()}
        return Round(
            batch_size=self.plan.batch_size,
            step_s=elapsed,
            ops=seconds,
            disturbed=self.device == "cpu" and Moment.now().others_share(before) > _DISTURBED,
        )


class Bench:
    """A network's step at several batch sizes.

    Args:
        spec: of the step; the devices of a CPU are one per column or 1, of a card 1.
        batches: images of a step.
        device: where to run.
        copies: batch sizes of which there is the step of a replica as well.
    """

    def __init__(
        self,
        spec: PlanSpec,
        batches: Sequence[int],
        *,
        device: Device = "cpu",
        copies: Sequence[int] = (),
    ) -> None:
        self.device = device
        self.plans = {batch: plan(spec, batch_size=batch) for batch in batches}
        self.copies = {
            batch: plan(spec, batch_size=_COPIES * batch, replicas=_COPIES) for batch in copies
        }
        self._state: dict[str, torch.Tensor] = {}

    def steps(self, plans: Sequence[Plan]) -> list[Step]:
        """Ready to run, in memory of their own.

        Raises:
            AlexsimError: there is no card, or it cannot hold them together.
        """
        try:
            return [self._step(made) for made in plans]
        except torch.OutOfMemoryError as error:
            raise AlexsimError(
                f"steps of {', '.join(map(str, self.plans))} images do not fit on the card"
                " together: choose smaller --batches"
            ) from error

    def _step(self, made: Plan) -> Step:
        """Weights are drawn once."""
        step = Step(made, self.device, self._state)
        if not self._state:
            self._state = {name: each.clone() for name, each in step.executor.state().items()}
        return step

    def rounds(
        self, plans: Sequence[Plan], rounds: int, done: Callable[[int], None] = lambda _: None
    ) -> dict[int, list[Round]]:
        """Every plan's measured steps, by its images, in turns.

        A step that other processes disturb is measured again, as often as there are rounds at most.
        """
        measured: dict[int, list[Round]] = {made.batch_size: [] for made in plans}
        for first in range(0, rounds, _SITTING):
            for each in self._sitting(plans, min(_SITTING, rounds - first)):
                measured[each.batch_size].append(each)
            done(min(first + _SITTING, rounds))
        return measured

    def _sitting(self, plans: Sequence[Plan], rounds: int) -> Iterator[Round]:
        """Its steps' memory is given back at its end."""
        steps = self.steps(plans)
        for step in steps:
            for _ in range(_WARM_UPS[self.device]):
                step()
        again = dict.fromkeys(steps, rounds)
        for index in range(rounds):
            # Forward and back again, so that a drift inside a sitting cancels.
            for step in steps if index % 2 == 0 else reversed(steps):
                each = step()
                while each.disturbed and again[step]:
                    again[step] -= 1
                    each = step()
                yield each

"""PyTorch's steps beside ours: eager and by ``torch.compile``, in turns.

All run in this process, with its threads and its allocator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch

from alexsim.errors import AlexsimError
from alexsim.execute.choices import Device
from alexsim.network.network import Network
from alexsim.plan.plan import Plan
from alexsim.profile.eager import LOSS, UPDATE, Eager, Key, held_bytes, in_one_line
from alexsim.profile.step_profile import (
    Beside,
    CompiledStep,
    EagerStep,
    ModuleTimes,
    PassTimes,
    ratio,
    spread,
)
from alexsim.profile.steps import Batch, minibatch
from alexsim.profile.watch import Watch

PREPARATIONS = 3
"""Eager PyTorch's first steps, the compiled module's first, and its second."""


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
        self._watch = Watch(self.eager)
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
                loss_s=self._median(LOSS),
                update_s=self._median(UPDATE),
                held_bytes=held_bytes(self.eager),
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
    images, labels = minibatch(plan)
    learning = plan.spec.trainable
    keys = plan.network.keys if learning is not None else {}
    learns = {key: name.rpartition(".")[0] in (learning or ()) for name, key in keys.items()}
    return Rivals(
        plan.network,
        (images.contiguous(), labels),
        optimizer=plan.spec.optimizer,
        learns=learns,
        device=device,
        done=done,
    )

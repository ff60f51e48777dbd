"""PyTorch's step of the same module beside ours, as parts of documents."""

from __future__ import annotations

from typing import Annotated, Self

from alexsim.documents.base import From, Interval
from alexsim.documents.step import Finite
from alexsim.profile.beside import compared
from alexsim.profile.step_profile import StepProfile


class BesideGroup(Finite):
    """A module that was called, and the layers named after it."""

    name: str
    """Of the module; empty of the whole, for what stands in no other."""
    layers: tuple[str, ...]
    """Ours; none where nothing of it is in the plan."""
    forward_s: Annotated[float, From("eager.forward_s")]
    """Eager PyTorch's, as what follows."""
    backward_s: Annotated[float, From("eager.backward_s")]
    ours_forward_s: Annotated[float | None, From(lambda of: of.ours and of.ours.forward_s)] = None
    ours_backward_s: Annotated[float | None, From(lambda of: of.ours and of.ours.backward_s)] = None
    """Both gradients."""
    ratio: float | None = None
    """Eager's time over ours."""

    @property
    def eager_s(self) -> float:
        """Seconds of eager PyTorch."""
        return self.forward_s + self.backward_s

    @property
    def ours_s(self) -> float | None:
        """Seconds of ours; None where it has no layer."""
        if self.ours_forward_s is None or self.ours_backward_s is None:
            return None
        return self.ours_forward_s + self.ours_backward_s


class BesideParts(Finite):
    """A timed step: its groups and these parts add up to it."""

    timed_step_s: float
    loss_s: float
    """The cost, forward and backward."""
    update_s: float
    rest_s: float
    """Of ours, transfers and what lies between ops; of PyTorch's, containers that only call
    others, and what medians of parts leave of the median step."""


class EagerParts(BesideParts):
    """Eager PyTorch's; the steps without timing too."""

    step_s: Annotated[float, From("untimed.median_s")]
    step_s_interval: Annotated[Interval, From(lambda of: (of.untimed.low_s, of.untimed.high_s))]
    over_ours: Annotated[float, From("over_ours.median")]
    """Its step over ours, round by round: the median."""
    over_ours_interval: Annotated[Interval, From("over_ours")]
    groups: tuple[BesideGroup, ...]
    held_bytes: int
    """Most bytes of parameters, buffers, the update rule's state and what a step takes."""


class CompiledParts(Finite):
    """Steps of the module that ``torch.compile`` made."""

    step_s: Annotated[float, From("untimed.median_s")]
    step_s_interval: Annotated[Interval, From(lambda of: (of.untimed.low_s, of.untimed.high_s))]
    over_ours: Annotated[float, From("over_ours.median")]
    over_ours_interval: Annotated[Interval, From("over_ours")]
    over_eager: Annotated[float, From("over_eager.median")]
    over_eager_interval: Annotated[Interval, From("over_eager")]
    compile_s: float
    """How much longer its first step took."""


class BesideDocument(Finite):
    """The PyTorch module of which the network was made, on the same minibatch: its steps took turns
    with ours."""

    torch: str
    """Version."""
    ours: BesideParts
    eager: EagerParts
    compiled: CompiledParts | None
    why_not: str
    """Why nothing was compiled; empty where it was."""

    @classmethod
    def of_profile(cls, profile: StepProfile, *, only: str = "") -> Self | None:
        """Of all groups, or of a layer's; None where no module was measured."""
        comparison, beside = compared(profile), profile.beside
        if comparison is None or beside is None:
            return None
        ours, eager = (
            {
                "timed_step_s": comparison.step[side],
                "loss_s": comparison.loss[side],
                "update_s": comparison.update[side],
                "rest_s": comparison.rest[side],
            }
            for side in range(2)
        )
        groups = [each for each in comparison.groups if not only or only in each.layers]
        return cls.of(
            torch=beside.eager.torch,
            ours=BesideParts.of(**ours),
            eager=EagerParts.of(beside.eager, **eager, over_ours=beside.over_ours, groups=groups),
            compiled=beside.compiled,
            why_not=beside.why_not,
        )

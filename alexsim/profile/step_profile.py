"""Records of a profiled step: times, counts and memory beside a prediction. No torch in here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from alexsim.network.part import Part
from alexsim.plan.backends import BACKENDS
from alexsim.plan.plan import Op, Plan
from alexsim.profile.nvml import Telemetry
from alexsim.simulate.simulation import Simulation
from alexsim.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median of the rounds, and the quantiles of 10 % and 90 %."""

    median_s: float
    low_s: float
    high_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Median of a ratio over pairs, and an interval that holds the true median 19 times in 20."""

    median: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCount:
    """One pass of a layer over the whole batch, all columns together: counts and a prediction."""

    name: str
    mac: int
    flop: int
    elementwise_flop: int
    moved_bytes: int
    predicted_s: float
    predicted_limit: str
    """What binds on the other machine, as its cost model names it."""
    algorithm: str
    """By which backend it is computed here, and how: all of them, where columns differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassProfile(PassCount):
    """A pass that was measured too."""

    measured: Spread
    floor_s: float
    """Least time on this machine: products that are done, or bytes, at its ceilings."""
    limit: str
    """``compute`` or ``memory``, whichever the floor is; ``overhead`` where neither explains it."""

    @property
    def flop_per_s(self) -> float:
        """Rate of the multiply-adds of convolutions and fully connected layers."""
        return self.flop / self.measured.median_s if self.measured.median_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCount:
    """One layer: its passes, and the bytes that the devices hold for it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    passes: tuple[PassCount, ...]
    memory_bytes: dict[str, int]
    """By device."""

    @property
    def predicted_s(self) -> float:
        """Its time on the other machine, on the device that takes longest for it."""
        return sum(pass_.predicted_s for pass_ in self.passes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile(LayerCount):
    """A layer that was measured too."""

    passes: tuple[PassProfile, ...]

    @property
    def measured_s(self) -> float:
        """Sum of its passes' medians."""
        return sum(pass_.measured.median_s for pass_ in self.passes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Rates that this machine reached just now, in products and in a large copy."""

    flop_per_s: float
    bytes_per_s: float
    bf16_flop_per_s: float | None = None
    """Of products of bfloat16 by our kernels for CPUs, where an op is one."""

    def compute_s(self, op: Op, part: Part) -> float:
        """Least time of the products that are done for an op."""
        flop = BACKENDS[op.backend].done_flop(op, part)
        return flop / ((op.algorithm == "bf16" and self.bf16_flop_per_s) or self.flop_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Most memory that one or more devices held, as planned and as the allocator saw it."""

    devices: str
    planned_bytes: int
    measured_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The cost of timing a step: from pairs of steps with and without it, and per event."""

    untimed: Spread
    overhead: Ratio
    """Timed over untimed step, pair by pair."""
    events: int
    event_s: float
    """Cost of timing one op."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTimes:
    """Seconds of a group per step: medians."""

    forward_s: float
    backward_s: float
    """Both gradients."""

    @property
    def all_s(self) -> float:
        """Of both."""
        return self.forward_s + self.backward_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleTimes:
    """A module that eager PyTorch called."""

    name: str
    """Its first, in the module that was given; that itself has none."""
    aliases: tuple[str, ...]
    """All its names."""
    works: bool
    """Whether it computes something itself: a leaf, or it made a part of autograd's graph."""
    eager: PassTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerStep:
    """Steps of eager PyTorch. Timed, its time runs on from mark to mark: what lies between two ops
    is the first's."""

    torch: str
    """Version."""
    untimed: Spread
    timed: Spread
    modules: tuple[ModuleTimes, ...]
    """In the order in which their first calls ended: children before their parents."""
    loss_s: float
    """The cost, forward and backward."""
    update_s: float
    held_bytes: int
    """Most bytes that parameters, buffers, the update rule's state, and what a step takes held at
    a time; the minibatch is not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledStep:
    """Steps of the module that ``torch.compile`` made."""

    untimed: Spread
    compile_s: float
    """How much longer its first step took."""
    over_eager: Ratio
    over_ours: Ratio | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """PyTorch's steps, which took turns with ours."""

    eager: EagerStep
    compiled: CompiledStep | None
    why_not: str
    """Why nothing was compiled; empty where it was."""
    over_ours: Ratio | None
    """Eager's step over ours, round by round; None where ours was not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProfile:
    """A step: its layers, the transfers and rest between them, and the cost of timing it."""

    plan: Plan
    where: str
    rounds: int
    layers: tuple[LayerProfile, ...]
    transfers_s: float
    """Uploads and exchanges."""
    timed: Spread
    timing: Timing | None
    """None where every step was timed, as in training."""
    ceilings: Ceilings
    held: tuple[Held, ...]
    telemetry: Telemetry | None
    """None where no card ran it."""
    simulation: Simulation
    trace: Trace
    """Of the timed steps."""
    beside: Beside | None = None
    """None where no PyTorch module was measured beside it."""

    @property
    def step(self) -> Spread:
        """The step's time; without timing where that was measured."""
        return self.timing.untimed if self.timing else self.timed

    @property
    def layers_s(self) -> float:
        """Seconds of all layers."""
        return sum(layer.measured_s for layer in self.layers)

    @property
    def rest_s(self) -> float:
        """Seconds of the timed step between its ops."""
        return self.timed.median_s - self.layers_s - self.transfers_s


def spread(values: Sequence[float]) -> Spread:
    """Median and quantiles."""
    return Spread(
        median_s=statistics.median(values),
        low_s=quantile(values, 0.1),
        high_s=quantile(values, 0.9),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a ``share`` of the values lies, interpolated between neighbours."""
    import numpy as np

    return float(np.quantile(values, share))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Median of ``ours / theirs`` over pairs, with the interval that order statistics give.

    The k-th smallest and k-th largest of n values enclose the median with probability
    1 - 2 P(Binomial(n, 1/2) < k), whatever the values' distribution; k is the largest for which
    that is 95 % (fewer than 6 pairs: the smallest and the largest, which hold it less often).
    """
    ordered = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    n, rank, below = len(ordered), 1, 1.0
    while rank < n / 2 and 2 * (below + comb(n, rank)) <= 0.05 * 2**n:
        below += comb(n, rank)
        rank += 1
    return Ratio(
        median=statistics.median(ordered),
        low=ordered[rank - 1],
        high=ordered[n - rank],
        pairs=n,
    )

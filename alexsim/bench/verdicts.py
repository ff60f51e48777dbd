"""A benchmark run's figures, a baseline's figures, and how the two are judged."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from alexsim.errors import ProfileError
from alexsim.profile.step_profile import Ratio
from alexsim.typed import Words

Value = Annotated[int | float | str, Words("a finite number or a text")]
BATCH_SIZE = "batch size"
"""The counted figure that all others are of."""
DIGEST = "plan/digest"
"""The counted figure that is no quantity, whatever digits it has."""
COUNTED = ("same", "changed", "missing", "new")
"""What a verdict of a counted figure may be."""
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine and the versions that a figure came from."""

    cpu: str
    cores: int
    python: str
    torch: str
    commit: str
    date: str

    @property
    def key(self) -> str:
        """Ratios are compared with ratios of the same processor, cores and PyTorch only."""
        return f"{self.cpu}, {self.cores} cores, torch {self.torch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One case: our time over the reference's, pair by pair in one run."""

    name: str
    ours: str
    reference: str
    ratio: Ratio
    ours_s: float
    reference_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRun:
    """All figures of one run."""

    network: str
    host: Host
    counted: Mapping[str, Value]
    """Figures that no machine changes: FLOPs, bytes, simulated times, kernels' resources."""
    timed: tuple[Timed, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Kinds of figures that the run left out, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One case in a baseline: the ratio's median over several runs, and its lowest and highest."""

    ratio: float
    low: float
    high: float
    runs: int

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.ratio <= self.high:
            raise ProfileError(
                f"must have 0 < low <= ratio <= high, got {self.low:g}, {self.ratio:g},"
                f" {self.high:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The ratios of one machine."""

    host: Host
    timed: Mapping[str, Stored]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A baseline file: counted figures, and ratios by machine."""

    network: str
    host: Host
    """Where the counted figures were made."""
    counted: Mapping[str, Value]
    machines: Mapping[str, Machine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One figure beside its baseline."""

    name: str
    status: str
    """``same``, ``changed``, ``missing`` or ``new`` (counted); ``ok``, ``slower``, ``faster``, ``no
    number`` or ``no baseline`` (timed)."""
    before: Value | None
    after: Value | None
    change: Ratio | None = None
    """This run's ratio over the baseline's; of a timed case only."""

    @property
    def fails(self) -> bool:
        """Whether the gate fails for it; a case that became faster passes."""
        return self.status in ("changed", "missing", "new", "slower", "no number")

    @property
    def relative_change(self) -> float | None:
        """What the figure grew by, over what it was; None where that is no quantity.

        Of a text with several numbers, such as a kernel's registers and bytes, that of the number
        which changed most; infinite where it was nothing before.
        """
        if self.change is not None:
            return self.change.median - 1
        if self.before is None or self.after is None or self.name == DIGEST:
            return None
        return _grown(str(self.before), str(self.after))


def by_change(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Largest relative change first, of whichever sign; then what changed otherwise, then names."""

    def order(verdict: Verdict) -> tuple[bool, float, str]:
        change = verdict.relative_change
        return change is None, -abs(change or 0.0), verdict.name

    return sorted(verdicts, key=order)


def _grown(before: str, after: str) -> float | None:
    """The largest relative change of a number in a text; None if anything else changed."""
    if _NUMBER.sub("", before) != _NUMBER.sub("", after):
        return None
    pairs = zip(_NUMBER.findall(before), _NUMBER.findall(after), strict=True)
    changes = (_over(float(old), float(new)) for old, new in pairs)
    return max(changes, key=abs, default=None)


def _over(old: float, new: float) -> float:
    if old == new:
        return 0.0
    return (new - old) / abs(old) if old else math.copysign(math.inf, new)


def judge(run: BenchRun, baseline: Baseline, *, tolerance: float) -> tuple[Verdict, ...]:
    """Judge counted figures exactly, and ratios by their whole interval beyond ``tolerance``."""
    machine = baseline.machines.get(run.host.key)
    return (
        *_counted(run.counted, baseline.counted),
        *(_timed(case, machine, tolerance) for case in run.timed),
    )


def _counted(after: Mapping[str, Value], before: Mapping[str, Value]) -> list[Verdict]:
    verdicts = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None:
            status = "new"
        elif new is None:
            status = "missing"
        else:
            status = "same" if old == new else "changed"
        verdicts.append(Verdict(name=name, status=status, before=old, after=new))
    return verdicts


def _timed(case: Timed, machine: Machine | None, tolerance: float) -> Verdict:
    stored = machine.timed.get(case.name) if machine else None
    ratio = case.ratio
    if not all(0 < bound < math.inf for bound in (ratio.low, ratio.median, ratio.high)):
        before = stored.ratio if stored else None
        return Verdict(name=case.name, status="no number", before=before, after=ratio.median)
    if stored is None:
        return Verdict(name=case.name, status="no baseline", before=None, after=ratio.median)
    # The baseline's runs differ: a ratio between them is no change.
    change = Ratio(
        median=ratio.median / stored.ratio,
        low=ratio.low / stored.high,
        high=ratio.high / stored.low,
        pairs=ratio.pairs,
    )
    status = "ok"
    # Written so that NaN counts as slower.
    if not change.low <= 1 + tolerance:
        status = "slower"
    elif change.high < 1 / (1 + tolerance):
        status = "faster"
    return Verdict(
        name=case.name,
        status=status,
        before=stored.ratio,
        after=ratio.median,
        change=change,
    )

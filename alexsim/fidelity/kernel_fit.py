"""Trees from measured kernels, and predictions of kernels that a fit has not seen."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from alexsim.costs.correction import Correction
from alexsim.costs.cost import REALMS, Cost, Kind, Realm, device_traits
from alexsim.costs.trees import Forest, Forests
from alexsim.fidelity.boosting import Growth, grow
from alexsim.fidelity.fit import Observation
from alexsim.fidelity.kernel_calls import Call, call_of
from alexsim.fidelity.kernel_fields import Unlike
from alexsim.fidelity.kernel_rows import KernelRow
from alexsim.fidelity.rows import device_named
from alexsim.machine.device import load_device

MOST_OF_A_GROUP = 700
"""Rows of a device, source, op and precision that teach: three sweeps of random shapes have 583,000
of 740,000 rows, and a fit that weighed rows alike would see nothing else."""
GROWTH = Growth(trees=300, rate=0.1, features=0.4)
_FEW = 100
_EXAM = ("gtx580", "gtx580-1.5gb", "gtx480")
"""Sheets of the cards that 2012 is predicted for: no figure of them teaches."""

Group = tuple[str, ...]
Part = tuple[Kind, Realm]
CHIPS = {
    "v100": "gv100-tesla", "v100-pcie": "gv100-tesla", "v100-sxm3": "gv100-tesla",
    "p100": "gp100", "p100-pcie": "gp100",
    "a100": "ga100", "a100-pcie": "ga100", "a100-80gb": "ga100", "a100-pcie-80gb": "ga100",
    "h100": "gh100", "h100-pcie": "gh100", "h200": "gh100", "gh200": "gh100",
    "k40": "gk110b", "k40-875": "gk110b",
}  # fmt: skip
"""Cards of one chip that are left out together, by sheet; others stand for themselves."""


def chip(device: str) -> str:
    """What is left out together with a device."""
    return CHIPS.get(device, device)


def group_of(row: KernelRow) -> Group:
    """Rows that a sample takes alike: of a card, a source, an op, a pass and a precision."""
    stated = "stated" if row.algorithm and row.op == "conv" else ""
    return row.device, row.source, row.op, row.precision, row.passes, stated


def sample(
    rows: Iterable[KernelRow], most: int = MOST_OF_A_GROUP, seed: int = 1
) -> tuple[KernelRow, ...]:
    """At most so many rows of each group, by chance that repeats; in the order of the rows."""
    chance, seen = random.Random(seed), defaultdict[Group, int](int)
    kept: dict[Group, list[tuple[int, KernelRow]]] = defaultdict(list)
    for place, row in enumerate(rows):
        group = group_of(row)
        seen[group] += 1
        if len(kept[group]) < most:
            kept[group].append((place, row))
        elif (instead := chance.randrange(seen[group])) < most:
            kept[group][instead] = place, row
    return tuple(
        row for _, row in sorted((pair for of in kept.values() for pair in of), key=_place)
    )


def _place(pair: tuple[int, KernelRow]) -> int:
    return pair[0]


_CONDITION = (
    "device", "device_clock_notes", "library", "pass", "precision", "layout", "batch",
    "in_channels", "height", "width", "out_channels", "kernel_h", "kernel_w", "stride_h",
    "stride_w", "pad_h", "pad_w", "groups",
)  # fmt: skip
_ADVISED, _BEST = "algorithm that cuDNN advises", 1.1
"""Of a row whose algorithm was not searched for; and how many times the least of its condition a
row's time may be, to count as the fastest algorithm's: the same call differs so much."""


@dataclass(slots=True)
class Choices:
    """What is known of the algorithms of a table's convolutions, by condition."""

    least_s: dict[int, float] = field(default_factory=dict)
    advised: set[int] = field(default_factory=set)
    """Conditions in which the advice is not the fastest."""

    def noted(self, rows: Iterable[KernelRow]) -> Iterator[KernelRow]:
        """The rows, as they are noted."""
        for row in rows:
            if row.algorithm and row.op == "conv" and row.time_s is not None:
                key = _condition(row)
                self.least_s[key] = min(self.least_s.get(key, row.time_s), row.time_s)
                if row.notes == _ADVISED:
                    self.advised.add(key)
            yield row

    def of(self, row: KernelRow) -> list[str]:
        """What beside the stated algorithm a row tells of: a library's own choice, by trial, the
        fastest; or without one as it advises."""
        if not row.algorithm or row.op != "conv" or row.time_s is None:
            return []
        key = _condition(row)
        if row.notes == _ADVISED:
            return ["advised"]
        if row.time_s > _BEST * self.least_s.get(key, row.time_s):
            return []
        # Where the advice differs, the table has a row of it.
        return ["", "advised"] if "fastest" in row.notes and key not in self.advised else [""]


def _condition(row: KernelRow) -> int:
    return hash((row.source, *[row.entry[column] for column in _CONDITION]))


def teaching(
    rows: Iterable[KernelRow], choices: Choices | None = None
) -> tuple[list[Call], list[Call]]:
    """Calls that teach: as stated; and as what a library chose of its own."""
    choices = choices or Choices()
    stated: list[Call] = []
    chosen: list[Call] = []
    for row in rows:
        if row.time_s is None or device_named(row.device) in _EXAM:
            continue
        try:
            stated.append(call_of(row))
            chosen += (call_of(row, as_stated=way) for way in choices.of(row))
        except Unlike:
            continue
    return stated, chosen


def grown(
    calls: Sequence[Call],
    growth: Growth = GROWTH,
    *,
    only: Container[Part] | None = None,
    done: Callable[[int], None] = lambda _: None,
) -> Forests:
    """Trees from calls with times, by kind of call and realm; ``only`` those."""
    parts = defaultdict[Part, list[Call]](list)
    for call in calls:
        part = call.learned.kind, call.learned.realm
        if part[1] in REALMS and (only is None or part in only):
            parts[part].append(call)
    forests: dict[Part, Forest] = {}
    for part, chosen in parts.items():
        counts = Counter(group_of(call.row) for call in chosen)
        weight = np.array([max(_FEW, counts[group_of(c.row)]) ** -0.75 for c in chosen])
        features = np.array([call.learned.features for call in chosen])
        target = np.log([(c.row.time_s or 0.0) / (c.base_s + c.overhead_s) for c in chosen])
        grows = growth if part[1] == "fp32" else _fewer(growth)
        forests[part] = grow(features, target, weight, grows, done=done)
    return forests


def predicted_s(calls: Sequence[Call], correction: Correction, trust: float = 1.0) -> np.ndarray:
    """Seconds of calls by trees and the device's coefficients; never over the device's peaks.

    ``trust``: what is left of the logarithm of the trees' factor.
    """
    seconds = np.array([call.base_s + call.overhead_s for call in calls])
    known = correction.coefficients
    offsets = (
        sum(known.get(t, 0.0) for t in device_traits(device_name(c.device), c.learned.kind))
        for c in calls
    )
    seconds *= np.exp(np.fromiter(offsets, float, len(calls)))
    for part, forest in correction.forests.items():
        chosen = [i for i, c in enumerate(calls) if (c.learned.kind, c.learned.realm) == part]
        if chosen:
            features = np.array([calls[i].learned.features for i in chosen])
            seconds[chosen] *= np.exp(trust * forest.log_factors(features))
    least_s = np.array([call.least_s for call in calls])
    bounded: np.ndarray = np.maximum(seconds, least_s)
    return bounded


_SCATTER, _MOST_ALIKE = 0.25, 3
"""Relative scatter of a kernel around its prediction; and how many independent rows all rows of a
device and source count as: they share what their card and timer have of their own."""


def kernel_observations(calls: Sequence[Call], *, given: bool = False) -> list[Observation]:
    """Calls with times as a fit of coefficients takes them.

    ``given``: what their timer has of its own is wanted too, as they are of one's own condition.
    """
    alike = Counter((c.device, c.row.source, c.learned.kind) for c in calls)
    figures = []
    for call in calls:
        assert call.row.time_s is not None
        count = alike[call.device, call.row.source, call.learned.kind]
        traits = device_traits(device_name(call.device), call.learned.kind)
        # The timer's share is part of what the trees were taught to multiply.
        whole = Cost(call.base_s + call.overhead_s, "compute", traits, learned=call.learned)
        figures.append(
            Observation(
                id=call.row.id,
                ops=[[whole]],
                measured_s=call.row.time_s,
                noise=_SCATTER * math.sqrt(1.0 if given else max(1.0, count / _MOST_ALIKE)),
            )
        )
    return figures


def few_of_each(calls: Sequence[Call], most: int) -> list[Call]:
    """At most so many calls of each device, source and kind."""
    seen = Counter[tuple[str, str, str]]()
    kept = []
    for call in calls:
        group = call.device, call.row.source, call.learned.kind
        seen[group] += 1
        if seen[group] <= most:
            kept.append(call)
    return kept


@cache
def device_name(sheet: str) -> str:
    """A device's name, by its sheet's."""
    return load_device(sheet).name


def _fewer(growth: Growth) -> Growth:
    """For the few rows of a lesser realm."""
    return replace(growth, trees=growth.trees // 3, depth=4)


def thinned(growth: Growth) -> Growth:
    """Half the trees at twice the rate: half the time, for the many fits of a leave-out."""
    return replace(growth, trees=growth.trees // 2, rate=growth.rate * 1.75)

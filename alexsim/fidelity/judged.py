"""Predictions beside what was measured, whatever kind of row they are of: in seconds, and with the
words that groups go by.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from alexsim.costs.correction import Correction
from alexsim.fidelity.rows import Case, sheet_of
from alexsim.fidelity.validation import Prediction, flop_of, seconds_of
from alexsim.machine.device import device_names
from alexsim.network.layers.kinds import kind_words
from alexsim.network.part import Part

WHOLE = "network"
"""The op of a row that timed a whole network."""
_PASSES = {
    "fwd": "forward",
    "bwd": "backward",
    "bwd-data": "grad_input",
    "bwd-weight": "grad_weight",
    "fwd+bwd": "step",
    "train-step": "step",
    "total": "step",
}
"""A step is forward and backward, with or without the update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A prediction beside what was measured, in seconds, and its row in words."""

    id: str
    source: str
    """Who published it; empty where the table does not say."""
    device: str
    generation: str
    """The device's architecture."""
    year: int | None
    """The year in which the device came out."""
    device_seen: bool
    """Whether the fit had rows of the device."""
    library: str
    library_seen: bool
    op: str
    """Kind of layer or kernel; ``WHOLE`` of a whole network."""
    passes: str
    """The pass, in a word."""
    what: str
    """Network, layer, shape: what a reader would look for in the source."""
    batch_size: int | None
    precision: str
    cards: int
    flop: float
    """Of its multiply-adds, two each; 0 where it has none."""
    predicted_s: float
    low_s: float
    high_s: float
    """The bounds for nine in ten."""
    measured_s: float | None
    """None in a blind row."""
    roofline_s: float | None
    """What the roofline predicts; None where nobody asked it."""

    @property
    def log_ratio(self) -> float:
        """Logarithm of predicted over measured time."""
        assert self.measured_s is not None
        return math.log(self.predicted_s / self.measured_s)

    @property
    def error(self) -> float:
        """Predicted over measured time, minus one."""
        assert self.measured_s is not None
        return self.predicted_s / self.measured_s - 1

    @property
    def covered(self) -> bool:
        """Whether the measured time lies in the interval."""
        return self.measured_s is not None and self.low_s <= self.measured_s <= self.high_s


class Seen(NamedTuple):
    """What a fit had rows of, by name."""

    devices: frozenset[str]
    libraries: frozenset[str]


def seen_by(correction: Correction) -> Seen:
    """What a fit has seen."""
    card = correction.card
    devices = frozenset(name for name in device_names() if sheet_of(name).name in card.devices)
    return Seen(devices, frozenset(card.libraries))


def of_predictions(
    predictions: Sequence[Prediction], bounds: Sequence[Prediction], seen: Seen
) -> tuple[Judged, ...]:
    """Predictions of published figures; ``bounds`` are the roofline's of those with a value, in
    the same order."""
    bound = iter(bounds)
    ran: dict[Hashable, _Ran] = {}
    judged = []
    for each in predictions:
        case, row = each.case, each.case.row
        # Rows of one network and pass are many, and counting a deep network takes its time.
        conditions = (case.batch_size, case.passes, case.image_gradient, row.notes)
        key = (id(case.network), case.layers, *conditions)
        if key not in ran:
            ran[key] = _Ran(_op(case), _what(case), flop_of(case))
        known = row.value is not None
        judged.append(_judged(each, ran[key], next(bound) if known else None, seen))
    return tuple(judged)


class _Ran(NamedTuple):
    """What a row ran, without the figure."""

    op: str
    what: str
    flop: float


def _judged(prediction: Prediction, ran: _Ran, bound: Prediction | None, seen: Seen) -> Judged:
    case, row = prediction.case, prediction.case.row
    device = sheet_of(case.device)
    low, high = sorted(seconds_of(case, value) for value in (prediction.low, prediction.high))
    return Judged(
        id=row.id,
        source=row.source.partition(" ")[0],
        device=case.device,
        generation=device.architecture.name,
        year=device.year,
        device_seen=case.device in seen.devices,
        library=case.library,
        library_seen=case.library in seen.libraries,
        op=ran.op,
        passes=_PASSES[case.passes],
        what=ran.what,
        batch_size=case.batch_size,
        precision=case.precision,
        cards=row.n_gpus,
        flop=ran.flop,
        predicted_s=seconds_of(case, prediction.value),
        low_s=low,
        high_s=high,
        measured_s=None if row.value is None else seconds_of(case, row.value),
        roofline_s=None if bound is None else seconds_of(case, bound.value),
    )


def _op(case: Case) -> str:
    if not case.single_layer:
        return WHOLE
    kinds = {kind_words(type(part.layer).__name__).singular for part in _timed(case)}
    return kinds.pop() if len(kinds) == 1 else "several layers"


def _timed(case: Case) -> Iterator[Part]:
    """The parts of a row of single layers, in one column."""
    for parts in case.network.parts:
        if parts[0].layer.name in case.layers:
            yield parts[0]


def _what(case: Case) -> str:
    if not case.single_layer:
        return f"{case.network.name}, {_shape(case.network.input_shape)}"
    layers = (
        f"{part.layer.name}: {_shape(part.input_shape)} to {_shape(part.output_shape)}"
        for part in _timed(case)
    )
    return f"{case.network.name} {'; '.join(layers)}"


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
